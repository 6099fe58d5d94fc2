"""Who shows a pulse at the launcher's server, and who is ended for showing none."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from harness import processes
from harness.comm.elastic import pulse
from harness.comm.elastic.lifeline import Lifeline, LifelineServer
from harness.comm.elastic.notices import Notice
from harness.comm.elastic.pulse import Pulses
from harness.comm.routes import listen_at


class Store:
    """The launcher's server, in this process."""

    def __init__(self):
        self.values = {}
        self.unanswered_s = 0.0

    def put(self, key, value):
        self.values[key] = value

    def get(self, key, most):
        return self.values.get(key, b"")[:most]


class Clock:
    """Time passes when somebody says so."""

    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        monkeypatch.setattr(pulse.time, "monotonic", lambda: self.now_s)


@pytest.fixture
def seen(monkeypatch):
    """Who is silent after so many seconds in which these have gone on, looked at as often as a meeting does."""
    clock, store = Clock(monkeypatch), Store()
    pulses = Pulses(store, "own")
    beats = {}

    def after(seconds, *going):
        found = set()
        for _ in range(int(seconds / 0.25)):
            clock.now_s += 0.25
            for uid in going:
                beats[uid] = beats.get(uid, 0) + 1
                store.put(f"pulse-{uid}", str(beats[uid]).encode())
            found = pulses.silent(["a", "b"])
        return found

    after.pulses, after.store, after.clock = pulses, store, clock
    return after


def test_one_that_stops_is_silent_after_five_seconds(seen):
    assert seen(3, "own", "a", "b") == set()
    assert seen(4, "own", "a") == set()
    assert seen(2, "own", "a") == {"b"}
    assert seen(1, "own", "a", "b") == set()


def test_a_suspect_has_two_seconds(seen):
    assert seen(2, "own", "a", "b") == set()
    seen.pulses.suspects = frozenset("b")
    assert seen(3, "own", "a") == {"b"}
    assert seen(1, "own", "a", "b") == set()


def test_one_look_after_a_long_while_at_a_server_that_was_just_cleared_tells_nothing(seen):
    assert seen(3, "own", "a", "b") == set()
    for _ in range(2):
        seen.clock.now_s += 7  # nobody looks
        seen.store.values.clear()
        assert seen(0.5, "own", "a") == set()
    assert seen(1, "own", "a", "b") == set()


def test_nobody_is_silent_while_the_server_shows_not_even_this_process(seen):
    assert seen(3, "own", "a", "b") == set()
    assert seen(30) == set()
    assert seen(1, "own", "a", "b") == set()


def test_a_server_that_was_cleared_and_a_pause_in_looking_say_nothing_of_anybody(seen):
    assert seen(3, "own", "a", "b") == set()
    seen.store.values.clear()
    assert seen(1, "own") == set()
    seen.clock.now_s += 60
    assert seen(1, "own") == set()
    assert seen(6, "own") == {"a", "b"}


def test_one_that_is_cut_off_takes_nobody_for_silent(seen):
    assert seen(3, "own", "a", "b") == set()
    seen.pulses.suspects = frozenset("ab")
    assert seen(1.75, "own") == set()
    seen.store.get = lambda key, most: None
    assert [seen(0.25) for _ in range(100)] == [set()] * 100
    del seen.store.get
    assert seen(3, "own", "a") == {"b"}


@pytest.fixture
def frozen():
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    process.send_signal(signal.SIGSTOP)
    yield process
    process.kill()
    process.wait()


def test_a_frozen_process_on_this_machine_is_ended_and_one_elsewhere_is_not(frozen, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pulse.os, "getpid", lambda: frozen.pid)
        pid, began, kernel = pulse.this_process().split(" ")
    for other in (f"{pid} {began} {kernel}1", f"{pid} {int(began) + 1} {kernel}", f"{pid} {kernel}"):
        pulse.end_silent(other)
        assert frozen.poll() is None
    pulse.end_silent(f"{pid} {began} {kernel}")
    assert frozen.wait(10) == -signal.SIGKILL


def test_one_that_is_stopped_is_ended_and_one_that_runs_is_not(frozen, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pulse.os, "getpid", lambda: frozen.pid)
        told = pulse.this_process()
    frozen.send_signal(signal.SIGCONT)
    while processes.state(frozen.pid) == "T":
        time.sleep(0.01)
    pulse.end_stopped(told)
    assert frozen.poll() is None
    frozen.send_signal(signal.SIGSTOP)
    while processes.state(frozen.pid) != "T":
        time.sleep(0.01)
    pulse.end_stopped(told)
    assert frozen.wait(10) == -signal.SIGKILL


def test_one_of_the_world_that_stays_stopped_when_the_job_is_over_is_ended(frozen, monkeypatch):
    monkeypatch.setattr(pulse, "SILENT_S", 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(pulse.os, "getpid", lambda: frozen.pid)
        strays = pulse.Strays(pulse.Pulses(Store(), "own"))
        strays.enter([Notice("other", "h", process=pulse.this_process()), Notice("own", "h", process="elsewhere")])
    frozen.send_signal(signal.SIGSTOP)
    while processes.state(frozen.pid) != "T":
        time.sleep(0.01)
    resume = threading.Timer(0.2, frozen.send_signal, [signal.SIGCONT])
    resume.start()
    strays.end_stopped_members()
    resume.join()
    assert frozen.poll() is None  # it was only slow
    frozen.send_signal(signal.SIGSTOP)
    while processes.state(frozen.pid) != "T":
        time.sleep(0.01)
    strays.end_stopped_members()
    assert frozen.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("text", ["", "1", "x y z", "-1 1 1", "1" * 300])
def test_what_anybody_may_have_written_ends_nobody(monkeypatch, text):
    killed = []
    monkeypatch.setattr(pulse.os, "kill", lambda *given: killed.append(given))
    pulse.end_silent(text)
    pulse.end_stopped(text)
    assert killed == []


def test_a_rank_that_waits_for_the_others_of_its_world_gives_up_when_one_is_silent():
    listeners = listen_at(["127.0.0.1"])
    ports = {address: one.getsockname()[1] for address, one in listeners.items()}
    server = LifelineServer(list(listeners.values()), ["a", "b"])
    begun_s = time.monotonic()
    lifeline = Lifeline(ports, "a")
    answers = iter([True, True, False])
    assert not lifeline.wait_for_all(lambda: next(answers))
    assert time.monotonic() - begun_s < 5
    lifeline.close()
    server.close()
