import gc
import math
import random
import sys
import threading
import time
import weakref
from functools import partial

import pytest

from harness.schedules import (
    BoundError,
    ConstantSchedule,
    CosineAnnealingSchedule,
    CyclicalSchedule,
    OneCycleSchedule,
    TriangularSchedule,
    exp_range,
    triangular2,
)
from harness.schedules.cyclical import CycleTable


def cycles_counted_one_by_one(schedule_class, length, length_decay, magnitude_decay, t, **kwargs):
    start, magnitude = 0, 1.0
    while start + length <= t:
        start += length
        length = math.ceil(length * length_decay)
        magnitude *= magnitude_decay
    return magnitude * schedule_class(cycle_length=length, **kwargs)(t - start)


@pytest.mark.parametrize("length", [1, 2, 3, 10, 25])
@pytest.mark.parametrize("length_decay", [0.3, 0.9, 1, 1.1, 1.5, 2, 3.7])
@pytest.mark.parametrize("magnitude_decay", [1, 0.5, 0.9])
def test_it_is_what_counting_cycles_gives(length, length_decay, magnitude_decay):
    for make in (partial(TriangularSchedule, min_lr=0.1, max_lr=1), partial(CosineAnnealingSchedule, 0.1, 1)):
        schedule = CyclicalSchedule(make, length, length_decay, magnitude_decay)
        expected = [cycles_counted_one_by_one(make, length, length_decay, magnitude_decay, t) for t in range(0, 400, 3)]
        assert [schedule(t) for t in range(0, 400, 3)] == pytest.approx(expected, rel=1e-12)


def test_the_end_of_a_cycle_is_0_of_the_next():
    schedule = CyclicalSchedule(CosineAnnealingSchedule, 2, 2, 0.5, min_lr=0, max_lr=4)
    expected = [4, 2, 2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5), 1]
    assert [schedule(t) for t in range(7)] == pytest.approx(expected)


def test_the_triangular_policy_of_smith():
    base, top, step_size = 0.001, 0.006, 20
    schedule = CyclicalSchedule(TriangularSchedule, 2 * step_size, min_lr=base, max_lr=top)
    for t in range(500):
        cycle = math.floor(1 + t / (2 * step_size))
        x = abs(t / step_size - 2 * cycle + 1)
        assert schedule(t) == pytest.approx(base + (top - base) * max(0, 1 - x), rel=1e-12)


def test_triangular2_of_smith_from_0():
    schedule = CyclicalSchedule(TriangularSchedule, 10, cycle_magnitude_decay=0.5, min_lr=0, max_lr=1)
    assert [schedule(t) for t in (0, 5, 10, 15, 20, 25, 35)] == [0, 1, 0, 0.5, 0, 0.25, 0.125]


@pytest.mark.parametrize(("first", "factor"), [(1, 2), (10, 2), (50, 1), (200, 1)])
def test_the_warm_restarts_of_loshchilov_and_hutter(first, factor):
    schedule = CyclicalSchedule(CosineAnnealingSchedule, first, factor, min_lr=0.0, max_lr=0.05)
    since, period = 0, first
    for t in range(500):
        expected = 0.5 * 0.05 * (1 + math.cos(since / period * math.pi))
        assert schedule(t) == pytest.approx(expected, abs=1e-15)
        since += 1
        if since == period:
            since, period = 0, period * factor


def test_lengths_are_rounded_up_in_floating_point():
    schedule = CyclicalSchedule(CosineAnnealingSchedule, 50, 1.1, min_lr=0, max_lr=1)
    assert schedule.breakpoints(300) == (50, 106, 168, 237)


def test_pieces():
    schedule = CyclicalSchedule(TriangularSchedule, 4, 2, min_lr=0, max_lr=1)
    assert schedule.breakpoints(29) == (2, 4, 8, 12, 20, 28)
    assert schedule.breakpoints(28) == (2, 4, 8, 12, 20)
    assert schedule.total_length is None


@pytest.mark.parametrize(
    "arguments",
    [
        (1, 1),
        (7, 1),
        (250, 1.5),
        (250, 1.1),
        (250, 1.0001),
        (250, 0.9),
        (250, 0.01),
        (1, 1.0001),
        (3, 1e300),
        (1, 5e-324),
    ],
)
def test_far_away_is_quick_and_finite(arguments):
    schedule = CyclicalSchedule(TriangularSchedule, *arguments, 0.999, min_lr=0.1, max_lr=1)
    begun = time.monotonic()
    values = [schedule(t) for t in (10**12, 10**12 + 1, 10**9, 3, 0)]
    assert time.monotonic() - begun < 5
    assert all(0 <= value <= 1 for value in values)
    assert values[-1] == 0.1


@pytest.mark.parametrize("length_decay", [1, 1.0001, 1.3, 0.9, 0.999])
def test_the_table_stays_small(length_decay):
    table = CycleTable(1000, length_decay)
    for t in range(0, 1_000_000, 997):
        table.find(t)
    assert len(table) <= math.isqrt(2 * 1_000_000) + 1


def test_the_sum_before_the_lengths_stick_by_hand():
    # 10, 9, 9, ...: ceil(9.0) = 9 and ceil(8.1) = 9
    schedule = CyclicalSchedule(CosineAnnealingSchedule, 10, 0.9, 0.5, min_lr=0, max_lr=1)
    assert [schedule(t) for t in (0, 10, 19, 28, 10 + 9 * 30)] == [1, 0.5, 0.25, 0.125, 0.5**31]


