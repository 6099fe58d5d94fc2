import math

import numpy as np
import pytest

from harness.schedules import (
    BoundError,
    CosineAnnealingSchedule,
    ExponentialSchedule,
    InverseSqrtSchedule,
    PolySchedule,
    TriangularSchedule,
    WarmupStableDecaySchedule,
)

LENGTHS = [1, 2, 3, 7, 10, 469]
RANGES = [(0.0, 0.1), (0.1, 0.3), (1e-7, 0.7), (0.3, 0.3), (0.0, 0.0)]


def test_poly_of_power_2_by_hand():
    schedule = PolySchedule(base_lr=10, max_update=5, final_lr=5)
    assert [round(schedule(t), 12) for t in range(8)] == [10, 8.2, 6.8, 5.8, 5.2, 5, 5, 5]


def test_poly_of_power_1_is_a_line():
    schedule = PolySchedule(base_lr=1, max_update=4, pwr=1)
    assert [schedule(t) for t in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]


def test_cosine_by_hand():
    schedule = CosineAnnealingSchedule(min_lr=0, max_lr=2, cycle_length=6)
    root = math.sqrt(3) / 2
    expected = [2, 1 + root, 1.5, 1, 0.5, 1 - root, 0, 0]
    assert [schedule(t) for t in range(8)] == pytest.approx(expected, abs=1e-15)


def test_the_cosine_is_as_exact_as_the_library_s():
    schedule, length = CosineAnnealingSchedule(0, 1, 9973), 9973
    half_pi = np.longdouble("1.570796326794896619231321691639751442")
    exact = np.cos(half_pi * np.arange(length, dtype=np.longdouble) / length) ** 2
    found = np.array([schedule(t) for t in range(length)])
    assert np.abs(found - exact).max() < 2.3e-16


def test_cosine_is_the_square_of_the_half_angle():
    schedule = CosineAnnealingSchedule(min_lr=0.01, max_lr=0.5, cycle_length=97)
    expected = [0.01 + 0.49 * math.cos(math.pi * t / 194) ** 2 for t in range(98)]
    assert [schedule(t) for t in range(98)] == pytest.approx(expected, rel=1e-13)


def test_triangular_by_hand():
    schedule = TriangularSchedule(min_lr=1, max_lr=2, cycle_length=10, inc_fraction=0.2)
    expected = [1, 1.5, 2, 1.875, 1.75, 1.625, 1.5, 1.375, 1.25, 1.125, 1, 1]
    assert [schedule(t) for t in range(12)] == expected
    assert schedule.breakpoints(11) == (2, 10)


def test_a_triangle_of_odd_length_peaks_between_two_iterations():
    schedule = TriangularSchedule(min_lr=0, max_lr=1, cycle_length=5)
    assert [schedule(t) for t in range(6)] == pytest.approx([0, 0.4, 0.8, 0.8, 0.4, 0])
    assert schedule.breakpoints(6) == (3, 5)


@pytest.mark.parametrize("part", range(1, 100))
def test_a_peak_on_an_iteration_is_exact(part):
    schedule = TriangularSchedule(min_lr=0.1, max_lr=0.3, cycle_length=100, inc_fraction=part / 100)
    assert schedule(part) == 0.3
    assert schedule.breakpoints(100) == (part,)


def test_a_fraction_too_small_for_an_iteration_still_peaks_inside():
    schedule = TriangularSchedule(min_lr=0, max_lr=1, cycle_length=4, inc_fraction=1e-12)
    assert [schedule(t) for t in range(5)] == pytest.approx([0, 0.75, 0.5, 0.25, 0])


def test_slanted_triangle_of_howard_and_ruder():
    total, cut_fraction, ratio, peak = 200, 0.1, 32, 0.01
    schedule = TriangularSchedule(peak / ratio, peak, total, cut_fraction)
    cut = math.floor(total * cut_fraction)
    for t in range(total + 1):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_fraction - 1))
        assert schedule(t) == pytest.approx(peak * (1 + p * (ratio - 1)) / ratio, rel=1e-12)


def test_exponential_is_geometric():
    schedule = ExponentialSchedule(start_lr=1e-6, finish_lr=1, length=6)
    assert [schedule(t) for t in range(9)] == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 1, 1], rel=1e-12)


def test_inverse_sqrt_by_hand():
    schedule = InverseSqrtSchedule(base_lr=0.6, timescale=4)
    assert [schedule(t) for t in (0, 3, 4, 9, 16, 36, 400)] == pytest.approx([0.6, 0.6, 0.6, 0.4, 0.3, 0.2, 0.06])
    assert (schedule.total_length, schedule.breakpoints(100), schedule.breakpoints(4)) == (None, (4,), ())


def test_inverse_sqrt_is_the_decay_of_vaswani():
    warmup, width = 4000, 512
    schedule = InverseSqrtSchedule(base_lr=(width * warmup) ** -0.5, timescale=warmup)
    for t in (4000, 4001, 10_000, 100_000):
        assert schedule(t) == pytest.approx(width**-0.5 * min(t**-0.5, t * warmup**-1.5), rel=1e-12)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", [0, 1, 2, 2, 2, 1.75, 1.5, 1.25, 1, 1]),
        ("cosine", [0, 1, 2, 2, 2, 1.5 + math.sqrt(2) / 4, 1.5, 1.5 - math.sqrt(2) / 4, 1, 1]),
        ("one_minus_sqrt", [0, 1, 2, 2, 2, 1.5, 2 - math.sqrt(0.5), 2 - math.sqrt(0.75), 1, 1]),
    ],
)
def test_warmup_stable_decay_by_hand(decay, expected):
    schedule = WarmupStableDecaySchedule(2, 2, 2, 4, final_lr=1, decay=decay)
    assert [schedule(t) for t in range(10)] == pytest.approx(expected, abs=1e-15)
    assert schedule.breakpoints(9) == (2, 4, 8)
    assert schedule.total_length == 8


