"""The guard's thread: what it hears, what it writes and answers, and that nothing it hears ends it."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from harness.causes import Cause, joined, outranks
from harness.comm import SingleWorld, read_launch
from harness.config import GuardConfig
from harness.errors import ConfigError, DataError, HarnessError, LostRankError, StoppedOnRequestError
from harness.folder import AttemptStart
from harness.folder.outcome import OutcomeFiles, read_outcome
from harness.guard import Guard
from harness.guard.heartbeat import open_heartbeat
from harness.guard.link import Link
from harness.guard.messages import Message
from harness.guard.registry import NoRegistry
from harness.guard.signals import StopSignals
from harness.guard.startup import Startup
from tests.guard.worlds import Ranks, ThreadWorld


def begun():
    return AttemptStart(0, None, 2, "threads", "host", "python train.py", {})


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def watched(tmp_path):
    """A guard on rank 0 that writes into `tmp_path`, and the links of the other two ranks."""

    def open_one(world):
        if world.rank:
            return open_heartbeat(world)[0]
        files = OutcomeFiles(0, "a", environ={})
        files.use_folder(tmp_path, begun())
        guard = Guard(world, GuardConfig(), files)
        guard.open()
        return guard

    guard, *links = Ranks(3).run(open_one)
    yield guard, links
    guard.close()
    for link in links:
        link.close()


def test_a_rank_that_leaves_tells_all_why_and_is_answered_when_they_know(watched, tmp_path):
    guard, links = watched
    links[1].send(Message(left="DataError: item 7", exit_code=3, first=True, activity="iteration 4"))
    assert until(lambda: read_outcome(tmp_path) is not None)
    told = read_outcome(tmp_path)
    assert (told.exit_code, told.cause) == (3, "rank 2 left in iteration 4: DataError: item 7")
    heard = []

    def others_know():
        heard.extend(message for message in links[0].receive()[0] if message.lost is not None)
        return heard

    assert until(others_know)
    assert (heard[0].lost, heard[0].exit_code, heard[0].first) == (told.cause, 3, True)
    assert not any(message.acknowledged for message in links[1].receive()[0])
    links[0].send(Message(acknowledged=True))
    assert until(lambda: any(message.acknowledged for message in links[1].receive()[0]))
    with pytest.raises(DataError, match="rank 2 left in iteration 4: DataError: item 7"), guard.explained():
        raise LostRankError("a collective failed")


def test_a_cause_of_its_own_outranks_a_rank_that_was_killed(watched, tmp_path):
    guard, links = watched
    links[0].close()
    assert until(lambda: guard.known_departure() is not None)
    assert guard.known_departure().exit_code == 7
    assert until(lambda: read_outcome(tmp_path) is not None)  # it is known a moment before it is written
    assert "rank 1 was killed" in read_outcome(tmp_path).cause
    links[1].send(Message(left="ConfigError: x", exit_code=2, first=True))
    assert until(lambda: guard.known_departure().exit_code == 2)
    assert until(lambda: read_outcome(tmp_path).exit_code == 2)


def test_nothing_that_is_heard_ends_the_thread(watched):
    guard, links = watched
    for line in (
        b'{"lost": 5, "first": true}',
        b'{"left": {}, "exit_code": "x"}',
        b"[" * 10_000,
        b'{"end": 1}',
        b"\xff",
    ):
        links[0].socket.sendall(line + b"\n")
    links[0].send(Message(activity="here", num_collectives=-(10**300)))
    time.sleep(0.6)
    assert guard.known_departure() is None
    assert any(thread.name == "guard" for thread in threading.enumerate())


@pytest.mark.parametrize("watching", ["startup", "guard"])
def test_who_stops_watching_is_not_waited_for(watching, monkeypatch):
    """A quarter of a second for each of them, in every job."""
    monkeypatch.setattr(f"harness.guard.{'monitor' if watching == 'guard' else watching}.PERIOD_S", 600.0)
    files, signals = OutcomeFiles(0, "a", environ={}), StopSignals(())
    if watching == "guard":
        one = Guard(SingleWorld(), GuardConfig(), files, signals=signals)
    else:
        one = Startup(read_launch({}), files, NoRegistry(), signals)
    one.open()
    closing = threading.Thread(target=one.close, daemon=True)
    closing.start()
    closing.join(timeout=60)
    assert not closing.is_alive()
    signals.close()


def test_a_fault_of_the_guard_itself_is_told_and_survived(watched, capfd, monkeypatch):
    guard, links = watched

    def broken(link, message):
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(Link, "send", broken)
        assert until(lambda: "the guard itself failed" in capfd.readouterr().err)
    links[0].send(Message(left="x", exit_code=3, first=True))
    assert until(lambda: guard.known_departure() is not None)


DATA, KILLED, BUG, STOPPED = (Cause("text", code) for code in (3, 7, 1, 75))
ECHO = Cause("another rank left", first=False)


@pytest.mark.parametrize(
    ("order", "counts"),
    [
        ([KILLED, DATA], DATA),
        ([DATA, KILLED], DATA),
        ([BUG, KILLED], BUG),
        ([KILLED, BUG], KILLED),
        ([STOPPED, KILLED], KILLED),
        ([STOPPED, BUG], BUG),
        ([ECHO, STOPPED], STOPPED),
        ([DATA, ECHO], DATA),
        ([Cause("first", 3), Cause("second", 2)], Cause("first", 3)),
    ],
)
def test_which_cause_counts(order, counts):
    known = None
    for cause in order:
        if outranks(cause, known):
            known = cause
    assert known == counts


@pytest.mark.parametrize(
    ("own", "met", "code"), [(None, KILLED, 7), (DATA, KILLED, 3), (STOPPED, KILLED, 7), (BUG, DATA, 3)]
)
def test_what_all_ranks_end_with_counts_more_than_a_rank_that_is_lost_at_the_end(own, met, code):
    found = joined(own, met)
    assert (found.exit_code, found.text.endswith(met.text)) == (code, True)


def test_a_rank_that_freezes_where_all_end_is_named_and_keeps_nobody(start, tmp_path):
    settings = ("train.epochs=1", "guard.stall_after_s=2", f"output={tmp_path}")
    words = [word for setting in settings for word in ("--set", setting)]
    done = start("tests/programs/frozen_end.py", "0", *words, np=2, launcher="mpirun", exit_code=7, fresh=True)
    told = read_outcome(tmp_path / "digits")
    assert (told.exit_code, "2 s without progress in the end: rank 0 (pid" in told.cause) == (7, True)
    assert "done after 22 iterations" in done.stdout + done.stderr


def test_a_cause_is_the_error_that_it_began_as():
    assert isinstance(Cause("x", 2).error(), ConfigError)
    assert isinstance(Cause("x", 75).error(), StoppedOnRequestError)
    assert type(Cause("x", 1).error()) is HarnessError
    assert [Cause("x", code).may_end_otherwise for code in (1, 2, 3, 7, 8, 75)] == [False] * 3 + [True, False, True]


def test_every_rank_tells_which_ranks_were_asked_to_stop_and_how(tmp_path):
    def stopped(world):
        signals = StopSignals(())
        signals.received = [None, "SIGTERM", "SIGINT"][world.rank]
        guard = Guard(world, GuardConfig(), OutcomeFiles(world.rank, "a", environ={}), signals=signals)
        error = guard.stopped("saved after iteration 7")
        signals.close()
        return guard.stop_requested, error.everywhere, str(error)

    told = "stopped on request (SIGTERM to rank 1; SIGINT to rank 2): saved after iteration 7"
    assert Ranks(3).run(stopped) == [(False, True, told), (True, True, told), (True, True, told)]


@pytest.fixture
def elastic(monkeypatch):
    """A guard on rank 0 of three that may change, which may be stalled; the others' links, and what became of it."""
    for module in ("monitor", "peers"):
        monkeypatch.setattr(f"harness.guard.{module}.SILENT_AFTER_S", 0.6)
    seen = SimpleNamespace(suspects=[], cuts=0, ended=[])

    def end(cause, *, last_message, **_):
        seen.ended.append((cause.text, last_message))

    def cut(world):
        seen.cuts += 1

    monkeypatch.setattr("harness.guard.monitor.end_process", end)
    monkeypatch.setattr(ThreadWorld, "cut", cut)

    def open_one(world):
        world.membership = SimpleNamespace(suspect=lambda ranks: seen.suspects.append(sorted(ranks)))
        world.num_collectives = 7
        if world.rank:
            return open_heartbeat(world)[0]
        guard = Guard(world, GuardConfig(stall_after_s=0.5), OutcomeFiles(0, "a", environ={}))
        guard.open()
        return guard

    guard, *links = Ranks(3).run(open_one)
    yield guard, links, seen
    guard.close()
    for link in links:
        link.close()


