"""Warm-ups that overlap, cuts and splices, worked by hand; `test_contract` asks them what every schedule promises."""

from __future__ import annotations

import numpy as np
import pytest

from harness.schedules import (
    BoundError,
    ConstantSchedule,
    FactorSchedule,
    LinearWarmUp,
    MultiFactorSchedule,
    OverlapWarmUp,
    PolySchedule,
    ScaledAfter,
    Spliced,
    WithoutBreakpoints,
)
from harness.schedules.ends import end_of

DROPS = MultiFactorSchedule(1, [3, 20], 0.5)


def table(schedule, *iterations):
    values = [schedule(t) for t in iterations]
    assert schedule.values(np.array(iterations)).tolist() == values
    return values


def test_a_line_that_overlaps_ends_where_the_schedule_then_is():
    schedule = OverlapWarmUp(PolySchedule(1, 10, 1), start_lr=0, length=4)  # 1, 0.9, 0.8, ...
    assert table(schedule, 0, 1, 2, 3, 4, 5, 10, 11) == pytest.approx([0, 0.15, 0.3, 0.45, 0.6, 0.5, 0, 0], rel=1e-15)
    assert schedule(4) == PolySchedule(1, 10, 1)(4)
    assert table(OverlapWarmUp(ConstantSchedule(0.3), 0.1, length=1), 0, 1, 2) == [0.1, 0.3, 0.3]
    falling = OverlapWarmUp(ConstantSchedule(0.25), 0.75, length=4)
    assert table(falling, 0, 1, 2, 3, 4) == [0.75, 0.625, 0.5, 0.375, 0.25]


def test_breakpoints_under_a_line_that_overlaps_are_kept():
    assert OverlapWarmUp(DROPS, 0, length=10).breakpoints(100) == (4, 10, 21)
    assert LinearWarmUp(DROPS, 0, length=10).breakpoints(100) == (10, 14, 31)


def test_a_cut_begins_with_the_iteration_after_its_last():
    schedule = ScaledAfter(ScaledAfter(DROPS, 0.5, last=2), 0.25, last=5)
    assert table(schedule, 0, 2, 3, 4, 5, 6, 21) == [1, 1, 0.5, 0.25, 0.25, 0.0625, 0.03125]
    assert schedule.breakpoints(100) == (3, 4, 6, 21)
    assert table(ScaledAfter(DROPS, 0.5, last=0), 0, 1) == [1, 0.5]


def test_a_cut_has_a_floor_which_raises_nothing():
    schedule = ScaledAfter(lambda t: 8.0 - t, 0.5, last=2, floor=2.25)
    assert table(schedule, 2, 3, 4, 5, 6, 8) == [6, 2.5, 2.25, 2.25, 2, 0]
    assert table(ScaledAfter(schedule, 0.5, last=3, floor=2), 3, 4, 5, 6, 7) == [2.5, 2, 2, 2, 1]


def test_thousands_of_cuts_are_possible():
    schedule = ConstantSchedule(1.0)
    for last in range(5000):
        schedule = ScaledAfter(schedule, 0.999, last)
    assert schedule(5000) == pytest.approx(0.999**5000)
    assert schedule.values(np.array([1, 5000])).tolist() == [schedule(1), schedule(5000)]
    assert schedule.breakpoints(6000) == tuple(range(1, 5001))
    assert schedule.total_length == 5000


def test_both_parts_of_a_splice_count_from_0():
    schedule = Spliced(DROPS, PolySchedule(1, 10, 1), last=4)
    assert table(schedule, 0, 3, 4, 5, 10) == pytest.approx([1, 1, 0.5, 0.5, 0])
    assert schedule.breakpoints(100) == (4, 5, 10)
    assert Spliced(PolySchedule(1, 10, 1), DROPS, last=20).breakpoints(100) == (10, 21)
    assert table(Spliced(DROPS, PolySchedule(1, 10, 1), last=0), 0, 1) == [1, 0.9]


def test_a_float32_is_cut_in_double_precision():
    given = ScaledAfter(lambda t: np.float32(0.1), 0.1, last=0)
    assert given(1) == 0.1 * float(np.float32(0.1))
    assert type(given(1)) is float


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: OverlapWarmUp(DROPS, -1, 3), "start_lr"),
        (lambda: OverlapWarmUp(DROPS, float("inf"), 3), "start_lr"),
        (lambda: OverlapWarmUp(DROPS, 0, 0), "length"),
        (lambda: OverlapWarmUp("x", 0, 1), "schedule"),
        (lambda: ScaledAfter(DROPS, 0, 3), "factor"),
        (lambda: ScaledAfter(DROPS, 0.5, -1), "last"),
        (lambda: ScaledAfter(DROPS, 0.5, 3, -1), "floor"),
        (lambda: Spliced(DROPS, None, 3), "after"),
        (lambda: Spliced(3, DROPS, 3), "before"),
        (lambda: Spliced(DROPS, DROPS, 1.5), "last"),
        (lambda: WithoutBreakpoints(7), "schedule"),
    ],
)
def test_arguments_out_of_bounds(make, argument):
    with pytest.raises(BoundError) as caught:
        make()
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("schedule", "end"),
    [
        (OverlapWarmUp(PolySchedule(1, 10, 1), 0, 4), 10),
        (OverlapWarmUp(PolySchedule(1, 10, 1), 0, 14), 14),
        (OverlapWarmUp(FactorSchedule(1, 5, 0.5), 0, 4), 4),
        (ScaledAfter(PolySchedule(1, 10, 1), 0.5, 3), 10),
        (ScaledAfter(FactorSchedule(1, 5, 0.5), 0.5, 3), 4),
        (Spliced(PolySchedule(1, 99, 1), PolySchedule(1, 10, 1), 3), 10),
        (Spliced(PolySchedule(1, 10, 1), FactorSchedule(1, 5, 0.5), 30), 31),
        (WithoutBreakpoints(PolySchedule(1, 10, 1)), 10),
    ],
)
def test_a_composition_ends_with_its_last_part(schedule, end):
    assert end_of(schedule) == end
