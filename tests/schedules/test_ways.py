"""Ways up and down: ramps, warm-ups and cool-downs in every shape."""

import numpy as np
import pytest

from harness.schedules import (
    BoundError,
    ConstantSchedule,
    CoolDown,
    LinearCoolDown,
    LinearWarmUp,
    MultiFactorSchedule,
    OverlapWarmUp,
    PolySchedule,
    RampSchedule,
    SpecError,
    WarmUp,
    parse_spec,
)
from harness.schedules.ends import end_of
from harness.schedules.spec import Frame

HALF = 2**-0.5
UP = {
    "linear": [1, 4.75, 8.5, 12.25, 16],
    "cosine": [1, 1 + 15 * (1 - HALF) / 2, 8.5, 1 + 15 * (1 + HALF) / 2, 16],
    "exponential": [1, 2, 4, 8, 16],
    "poly": [1, 1 + 15 / 16, 1 + 15 / 4, 1 + 15 * 9 / 16, 16],
}


@pytest.mark.parametrize("shape", UP)
def test_a_ramp_in_each_shape_up(shape):
    schedule = RampSchedule(1, 16, 4, shape)
    assert [schedule(t) for t in range(7)] == pytest.approx([*UP[shape], 16, 16], rel=1e-15)
    assert schedule(0) == 1
    assert schedule(4) == 16


@pytest.mark.parametrize("shape", UP)
def test_a_ramp_in_each_shape_down(shape):
    schedule = RampSchedule(16, 1, 4, shape)
    down = {"poly": [16, 16 - 15 / 16, 16 - 15 / 4, 16 - 15 * 9 / 16, 1]}.get(shape, UP[shape][::-1])
    assert [schedule(t) for t in range(6)] == pytest.approx([*down, 1], rel=1e-15)


@pytest.mark.parametrize("shape", UP)
def test_a_warm_up_is_a_ramp_and_then_the_schedule(shape):
    ramp, inner = RampSchedule(1, 16, 8, shape), PolySchedule(16, 20)
    warm = WarmUp(inner, 1, 8, shape)
    assert [warm(t) for t in range(9)] == [ramp(t) for t in range(9)]
    assert [warm(t) for t in range(8, 40)] == [inner(t - 8) for t in range(8, 40)]
    assert warm.breakpoints(100) == (8, 28)
    over = OverlapWarmUp(MultiFactorSchedule(16, [20], 0.5), 1, 8, shape)
    assert [over(t) for t in range(9)] == [ramp(t) for t in range(9)]
    assert over.breakpoints(100) == (8, 21)


def test_a_power_of_three_and_of_a_half():
    assert [RampSchedule(0, 64, 4, "poly", 3)(t) for t in range(5)] == [0, 1, 8, 27, 64]
    assert [RampSchedule(0, 4, 4, "poly", 0.5)(t) for t in range(5)] == [0, 2, pytest.approx(8**0.5), 12**0.5, 4]


def test_a_constant_warm_up_stays_for_all_of_its_iterations():
    prefix = WarmUp(PolySchedule(8, 4, 1), 0.5, 3, "constant")
    assert [prefix(t) for t in range(9)] == [0.5, 0.5, 0.5, 0.5, 6, 4, 2, 0, 0]
    assert prefix.breakpoints(20) == (4, 7)
    assert WarmUp(ConstantSchedule(1), 0.5, 3, "constant").total_length == 4
    overlap = OverlapWarmUp(PolySchedule(8, 8, 1), 0.5, 3, "constant")
    assert [overlap(t) for t in range(9)] == [0.5, 0.5, 0.5, 0.5, 4, 3, 2, 1, 0]


def test_linear_is_what_it_always_was():
    inner = PolySchedule(1, 20)
    general, special = WarmUp(inner, 0.25, 7), LinearWarmUp(inner, 0.25, 7)
    assert repr(special) == f"LinearWarmUp(schedule={inner!r}, start_lr=0.25, length=7)"
    steps = np.arange(60)
    assert general.values(steps).tolist() == special.values(steps).tolist()
    general = CoolDown(inner, 5, 7, finish_lr=0.25)
    special = LinearCoolDown(inner, 0.25, 5, 7)
    assert general.values(steps).tolist() == special.values(steps).tolist()
    assert end_of(WarmUp(inner, 0, 7)) == end_of(LinearWarmUp(inner, 0, 7)) == 27


