"""What processes of an elastic job tell each other, who decides, and what a lost one means while they connect."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from harness.comm import launcher_store
from harness.comm.elastic import pulse
from harness.comm.elastic.lifeline import Lifeline, LifelineServer
from harness.comm.elastic.meeting import Meeting
from harness.comm.elastic.notices import Notice, Roster, choose_members
from harness.comm.elastic.pulse import Pulses, this_process
from harness.comm.elastic.usher import Numbers, Slot, Usher
from harness.comm.launcher_store import LauncherStore
from harness.errors import LostRankError
from harness.gluon import Requests
from harness.train.changes import settled
from harness.train.run import Run


def notice(uid, phase="new", iteration=None, generation=0):
    return Notice(uid, "host", ("127.0.0.1",), phase, generation, iteration)


def uids(chosen):
    return None if chosen is None else [one.uid for one in chosen]


def test_what_is_sent_is_what_is_read():
    own = notice("a", "meeting", 7, 3)
    roster = Roster(4, (own, notice("b", "prepared")), {"127.0.0.1": 1}, {"127.0.0.1": 2})
    assert Notice.decode(own.encode()) == own
    assert Roster.decode(roster.encode()) == roster
    assert (roster.rank_of("b"), roster.rank_of("c")) == (1, None)


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"",
        b"[]",
        b"5",
        b'{"uid": 5}',
        notice("a").encode().replace(b"new", b"old"),
        notice("a").encode().replace(b'"generation": 0', b'"generation": "0"'),
        b"[" * 100_000,
    ],
)
def test_what_no_process_has_sent_is_nothing(text):
    assert Notice.decode(text) is None
    assert Roster.decode(text) is None


def test_at_the_beginning_the_first_decides_when_all_are_there():
    everyone = [notice("a"), notice("b"), notice("c")]
    assert uids(choose_members(everyone, 0, 8, is_late=False)) == ["a", "b", "c"]
    assert choose_members(everyone, 1, 8, is_late=False) is None
    assert choose_members([notice("a"), None], 0, 8, is_late=True) is None


def test_those_with_the_state_take_in_those_that_are_ready():
    everyone = [notice("a", "meeting", 5), notice("b", "preparing"), notice("c", "prepared"), notice("d", "meeting", 4)]
    assert uids(choose_members(everyone, 0, 8, is_late=False)) == ["a", "c", "d"]
    assert choose_members(everyone, 3, 8, is_late=False) is None  # the first of them decides
    assert uids(choose_members(everyone, 0, 2, is_late=False)) == ["a", "d"]  # and there are no more shards


def test_who_leads_may_have_a_later_number():
    everyone = [notice("a", "leaving"), notice("b", "preparing"), notice("c", "meeting", 5)]
    assert uids(choose_members(everyone, 2, 8, is_late=False)) == ["c"]


def test_who_still_trains_is_waited_for_and_who_says_nothing_for_a_while():
    everyone = [notice("a", "meeting", 5), notice("b", "member", 5)]
    assert choose_members(everyone, 0, 8, is_late=True) is None
    everyone = [notice("a", "meeting", 5), None]
    assert choose_members(everyone, 0, 8, is_late=False) is None
    assert uids(choose_members(everyone, 0, 8, is_late=True)) == ["a"]


@pytest.fixture
def server():
    """A lifeline of two processes, and its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    ports = {"127.0.0.1": listener.getsockname()[1]}
    serving = LifelineServer([listener], ["a", "b"])
    yield serving, ports
    serving.close()


def at_once(*functions):
    """What functions return that wait for each other."""
    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(lambda function: function(), functions))


def both(ports):
    """The lifelines of both, once each knows that all have connected."""
    lines = [Lifeline(ports, uid) for uid in ("a", "b")]
    assert at_once(*(one.wait_for_all for one in lines)) == [True, True]
    return lines