def report(links, is_enough, **counts):
    """Ranks report so many collectives each, until something is so."""

    def so():
        for name, number in counts.items():
            links[int(name[-1]) - 1].send(Message(activity="iteration 5", num_collectives=number))
        return is_enough()

    assert until(so)


def heard(link, is_enough=bool):
    """What a rank is told of losses and ends, as soon as that is enough."""
    found = []

    def so():
        found.extend(message for message in link.receive()[0] if message.lost or message.end)
        return is_enough(found)

    assert until(so)
    return found


def test_workers_that_come_and_go_go_on_without_one_that_has_just_frozen(elastic):
    guard, links, seen = elastic
    guard.enter("iteration 5", "update")
    report(links, lambda: guard.known_departure() is not None, rank2=7)
    cause = guard.known_departure()
    assert cause.text.startswith("stalled, 0.5 s without progress in iteration 5: rank 1 has been silent for")
    assert cause.spares_others
    assert seen.suspects == [[1]]
    assert until(lambda: seen.cuts)
    assert [bool(message.lost) for message in heard(links[1])] == [True]
    assert seen.ended == []


def test_workers_that_come_and_go_go_on_without_one_that_hangs_and_is_told_to_end(elastic):
    guard, links, seen = elastic
    guard.enter("iteration 5", "update")
    report(links, lambda: guard.known_departure() is not None, rank1=7, rank2=6)
    assert guard.known_departure().text.endswith(
        "rank 2 has not reached the collective 'start'; it is at None, in iteration 5"
    )
    assert [(bool(message.lost), bool(message.end)) for message in heard(links[0])] == [(True, False)]
    heard(links[1], lambda found: any(message.end for message in found))
    assert seen.ended == []