@pytest.mark.parametrize("shape", UP)
def test_a_cool_down_in_each_shape(shape):
    inner = MultiFactorSchedule(32, [2], 0.5)
    schedule = CoolDown(inner, 5, 4, finish_fraction=1 / 16, shape=shape)
    down = [RampSchedule(16, 1, 4, shape)(t) for t in range(5)]
    assert [schedule(t) for t in range(12)] == [32, 32, 32, 16, 16, *down, 1, 1]
    assert schedule.breakpoints(100) == (3, 5, 9)
    assert schedule.total_length == 9
    assert schedule == CoolDown(inner, 5, 4, finish_fraction=1 / 16, shape=shape)


def test_a_fraction_is_of_where_the_way_begins():
    schedule = CoolDown(PolySchedule(8, 8, 1), 4, 2, finish_fraction=0.5)
    assert [schedule(t) for t in range(8)] == [8, 7, 6, 5, 4, 3, 2, 2]
    assert CoolDown(PolySchedule(8, 8, 1), 8, 2, finish_fraction=0.5)(20) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RampSchedule(0, 1, 5, "exponential"),
            "RampSchedule: start_lr must be above 0 with shape: exponential",
        ),
        (lambda: RampSchedule(1, 0, 5, "exponential"), "RampSchedule: end_lr must be above 0 with shape: exponential"),
        (
            lambda: RampSchedule(1, 2, 5, "cubic"),
            "shape must be one of linear, cosine, exponential, poly, found 'cubic'",
        ),
        (lambda: RampSchedule(1, 2, 5, "constant"), "shape must be one of linear, cosine, exponential, poly"),
        (lambda: RampSchedule(1, 2, 5, "cosine", 2), "pwr must be left out without shape: poly, found 2"),
        (lambda: RampSchedule(1, 2, 5, "poly", 0), "pwr must be a finite number > 0, found 0"),
        (lambda: WarmUp(ConstantSchedule(1), 0, 5, "exponential"), "start_lr must be a finite number > 0, found 0"),
        (lambda: WarmUp(ConstantSchedule(1), 0, 5, "constant"), "start_lr must be a finite number > 0, found 0"),
        (
            lambda: OverlapWarmUp(PolySchedule(1, 5), 0.1, 5, "exponential"),
            "shape must be linear, cosine, poly or constant where the schedule is 0 when the warm-up ends, found",
        ),
        (lambda: WarmUp(ConstantSchedule(1), 0, 5, "wavy"), "one of linear, cosine, exponential, poly, constant"),
        (lambda: CoolDown(ConstantSchedule(1), 5, 5), "finish_lr must be given, or finish_fraction, found None"),
        (
            lambda: CoolDown(ConstantSchedule(1), 5, 5, 0, 0.5),
            "finish_fraction must be left out beside finish_lr, found 0.5",
        ),
        (
            lambda: CoolDown(ConstantSchedule(1), 5, 5, finish_fraction=0),
            "finish_fraction must be a finite number > 0 and",
        ),
        (
            lambda: CoolDown(ConstantSchedule(1), 5, 5, finish_fraction=2),
            "finish_fraction must be a finite number > 0 and",
        ),
        (lambda: CoolDown(ConstantSchedule(1), 5, 0, 0), "length must be an int >= 1, found 0"),
        (
            lambda: CoolDown(ConstantSchedule(1), 5, 5, 0, shape="exponential"),
            "finish_lr must be above 0, and so must the schedule at iteration 5 (1), with an exponential, found 0.0",
        ),
    ],
)
def test_bounds(make, message):
    with pytest.raises(BoundError) as caught:
        make()
    assert message in str(caught.value)


def test_in_yaml():
    frame = Frame(100, 1000, 0.5)
    warm = {"warm_up": {"start_lr": "0.1x", "length": "1ep", "shape": "poly", "pwr": 3, "schedule": "1x"}}
    assert parse_spec(warm).build(frame) == WarmUp(ConstantSchedule(0.5), 0.05, 100, "poly", 3)
    cool = {"cool_down": {"schedule": "1x", "start_idx": "60%", "length": "40%", "finish_fraction": 0.1}}
    assert parse_spec(cool).build(frame) == CoolDown(ConstantSchedule(0.5), 600, 400, finish_fraction=0.1)
    for raw in (warm, cool):
        assert parse_spec(parse_spec(raw).raw) == parse_spec(raw)
    del cool["cool_down"]["finish_fraction"]
    with pytest.raises(SpecError) as caught:
        parse_spec(cool).build(frame)
    assert str(caught.value) == "cool_down.finish_lr: must be given, or finish_fraction, found None"