def test_all_connect_and_are_let_go_together(server):
    serving, ports = server
    one, other = both(ports)
    assert one.holds()
    assert other.holds()
    assert at_once(one.confirm, other.confirm) == [True, True]
    serving.wait()
    one.close()
    other.close()


def test_one_that_is_lost_when_it_is_through_ends_the_attempt_of_the_other_that_may_need_it_yet(server):
    serving, ports = server
    one, other = both(ports)
    assert not other.confirm(lambda: False)  # is through, and waits for the first
    other.close()
    serving.wait()
    assert not one.holds()
    assert not one.confirm()
    one.close()


def test_one_that_is_lost_ends_the_attempt_of_the_other(server):
    serving, ports = server
    one, other = both(ports)
    other.close()  # as the kernel closes what a dead process had open
    serving.wait()
    assert not one.holds()
    one.close()


def test_a_stranger_counts_as_nobody(server):
    serving, ports = server
    with socket.create_connection(("127.0.0.1", ports["127.0.0.1"])) as stranger:
        stranger.sendall(b"c\n")
    one, other = both(ports)
    assert at_once(one.confirm, other.confirm) == [True, True]
    serving.wait()
    one.close()
    other.close()


@pytest.mark.horovod
def test_no_sum_is_an_allreduce_which_aborts_a_rank_when_another_is_lost(monkeypatch):
    import horovod.mxnet as hvd
    import mxnet as mx

    from harness.comm.elastic.connecting import ElasticWorld

    said = {"rank": 0, "size": 3, "local_rank": 0, "local_size": 3, "nccl_built": False, "gloo_enabled": True}
    for name, value in said.items():
        monkeypatch.setattr(hvd, name, lambda value=value: value)
    monkeypatch.setattr(hvd, "allgather", lambda sent, name: mx.nd.concat(sent, sent, sent, dim=0))
    monkeypatch.delattr(hvd, "allreduce")
    world = ElasticWorld(SimpleNamespace(number=1), "tree")
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.full(4, 80, np.uint8), np.ones(1, np.int64)):
        summed = world.allreduce(array, "sum")
        assert (summed.dtype, summed.shape, summed.tolist()) == (array.dtype, array.shape, (3 * array).tolist())
    assert world.allreduce(np.zeros((0, 2), np.int32), "nothing").shape == (0, 2)
    sent = np.frombuffer(b"abc", np.uint8)
    assert [one.tobytes() for one in world.allgather_bytes(sent, "bytes")] == [b"abc"] * 3


@pytest.mark.parametrize(
    ("place", "least", "goes_on"),
    [
        ("1 1 another kernel", 1, True),
        ("1 1 another kernel", 2, False),  # which the driver does not allow, though it may not know of the loss
        (this_process(), 1, False),  # the driver has noticed the end, and looks for another worker
    ],
    ids=["elsewhere", "too few", "here"],
)
def test_without_an_answer_those_go_on_who_are_enough_when_the_driver_may_not_know_of_a_loss(
    monkeypatch, place, least, goes_on
):
    now_s, ended = [1000.0], []
    monkeypatch.setattr("harness.comm.elastic.meeting.end_silent", ended.append)
    monkeypatch.setattr("harness.comm.elastic.meeting.time.monotonic", lambda: now_s[0])
    monkeypatch.setattr("harness.comm.elastic.meeting.time.sleep", lambda _: now_s.append(now_s.pop() + 0.1))
    own, other = replace(notice("a", "meeting", 5), least=least), replace(notice("b", "member", 5), process=place)
    usher = SimpleNamespace(
        numbers=Numbers(1, 0, 2), notice=own, is_driver_gone=False, call=lambda: None, notices=lambda: [own, None]
    )
    meeting = Meeting(usher, None, None, SimpleNamespace(silent=lambda uids: {"b"} & set(uids)))
    meeting.members, meeting.call_of_update, meeting.wait_s = [own, other], 1, 30.0
    if goes_on:
        meeting.ask_driver()
        assert now_s[0] < 1010
    else:
        with pytest.raises(LostRankError, match="there were not enough workers for 30 s"):
            meeting.ask_driver()
        assert meeting.has_given_up
    assert set(ended) == {place}


