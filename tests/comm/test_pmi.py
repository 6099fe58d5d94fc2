"""What MPICH's ranks ask of a PMI-1 server, and what it answers; no sockets, no ranks."""

from __future__ import annotations

import pytest

from harness.comm.pmi import MAX_ID, PmiJob, PmiManager, RefusedError, process_mapping, shared_memory_pattern

JOB = PmiJob("harness_1", (1000, 77, 5), "(vector,(0,1,3))")


def connected(job=JOB):
    """A manager whose clients `a`, `b` and `c` are ranks 0, 1 and 2."""
    manager = PmiManager(job)
    for client, number in zip("abc", job.ids, strict=True):
        manager.answer(client, f"cmd=initack pmiid={number}")
    return manager


def test_a_rank_is_told_its_number_and_the_size_for_its_id():
    manager = PmiManager(JOB)
    assert manager.answer("x", "cmd=initack pmiid=77") == [
        ("x", line) for line in ("cmd=initack rc=0", "cmd=set size=3", "cmd=set rank=1", "cmd=set debug=0")
    ]
    assert manager.is_rank("x")
    assert not manager.is_complete
    manager.answer("y", "cmd=initack pmiid=5")
    manager.answer("z", "cmd=initack pmiid=1000")
    assert manager.is_complete


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("cmd=init pmi_version=1 pmi_subversion=1", "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0"),
        ("cmd=get_maxes", "cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024"),
        ("cmd=get_appnum", "cmd=appnum rc=0 appnum=0"),
        ("cmd=get_my_kvsname", "cmd=my_kvsname rc=0 kvsname=harness_1"),
        ("cmd=get_universe_size", "cmd=universe_size rc=0 size=3"),
        (
            "cmd=get kvsname=harness_1 key=PMI_process_mapping",
            "cmd=get_result rc=0 msg=success value=(vector,(0,1,3))",
        ),
        ("cmd=get kvsname=harness_1 key=absent", "cmd=get_result rc=-1 msg=key_not_found"),
        ("cmd=put kvsname=harness_1 key=k value=a=b c ", "cmd=put_result rc=0 msg=success"),
        ("cmd=finalize", "cmd=finalize_ack rc=0"),
    ],
)
def test_what_a_rank_asks(line, answer):
    assert connected().answer("b", line) == [("b", answer)]


def test_what_one_rank_puts_another_gets_to_the_last_blank():
    manager = connected()
    manager.answer("a", "cmd=put kvsname=harness_1 key=card-0 value=host=1 port = 2 ")
    assert manager.answer("c", "cmd=get kvsname=harness_1 key=card-0") == [
        ("c", "cmd=get_result rc=0 msg=success value=host=1 port = 2 ")
    ]


@pytest.mark.parametrize(
    "words",
    [
        "kvsname=another key=k value=v",
        "kvsname=harness_1 key=PMI_process_mapping value=v",  # nobody replaces a value
        f"kvsname=harness_1 key={'k' * 65} value=v",
        f"kvsname=harness_1 key=k value={'v' * 1025}",
        "kvsname=harness_1 key= value=v",
        "kvsname=harness_1 key=k value=",
    ],
)
def test_what_cannot_be_put(words):
    manager = connected()
    ((_, answer),) = manager.answer("a", f"cmd=put {words}")
    assert answer.startswith("cmd=put_result rc=-1")
    assert manager.answer("a", "cmd=get kvsname=harness_1 key=k") == [("a", "cmd=get_result rc=-1 msg=key_not_found")]


def test_the_values_are_bounded():
    manager = connected()
    answers = [manager.answer("a", f"cmd=put kvsname=harness_1 key={n} value=v")[0][1] for n in range(3 * 256 + 5)]
    assert [answer.split()[1] for answer in answers] == ["rc=0"] * (3 * 256 - 1) + ["rc=-1"] * 6  # one was there


def test_the_barrier_releases_all_when_the_last_has_come_and_can_be_used_again():
    manager = connected()
    for _ in range(2):
        assert manager.answer("b", "cmd=barrier_in") == []
        assert manager.answer("a", "cmd=barrier_in") == []
        released = manager.answer("c", "cmd=barrier_in")
        assert sorted(released) == [(client, "cmd=barrier_out rc=0") for client in "abc"]
    manager.answer("a", "cmd=barrier_in")
    with pytest.raises(RefusedError):
        manager.answer("a", "cmd=barrier_in")


def test_all_have_finished_when_each_has():
    manager = connected()
    for client in "aab":
        manager.answer(client, "cmd=finalize")
        assert not manager.is_finalized
    manager.answer("c", "cmd=finalize")
    assert manager.is_finalized


@pytest.mark.parametrize(
    "line",
    [
        "cmd=get kvsname=harness_1 key=PMI_process_mapping",
        "cmd=barrier_in",
        "cmd=finalize",
        "cmd=initack",
        "cmd=initack pmiid=0",
        "cmd=initack pmiid=076",
        "cmd=initack pmiid=-5",
        "cmd=initack pmiid=1000",  # rank 0 is connected
        "GET / HTTP/1.1",
        "",
    ],
)
def test_a_stranger_gets_no_answer_and_changes_nothing(line):
    manager = PmiManager(JOB)
    manager.answer("a", "cmd=initack pmiid=1000")
    with pytest.raises(RefusedError):
        manager.answer("stranger", line)
    assert not manager.is_rank("stranger")
    manager.answer("b", "cmd=initack pmiid=77")
    manager.answer("c", "cmd=initack pmiid=5")
    assert manager.is_complete


@pytest.mark.parametrize("line", ["cmd=spawn nprocs=1", "mcmd=spawn", "cmd=abort exitcode=1", "hello there", ""])
def test_a_rank_that_speaks_another_language_is_refused(line):
    with pytest.raises(RefusedError):
        connected().answer("a", line)


@pytest.mark.parametrize(
    ("hosts", "mapping"),
    [
        ("a", "(0,1,1)"),
        ("aaaa", "(0,1,4)"),
        ("aabb", "(0,2,2)"),
        ("aab", "(0,1,2),(1,1,1)"),
        ("abab", "(0,2,1),(0,2,1)"),
        ("abbccd", "(0,1,1),(1,2,2),(3,1,1)"),
    ],
)
def test_which_rank_is_on_which_host(hosts, mapping):
    assert process_mapping(hosts) == f"(vector,{mapping})"


def test_a_mapping_that_is_too_long_for_a_value_is_left_out():
    hosts = [f"{n}" for n in range(200) for _ in range(1 + n % 2)]  # no two blocks are alike
    assert process_mapping(hosts) is None


def test_the_names_of_shared_memory():
    """The offset basis of FNV-1a, a published value of it, and one that MPICH 5.0.2 was seen to use."""
    assert shared_memory_pattern("") == "mpich_shm_811c9dc5_*"
    assert shared_memory_pattern("a") == "mpich_shm_e40c292c_*"
    assert shared_memory_pattern("hello") == "mpich_shm_4f9f2cab_*"
    assert MAX_ID == 2**31 - 1