def test_any_callable_with_cycle_length_will_do():
    def make(cycle_length, top):
        return lambda t: top - t / cycle_length

    assert [CyclicalSchedule(make, 2, top=5)(t) for t in range(5)] == [5, 4.5, 5, 4.5, 5]
    assert CyclicalSchedule(OneCycleSchedule, 4, start_lr=0, max_lr=1)(6) == 1


def test_schedules_of_cycles_long_past_are_let_go():
    alive = weakref.WeakSet()

    class Line:
        def __init__(self, cycle_length):
            alive.add(self)

        def __call__(self, t):
            return float(t)

    schedule = CyclicalSchedule(Line, 1, 1.001)
    assert [schedule(t) for t in range(100_000)][-1] > 0
    gc.collect()
    assert len(alive) <= 100


def test_threads_agree():
    def find(table, out):
        rng = random.Random(0)
        out.append([table.find(rng.randrange(10 ** (3 + i // 50))) for i in range(300)])

    shared, results, alone = CycleTable(1, 1.001), [], []
    find(CycleTable(1, 1.001), alone)
    threads = [threading.Thread(target=find, args=(shared, results)) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert results == alone * 4


@pytest.mark.parametrize(
    ("arguments", "kwargs", "message"),
    [
        ((TriangularSchedule, 0), {"min_lr": 0, "max_lr": 1}, "CyclicalSchedule: cycle_length must be an int >= 1"),
        ((TriangularSchedule, 2.0), {"min_lr": 0, "max_lr": 1}, "cycle_length must be an int >= 1, found 2.0"),
        ((TriangularSchedule, 2, 0), {"min_lr": 0, "max_lr": 1}, "cycle_length_decay must be a finite number > 0"),
        ((TriangularSchedule, 2, math.inf), {"min_lr": 0, "max_lr": 1}, "cycle_length_decay must be .* found inf"),
        ((TriangularSchedule, 2, 1, 0), {"min_lr": 0, "max_lr": 1}, "cycle_magnitude_decay must be .* > 0 and <= 1"),
        ((TriangularSchedule, 2, 1, 1.1), {"min_lr": 0, "max_lr": 1}, "cycle_magnitude_decay must be .* found 1.1"),
        ((TriangularSchedule, 2), {"min_lr": 2, "max_lr": 1}, "TriangularSchedule: min_lr must be at most max_lr"),
        ((TriangularSchedule, 2), {"min_lr": 2}, "schedule_class must be one that takes cycle_length and .'min_lr'"),
        (
            (TriangularSchedule, 2),
            {"min": 0, "max_lr": 1},
            "takes cycle_length and .*unexpected keyword argument 'min'",
        ),
        ((ConstantSchedule, 2), {"lr": 2}, "takes cycle_length"),
        ((lambda cycle_length: 3, 2), {}, "3 is not a schedule"),
        ((0.1, 2), {}, "schedule_class must be a class or a callable .* found 0.1"),
    ],
)
def test_bounds(arguments, kwargs, message):
    with pytest.raises(BoundError, match=message):
        CyclicalSchedule(*arguments, **kwargs)


def test_a_decay_of_the_amplitude_is_one_above_the_lowest_rate():
    shape = {"min_lr": 0.25, "max_lr": 1.25}
    floor = CyclicalSchedule(TriangularSchedule, 4, 1.5, 0.5, floor_lr=0.25, iteration_magnitude_decay=0.75, **shape)
    amplitude = CyclicalSchedule(TriangularSchedule, 4, 1.5, 0.5, 0, 0.75, "amplitude", **shape)
    assert [amplitude(t) for t in range(60)] == [floor(t) for t in range(60)]
    assert amplitude(4) == amplitude(10) == 0.25
    assert amplitude != CyclicalSchedule(TriangularSchedule, 4, 1.5, 0.5, 0, 0.75, **shape)


def test_the_two_policies_with_names():
    """Smith 2015, section 3.2, by the formulas of the code that came with it."""
    low, high, step, gamma = 0.001, 0.006, 50, 0.9994
    halved, shrunk = triangular2(low, high, 2 * step), exp_range(low, high, 2 * step, gamma)
    for t in range(1000):
        cycle = 1 + t // (2 * step)
        height = max(0.0, 1 - abs(t / step - 2 * cycle + 1))
        assert halved(t) == pytest.approx(low + (high - low) * height / 2 ** (cycle - 1), rel=1e-12)
        assert shrunk(t) == pytest.approx(low + (high - low) * height * gamma**t, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"decay": "height", "min_lr": 0, "max_lr": 1},
            "CyclicalSchedule: decay must be one of all, amplitude, found 'height'",
        ),
        (
            {"decay": "amplitude", "floor_lr": 0.1, "min_lr": 0.1, "max_lr": 1},
            "CyclicalSchedule: floor_lr must be left out with decay: amplitude, whose floor is min_lr, found 0.1",
        ),
    ],
)
def test_bounds_of_the_decay(arguments, message):
    with pytest.raises(ValueError, match="CyclicalSchedule") as caught:
        CyclicalSchedule(TriangularSchedule, 4, **arguments)
    assert str(caught.value) == message


def test_an_amplitude_needs_a_lowest_rate():
    with pytest.raises(ValueError, match="CyclicalSchedule") as caught:
        CyclicalSchedule(OneCycleSchedule, 4, decay="amplitude", start_lr=0.1, max_lr=1)
    allowed = "all for a schedule without min_lr; set floor_lr instead"
    assert str(caught.value) == f"CyclicalSchedule: decay must be {allowed}, found 'amplitude'"
    with pytest.raises(ValueError, match=r"^exp_range: gamma must be a finite number > 0 and <= 1, found 1\.5$"):
        exp_range(0, 1, 4, 1.5)
