"""Several schedules at once: their product, the highest, the lowest."""

import math

import pytest

from harness.schedules import (
    ConstantSchedule,
    CosineAnnealingSchedule,
    FactorSchedule,
    InverseSqrtSchedule,
    MaximumSchedule,
    MinimumSchedule,
    MultipliedSchedule,
    PolySchedule,
    RampSchedule,
    SpecError,
    TriangularSchedule,
    parse_spec,
)
from harness.schedules.ends import end_of
from harness.schedules.spec import Frame

FALLING, RISING = PolySchedule(8, 4, 1), RampSchedule(0, 8, 4)
ALL = [MultipliedSchedule, MaximumSchedule, MinimumSchedule]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (MultipliedSchedule, [0, 12, 16, 12, 0, 0]),
        (MaximumSchedule, [8, 6, 4, 6, 8, 8]),
        (MinimumSchedule, [0, 2, 4, 2, 0, 0]),
    ],
)
def test_of_a_falling_and_a_rising_line(make, expected):
    assert [make([FALLING, RISING])(t) for t in range(6)] == expected
    assert [make([RISING, FALLING])(t) for t in range(6)] == expected


@pytest.mark.parametrize("make", ALL)
def test_of_three(make):
    combine = {MultipliedSchedule: math.prod, MaximumSchedule: max, MinimumSchedule: min}[make]
    parts = [FALLING, RISING, CosineAnnealingSchedule(1, 3, 5)]
    assert [make(parts)(t) for t in range(8)] == [combine([part(t) for part in parts]) for t in range(8)]


def test_a_change_of_the_one_that_holds_is_a_breakpoint():
    floor = MaximumSchedule([PolySchedule(1, 100, 1), ConstantSchedule(0.255)])
    assert floor.breakpoints(200) == (75, 100)
    assert floor(74) == pytest.approx(0.26)
    assert floor(75) == 0.255
    assert floor.total_length == 75
    assert MinimumSchedule([RampSchedule(0, 1, 100), ConstantSchedule(0.255)]).breakpoints(200) == (26, 100)


def test_a_change_on_a_breakpoint_of_a_part_is_one_breakpoint():
    drops = MaximumSchedule([FactorSchedule(1, 10, 0.5), ConstantSchedule(0.3)])
    assert drops.breakpoints(35) == (11, 21, 31)
    assert [drops(t) for t in (10, 11, 20, 21, 30)] == [1, 0.5, 0.5, 0.3, 0.3]


def test_several_changes_between_two_breakpoints_of_others():
    """Of equal ones the first holds: the triangle from 25, where it has come to 0.5, to 75, where it still has."""
    peaks = MaximumSchedule([TriangularSchedule(0, 1, 100), ConstantSchedule(0.5)])
    changes = [t for t in peaks.breakpoints(200) if t not in (50, 100)]
    assert changes == [25, 76]


def test_lengths():
    assert MultipliedSchedule([PolySchedule(1, 90), FactorSchedule(1, 25, 0.5, 0.25)]).total_length == 90
    assert MultipliedSchedule([PolySchedule(1, 90), InverseSqrtSchedule(1, 5)]).total_length is None
    assert MaximumSchedule([ConstantSchedule(1), ConstantSchedule(2)]).total_length == 0
    assert MaximumSchedule([PolySchedule(1, 90), InverseSqrtSchedule(1, 5)]).total_length is None


def test_a_part_that_ends_after_the_run_is_found():
    assert end_of(MultipliedSchedule([FactorSchedule(1, 25, 0.5), PolySchedule(1, 90)])) == 90
    assert end_of(MaximumSchedule([InverseSqrtSchedule(1, 5), PolySchedule(1, 90)])) == 90
    assert end_of(MinimumSchedule([InverseSqrtSchedule(1, 5), InverseSqrtSchedule(1, 9)])) is None


def test_the_schedule_of_the_transformer():
    """Vaswani et al. 2017, section 5.3, equation 3, with 4,000 steps of warm-up."""
    model = 512**-0.5
    line = RampSchedule(0, model * 4000**-0.5 * 25, 100_000)
    schedule = MinimumSchedule([line, InverseSqrtSchedule(model * 4000**-0.5, 4000)])
    for step in (1, 100, 3999, 4000, 4001, 50_000):
        assert schedule(step) == pytest.approx(model * min(step**-0.5, step * 4000**-1.5), rel=1e-12)


@pytest.mark.parametrize("make", ALL)
def test_what_is_not_a_list_of_two_is_refused(make):
    for wrong in ([FALLING], FALLING, [], None):
        with pytest.raises(ValueError, match=f"{make.__name__}: schedules must be a list of at least 2 schedules"):
            make(wrong)
    with pytest.raises(ValueError, match=r"must be a list of schedules, but 0\.1 is not a schedule"):
        make([FALLING, 0.1])


def problems(raw):
    with pytest.raises(SpecError) as caught:
        parse_spec(raw)
    return str(caught.value)


def test_in_yaml_all_begin_together():
    poly = {"poly": {"base_lr": "1x", "max_update": "50%"}}
    raw = {"sequential": {"schedules": [1, {"maximum": {"schedules": [poly, "0.1x"]}}], "boundaries": ["10%"]}}
    schedule = parse_spec(raw).build(Frame(100, 1000, 0.5))
    assert schedule.schedules[1] == MaximumSchedule([PolySchedule(0.5, 500), ConstantSchedule(0.05)])
    assert parse_spec(parse_spec(raw).raw) == parse_spec(raw)


def test_yaml_that_is_refused():
    poly = {"poly": {"base_lr": "1x", "max_update": "50%"}}
    assert problems({"minimum": {"schedules": [poly]}}) == (
        "minimum.schedules: must be a list of at least two schedules, found 1"
    )
    assert problems({"multiplied": {"schedules": [poly, "0.5x"]}}) == (
        "multiplied.schedules: poly and constant are both multiples of the base, so the base would be squared; write "
        "one of them with Nx, and the others as plain factors (0.5)"
    )
    assert problems({"maximum": {"schedules": poly}}).startswith(
        "maximum.schedules: must be a list of schedules, found"
    )
    assert parse_spec({"maximum": {"schedules": [poly, "0.5x"]}}).uses_x
