"""Threads that take calls in order, end when nobody needs them, and keep no process from ending."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import pytest

from harness.data import threads as module
from harness.data.threads import RunningClock, Threads
from tests.conftest import ROOT


def test_calls_are_taken_in_order_and_give_results_and_errors():
    begun, gate = [], threading.Event()

    def work(number):
        gate.wait(10)
        begun.append(number)
        if number == 3:
            raise KeyError(number)
        return number * number

    threads = Threads(1, "one")
    futures = [threads.submit(work, number) for number in range(6)]
    gate.set()
    assert [one.result(5) for one in futures if one is not futures[3]] == [0, 1, 4, 16, 25]
    with pytest.raises(KeyError, match="3"):
        futures[3].result(5)
    assert begun == list(range(6))
    threads.close()
    with pytest.raises(RuntimeError, match="one: closed"):
        threads.submit(work, 1)
    threads.close()


def test_several_work_side_by_side():
    threads, together = Threads(3, "three"), threading.Barrier(3)
    for one in [threads.submit(together.wait, 10) for _ in range(6)]:
        one.result(10)
    threads.close()


def test_closing_leaves_out_what_has_not_begun():
    threads, begun, gate, done = Threads(1, "one"), threading.Event(), threading.Event(), []
    first = threads.submit(lambda: begun.set() or gate.wait(10))
    others = [threads.submit(done.append, number) for number in range(5)]
    assert begun.wait(10)
    threading.Timer(0.2, gate.set).start()
    threads.close()
    assert first.result(0)
    assert done == []
    assert all(one.cancelled() for one in others)


def test_they_end_with_the_object():
    threads = Threads(2, "forgotten")
    threads.submit(int).result(5)
    del threads
    gc.collect()
    limit = time.monotonic() + 5
    while any(thread.name.startswith("forgotten") for thread in threading.enumerate()):
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_one_that_hangs_does_not_keep_a_process():
    program = """
import time
from harness.data.threads import Threads
threads = Threads(1, "hangs")
threads.submit(time.sleep, 1000)
time.sleep(0.2)
"""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30, check=True)
    assert time.monotonic() - begun < 20


def test_time_in_which_the_process_was_stopped_does_not_count(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    clock = RunningClock()
    now[0] += 50  # nobody waits, so nobody looks
    begun = clock.begin()
    for _ in range(8):
        now[0] += module.TICK_S
        clock.look()
    assert clock.look() - begun == pytest.approx(8 * module.TICK_S)
    now[0] += 3600
    assert clock.look() - begun == pytest.approx(9 * module.TICK_S)
    now[0] += 1.0  # a machine that is busy
    assert clock.look() - begun == pytest.approx(9 * module.TICK_S + 1.0)