def test_workers_that_come_and_go_end_if_all_wait_and_nobody_is_to_blame(elastic):
    guard, links, seen = elastic
    guard.enter("iteration 5", "update")
    begun_s = time.monotonic()
    report(links, lambda: seen.ended, rank1=7, rank2=7)
    assert time.monotonic() - begun_s > 1.1, "it did not wait for one to be known as silent"
    text, last = seen.ended[0]
    assert ("ranks 0, 1, 2 all wait; rank 0 is at " in text, last.end) == (True, text)


def test_workers_that_come_and_go_are_left_alone_if_it_was_only_slow(elastic):
    guard, links, seen = elastic
    guard.enter("iteration 5", "update")
    begun_s = time.monotonic()
    report(links, lambda: time.monotonic() - begun_s > 0.8, rank1=7, rank2=7)
    guard.enter("iteration 6", "update")
    report(links, lambda: time.monotonic() - begun_s > 1.25, rank1=7, rank2=6)
    assert (guard.known_departure(), seen.ended) == (None, [])


def test_a_rank_that_is_stalled_does_not_wait_for_the_word_of_one_that_is_silent(monkeypatch):
    for module in ("monitor", "peers"):
        monkeypatch.setattr(f"harness.guard.{module}.SILENT_AFTER_S", 1.5)
    suspects = []

    def open_one(world):
        world.membership = SimpleNamespace(suspect=lambda ranks: suspects.append(sorted(ranks)))
        if world.rank == 0:
            return open_heartbeat(world)[1]
        guard = Guard(world, GuardConfig(stall_after_s=1.6), OutcomeFiles(1, "a", environ={}))
        guard.open()
        return guard

    link, guard = Ranks(2).run(open_one)
    guard.enter("iteration 5", "update")
    begun_s = time.monotonic()
    assert until(lambda: suspects)
    assert (time.monotonic() - begun_s < 2.9, suspects[0]) == (True, [0])
    assert "rank 0 has been silent for" in guard.known_departure().text
    guard.close()
    link.close()
