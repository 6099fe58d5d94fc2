"""Input that cannot keep up is said once, with figures; and input that can is not mentioned."""

from __future__ import annotations

import pytest

from harness.train.input import InputTime, InputWatch


class Clock:
    """A clock, a stream and a learner: updates of `made_s` for input and `computed_s` on the device."""

    def __init__(self, made_s, computed_s, is_synchronous):
        self.made_s, self.computed_s, self.is_synchronous = made_s, computed_s, is_synchronous
        self.now_s = self.device_s = self.input_s = self.waited_s = 0.0

    def __call__(self):
        return self.now_s

    def check_pending(self):
        if not self.is_synchronous:
            self.now_s = max(self.now_s, self.device_s)

    def update(self):
        ready_s = self.input_s + self.made_s
        self.input_s = max(ready_s, self.now_s)  # one batch is made while another one is used
        waited_s = max(0.0, ready_s - self.now_s)
        self.waited_s += waited_s
        self.now_s += waited_s
        pending_s, self.device_s = self.device_s, max(self.device_s, self.now_s) + self.computed_s
        self.now_s = self.device_s if self.is_synchronous else max(self.now_s, pending_s)


def said_of(made_s, computed_s, is_synchronous, updates=400):
    clock, said = Clock(made_s, computed_s, is_synchronous), []
    watch = InputWatch(clock, clock, lambda t, found: said.append((t, found)), clock)
    for t in range(1, updates + 1):
        with watch.update(t):
            clock.update()
        clock.now_s += 0.001  # logging and the like, which does not count
    return said


@pytest.mark.parametrize("is_synchronous", [True, False])
def test_input_that_cannot_keep_up_is_said_once(is_synchronous):
    ((t, found),) = said_of(0.061, 0.023, is_synchronous)
    assert found.update_s == pytest.approx(0.061, rel=0.05)
    assert found.waited_s == pytest.approx(0.038, rel=0.08)
    assert t < 200
    assert found.workers_needed(2) == 6


@pytest.mark.parametrize("is_synchronous", [True, False])
@pytest.mark.parametrize(("made_s", "computed_s"), [(0.02, 0.06), (0.059, 0.06), (0.0, 0.01), (0.062, 0.06)])
def test_input_that_keeps_up_is_not_mentioned(made_s, computed_s, is_synchronous):
    assert said_of(made_s, computed_s, is_synchronous) == []


def test_a_few_slow_updates_at_the_beginning_do_not_count():
    assert said_of(0.5, 0.1, True, updates=9) == []


@pytest.mark.parametrize(
    ("waited_s", "update_s", "workers", "needed"),
    [
        (0.038, 0.061, 2, 6),
        (0.030, 0.060, 1, 2),
        (0.030, 0.040, 0, 3),
        (0.010, 0.110, 0, 1),
    ],
)
def test_how_many_workers_would_do(waited_s, update_s, workers, needed):
    assert InputTime(waited_s, update_s).workers_needed(workers) == needed
