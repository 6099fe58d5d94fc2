"""From one learning rate to another: golden values, endpoints, and what is refused."""

import math

import numpy as np
import pytest

from harness.config import LRConfig
from harness.data import Batching
from harness.plan import LRPlan, Sizes
from harness.schedules import BoundError, CyclicalSchedule, OneCycleSchedule, RampSchedule, RiseAndFallSchedule


def one_cycle_of_torch(total, max_lr, pct=0.3, div=25.0, final_div=1e4, shape="cosine", three=False):
    """What PyTorch's OneCycleLR gives at steps 0 to total - 1, by its documentation."""
    initial = max_lr / div
    final = initial / final_div
    phases = [(pct * total - 1, initial, max_lr)]
    phases += [(2 * pct * total - 2, max_lr, initial), (total - 1, initial, final)] if three else []
    phases += [] if three else [(total - 1, max_lr, final)]
    rates = []
    for step in range(total):
        begin = 0.0
        for end, start, finish in phases:
            if step <= end or end == total - 1:
                part = (step - begin) / (end - begin)
                line, wave = (
                    start + (finish - start) * part,
                    finish + (start - finish) / 2 * (1 + math.cos(math.pi * part)),
                )
                rates.append(wave if shape == "cosine" else line)
                break
            begin = end
    return rates


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("pct", [0.05, 0.25, 0.3, 0.45])
@pytest.mark.parametrize("total", [3, 10, 469, 1000, 7003])
def test_rise_and_fall_is_the_one_cycle_of_torch(total, pct, shape, three):
    schedule = RiseAndFallSchedule(
        0.1 / 25, 0.1, 0.1 / 25 / 1e4, total, pct, shape, "first_update", "three" if three else "two"
    )
    expected = one_cycle_of_torch(total, 0.1, pct, shape=shape, three=three)
    assert [schedule(step + 1) for step in range(total)] == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert schedule.values(np.arange(total + 3)).tolist() == [schedule(t) for t in range(total + 3)]


def test_it_is_so_from_yaml():
    lr = {"rise_and_fall": {"start_lr": "0.04x", "max_lr": "1x", "end_lr": "0.000004x", "cycle_length": "100%"}}
    lr["rise_and_fall"]["starts"] = "first_update"
    sizes = Sizes(Batching(num_samples=3200, shards=1, batch_size=32), num_iterations=1000)
    plan = LRPlan(LRConfig(base=0.1, schedule=lr), sizes)
    assert [plan.lr(t) for t in range(1, 1001)] == pytest.approx(one_cycle_of_torch(1000, 0.1), rel=1e-12)


def test_a_known_one_cycle():
    """Ten steps, a third up: 0.04, then the peak at step 2, then a cosine over seven."""
    rates = [RiseAndFallSchedule(0.04, 1, 4e-6, 10, 0.3, starts="first_update")(t) for t in range(1, 11)]
    falling = [4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * k / 7)) / 2 for k in range(8)]
    assert rates == pytest.approx([0.04, 0.52, *falling], rel=1e-14)


def test_by_default_it_rises_from_before_training():
    schedule = RiseAndFallSchedule(0, 4, 1, 10, 0.4, "linear")
    assert [schedule(t) for t in (0, 1, 4, 7, 10, 11)] == [0, 1, 4, 2.5, 1, 1]
    assert schedule.breakpoints(100) == (4, 10)
    assert RiseAndFallSchedule(1, 2, 1, 1)(0) == 1


def test_it_can_be_repeated():
    schedule = CyclicalSchedule(RiseAndFallSchedule, 10, start_lr=1, max_lr=3, end_lr=1, inc_fraction=0.5)
    assert [round(schedule(t), 12) for t in (0, 5, 10, 15, 2)] == [1, 3, 1, 3, round(2 - math.cos(math.pi * 0.4), 12)]


def test_a_cosine_rises_and_falls():
    for start, end in ((1, 3), (3, 1)):
        ramp = RampSchedule(start, end, 8, "cosine")
        expected = [start + (end - start) * (1 - math.cos(math.pi * t / 8)) / 2 for t in range(9)]
        assert [ramp(t) for t in range(9)] == pytest.approx(expected, rel=1e-15)
        assert (ramp(0), ramp(8), ramp(99)) == (start, end, end)
    assert RampSchedule(0, 1, 1)(0) == 0


def test_one_cycle_of_cosines_turns_where_that_of_lines_does():
    lines, waves = OneCycleSchedule(1, 3, 8, 4, 0), OneCycleSchedule(1, 3, 8, 4, 0, "cosine")
    for t in (0, 2, 4, 6, 8, 10, 12, 13):  # the ends and the middles of the ways
        assert waves(t) == pytest.approx(lines(t), abs=1e-15)
    assert waves(1) == pytest.approx(2 - math.cos(math.pi / 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RampSchedule(0, 1, 5, "sine"),
            "RampSchedule: shape must be one of linear, cosine, exponential, poly, found",
        ),
        (lambda: RampSchedule(-1, 1, 5), "RampSchedule: start_lr must be a finite number >= 0, found -1"),
        (lambda: RampSchedule(0, 1, 0), "RampSchedule: length must be an int >= 1, found 0"),
        (lambda: OneCycleSchedule(0, 1, 5, shape=1), "OneCycleSchedule: shape must be one of linear, cosine, found 1"),
        (
            lambda: RiseAndFallSchedule(0, 1, 0, 9, 0.6, phases="three"),
            "RiseAndFallSchedule: inc_fraction must be at most 0.5 in three phases, found 0.6",
        ),
        (
            lambda: RiseAndFallSchedule(0, 1, 0, 9, starts="late"),
            "RiseAndFallSchedule: starts must be one of before_training, first_update, found 'late'",
        ),
        (lambda: RiseAndFallSchedule(0, 1, 0, 9, 1), "RiseAndFallSchedule: inc_fraction must be a finite number > 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(BoundError) as caught:
        make()
    assert str(caught.value).startswith(message)