def test_warmup_and_stable_phase_may_be_empty():
    schedule = WarmupStableDecaySchedule(1, 0, 0, 2)
    assert [schedule(t) for t in range(4)] == [1, 0.5, 0, 0]
    assert schedule.breakpoints(10) == (2,)


def every_shape(low, high, length):
    yield PolySchedule(high, length, 2, low), high
    yield PolySchedule(low, length, 0.5, high), low
    yield CosineAnnealingSchedule(low, high, length), high
    for fraction in (0.01, 0.3, 0.5, 0.99):
        yield TriangularSchedule(low, high, length, fraction), low
    for decay in ("linear", "cosine", "one_minus_sqrt"):
        yield WarmupStableDecaySchedule(high, 0, 0, length, low, decay), high
    if low > 0:
        yield ExponentialSchedule(low, high, length), low
        yield ExponentialSchedule(high, low, length), high


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_ends_are_exact_and_no_value_leaves_the_range(low, high, length):
    for schedule, first in every_shape(low, high, length):
        last = low if first == high else high
        last = low if isinstance(schedule, TriangularSchedule) else last
        assert schedule(0) == first, schedule
        assert [schedule(t) for t in (length, length + 1, 10**12)] == [last] * 3, schedule
        slack = 1e-14 * high if isinstance(schedule, ExponentialSchedule) else 0.0  # a power may round over its end
        assert all(low - slack <= schedule(t) <= high + slack for t in range(length)), schedule
        assert schedule.total_length == length
        assert schedule.breakpoints(length + 1)[-1] == length
        assert length not in schedule.breakpoints(length)


def cosine(**change):
    return CosineAnnealingSchedule(**{"min_lr": 0.1, "max_lr": 1, "cycle_length": 4} | change)


def triangular(**change):
    return TriangularSchedule(**{"min_lr": 0.1, "max_lr": 1, "cycle_length": 4} | change)


def exponential(**change):
    return ExponentialSchedule(**{"start_lr": 0.1, "finish_lr": 1, "length": 4} | change)


def poly(**change):
    return PolySchedule(**{"base_lr": 0.1, "max_update": 4} | change)


def stable(**change):
    return WarmupStableDecaySchedule(
        **{"peak_lr": 1, "warmup_length": 1, "stable_length": 1, "decay_length": 1} | change
    )


RATE = "must be a finite number >= 0, found"
COUNT = "must be an int >= 1, found"


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (poly, {"base_lr": -1}, f"PolySchedule: base_lr {RATE} -1"),
        (poly, {"final_lr": math.nan}, f"final_lr {RATE} nan"),
        (poly, {"max_update": 0}, f"max_update {COUNT} 0"),
        (poly, {"max_update": 4.5}, f"max_update {COUNT} 4.5"),
        (poly, {"pwr": 0}, "pwr must be a finite number > 0, found 0"),
        (cosine, {"min_lr": -1}, f"CosineAnnealingSchedule: min_lr {RATE} -1"),
        (cosine, {"max_lr": True}, f"max_lr {RATE} True"),
        (cosine, {"min_lr": 2}, "min_lr must be at most max_lr, which is 1.0, found 2.0"),
        (cosine, {"cycle_length": 0}, f"cycle_length {COUNT} 0"),
        (cosine, {"cycle_length": True}, f"cycle_length {COUNT} True"),
        (triangular, {"min_lr": 2}, "TriangularSchedule: min_lr must be at most max_lr"),
        (triangular, {"max_lr": math.inf}, f"max_lr {RATE} inf"),
        (triangular, {"cycle_length": 4.0}, f"cycle_length {COUNT} 4.0"),
        (triangular, {"inc_fraction": 0}, "inc_fraction must be a finite number > 0 and < 1, found 0"),
        (triangular, {"inc_fraction": 1}, "inc_fraction must be a finite number > 0 and < 1, found 1"),
        (exponential, {"start_lr": 0}, "ExponentialSchedule: start_lr must be a finite number > 0, found 0"),
        (exponential, {"finish_lr": 0}, "finish_lr must be a finite number > 0, found 0"),
        (exponential, {"length": 0}, f"length {COUNT} 0"),
        (stable, {"peak_lr": -1}, f"WarmupStableDecaySchedule: peak_lr {RATE} -1"),
        (stable, {"final_lr": 2}, "final_lr must be at most peak_lr, which is 1.0, found 2.0"),
        (stable, {"warmup_length": -1}, "warmup_length must be an int >= 0, found -1"),
        (stable, {"stable_length": 1.0}, "stable_length must be an int >= 0, found 1.0"),
        (stable, {"decay_length": 0}, f"decay_length {COUNT} 0"),
        (stable, {"decay": "sqrt"}, "decay must be one of linear, cosine, one_minus_sqrt, found 'sqrt'"),
        (stable, {"decay": ["linear"]}, "decay must be one of"),
    ],
)
def test_bounds(make, change, message):
    with pytest.raises(BoundError, match=message):
        make(**change)


@pytest.mark.parametrize("arguments", [(-1, 5), (1, 0), (1, 2.0)])
def test_bounds_of_inverse_sqrt(arguments):
    with pytest.raises(BoundError, match=r"InverseSqrtSchedule: (base_lr|timescale) must be"):
        InverseSqrtSchedule(*arguments)