@pytest.mark.parametrize(("last", "after_s", "ends"), [("ab", 5, ["B"]), ("a", 3, [])])
def test_who_was_in_the_last_world_and_says_nothing_is_waited_for_until_it_is_silent(monkeypatch, last, after_s, ends):
    now_s, ended, shown = [1000.0], [], []
    monkeypatch.setattr("harness.comm.elastic.meeting.end_silent", ended.append)
    monkeypatch.setattr("harness.comm.elastic.meeting.time.monotonic", lambda: now_s[0])
    monkeypatch.setattr("harness.comm.elastic.meeting.time.sleep", lambda _: now_s.append(now_s.pop() + 0.1))
    own = replace(notice("a", "meeting", 5), process="A")
    usher = SimpleNamespace(
        numbers=SimpleNamespace(call=1, rank=0, size=2),
        notice=own,
        is_driver_gone=False,
        post=lambda **_: None,
        call=lambda: None,
        notices=lambda: [own, None],  # the driver has cleared its server since
        roster=lambda: shown[-1] if shown else None,
        publish=shown.append,
    )
    pulses = SimpleNamespace(silent=lambda uids: {"b"} & set(uids) if now_s[0] > 1005 else set())
    meeting = Meeting(usher, None, SimpleNamespace(listen=lambda roster: roster), pulses)
    meeting.members = [own, replace(notice("b"), process="B")][: len(last)]
    assert [one.uid for one in meeting.meet(2, 5).members] == ["a"]
    assert (after_s < now_s[0] - 1000 < after_s + 3.5, sorted(set(ended))) == (True, ends)


def test_until_guards_watch_a_world_is_cut_once_one_of_its_processes_is_silent(monkeypatch):
    ended, silent, cuts = [], set(), threading.Event()
    monkeypatch.setattr("harness.comm.elastic.meeting.end_silent", ended.append)
    usher = SimpleNamespace(numbers=SimpleNamespace(size=2))
    meeting = Meeting(usher, None, None, SimpleNamespace(silent=lambda uids: silent & set(uids)))
    meeting.members = [replace(notice(name), process=name.upper()) for name in "ab"]
    world = SimpleNamespace(cut=cuts.set)
    with meeting.watching(world):
        assert not cuts.wait(1.2)
        silent.update("bc")
        assert cuts.wait(10)
    assert set(ended) == {"B"}
    cuts.clear()
    assert not cuts.wait(1)  # it is over


def test_who_is_not_in_a_world_is_watched_until_it_is_silent_and_ended_with_the_job_if_stopped(monkeypatch):
    ended, are_silent = [], set()
    for name in ("end_silent", "end_stopped"):
        monkeypatch.setattr(pulse, name, lambda process, name=name: ended.append((name, process)))
    strays = pulse.Strays(SimpleNamespace(silent=lambda uids: are_silent & {*uids, "own"}))

    def some(names):
        return [replace(notice(name), process=name.upper()) for name in names]

    strays.enter(some("abc"))
    strays.enter(some("ad"))
    strays.end_silent()
    assert ended == []
    strays.enter(some("ac"))  # it was only late
    are_silent.update(["a", "b", "c", "own"])
    strays.end_silent()
    strays.end_silent()
    assert ended == [("end_silent", "B")]
    strays.end_stopped()
    assert ended[1:] == [("end_stopped", "D")]

    strays.meet([None, *some("acd"), *some("ef")])  # two that get ready: one that does not run may only be busy
    are_silent.add("e")
    strays.end_silent()
    assert ended[2:] == [("end_stopped", "E")]
    strays.end_stopped()
    assert ended[3:] == [("end_stopped", name) for name in "DEF"]
    strays.enter(some("ade"))
    strays.meet(some("ade"))
    strays.end_silent()
    assert ended[6:] == [("end_silent", "C")]


def test_a_server_that_does_not_answer_is_told_from_a_process_that_was_frozen(monkeypatch, request):
    now_s, answers = [0.0], [False]
    monkeypatch.setattr(launcher_store.time, "monotonic", lambda: now_s[0])
    answer = SimpleNamespace(status=200, read=lambda most: b"value")
    server, ready = socket.socketpair()
    server.close()
    request.addfinalizer(ready.close)
    connection = SimpleNamespace(request=lambda *_: None, close=lambda: None, getresponse=lambda: answer, sock=ready)

    def connect(*_, **__):
        if not answers[0]:
            connection.request = lambda *_: (_ for _ in ()).throw(ConnectionRefusedError())
        else:
            connection.request = lambda *_: None
        return connection

    monkeypatch.setattr(launcher_store.http.client, "HTTPConnection", connect)
    store = LauncherStore("host", 1, "scope")
    for second in range(1, 11):
        now_s[0] = second
        assert not store.put("key", b"value")
        assert store.unanswered_s == second
    now_s[0] = 1000.0  # frozen meanwhile: one question that was not answered tells little
    assert store.get("key", 10) is None
    assert store.unanswered_s == 15.0
    answers[0] = True
    assert store.get("key", 10) == b"value"
    assert store.unanswered_s == 0.0


@pytest.fixture
def silent():
    """A store at a server that takes questions and answers none, as the driver's when it ends the workers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield LauncherStore("127.0.0.1", server.getsockname()[1], "scope")


def test_who_is_told_to_stop_waits_for_no_answer(silent):
    begun_s = time.monotonic()
    silent.hurries = lambda: time.monotonic() > begun_s + 0.2  # told while it waits
    for _ in range(3):
        assert silent.get("key", 10) is None
    assert time.monotonic() - begun_s < 1.5  # 6 s otherwise


def test_a_server_that_does_not_answer_for_one_is_not_asked_for_others(silent):
    usher = Usher(silent, ("host", 1), Slot("host", 0), Numbers(0, 1, 64), notice("a"))
    begun_s = time.monotonic()
    assert usher.notices() == [None] * 64
    assert Pulses(silent, "a").silent("bcdefg") == set()
    assert time.monotonic() - begun_s < 8  # 2 s for each


def test_without_the_driver_nobody_waits_for_another_world():
    store = SimpleNamespace(unanswered_s=20.0)
    usher = Usher(store, ("host", 1), Slot("host", 0), Numbers(0, 0, 2), notice("a"))
    meeting = Meeting(usher, Slot("host", 0), None, None)
    meeting.check()
    store.unanswered_s = 20.1
    with pytest.raises(LostRankError, match="horovodrun does not answer any more"):
        meeting.check()
    assert usher.driver_gone_s == pytest.approx(0.1)


def asked_to_leave(gone_s, others_leave=True):
    """What ranks do after one has asked for another world: whether all stop, and whether this rank has asked."""
    membership = SimpleNamespace(
        leaves=False, is_removed=False, is_launcher_gone=lambda longer_s=0.0: gone_s > longer_s
    )
    world = SimpleNamespace(membership=membership, allgather_object=lambda own, name: [own, others_leave])
    guard = SimpleNamespace(stop_requested=False, stop_signal=None, stop_requested_for_s=0.0)
    run = SimpleNamespace(world=world, guard=guard, is_told_to_end=None)
    run.is_told_to_end = Run.is_told_to_end.fget(run)
    return settled(run, Requests(reshape=True)).stop, run.is_told_to_end


def test_ranks_whose_driver_is_lost_stop_together_and_one_that_is_cut_off_from_it_leaves():
    assert asked_to_leave(0.0) == (False, False)
    assert asked_to_leave(1.0) == (True, False)  # another one has noticed it a moment before
    assert asked_to_leave(6.0) == (True, True)
    assert asked_to_leave(6.0, others_leave=False) == (False, True)
