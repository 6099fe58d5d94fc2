import pytest

from harness.schedules import BoundError, ConstantSchedule, FactorSchedule, MultiFactorSchedule


def test_constant_is_constant():
    schedule = ConstantSchedule(1)
    assert [schedule(t) for t in (0, 1, 10**12)] == [1.0] * 3
    assert isinstance(schedule(0), float)
    assert (schedule.total_length, schedule.breakpoints(100)) == (0, ())


def test_factor_drops_after_the_multiples_of_step():
    schedule = FactorSchedule(1, 250, 0.5)
    table = {0: 1, 1: 1, 249: 1, 250: 1, 251: 0.5, 500: 0.5, 501: 0.25, 750: 0.25, 751: 0.125, 1001: 0.0625}
    assert {t: schedule(t) for t in table} == table


def test_factor_with_step_1_drops_after_every_iteration():
    assert [FactorSchedule(8, 1, 0.5)(t) for t in range(5)] == [8, 8, 4, 2, 1]


def test_factor_stops_at_the_floor():
    schedule = FactorSchedule(1, 2, 0.1, stop_factor_lr=0.05)
    assert [schedule(t) for t in range(8)] == [1, 1, 1, 0.1, 0.1, 0.05, 0.05, 0.05]
    assert schedule(10**12) == 0.05
    assert schedule.total_length == 5
    assert schedule.breakpoints(100) == (3, 5)
    assert schedule.breakpoints(5) == (3,)


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("step", [1, 7])
def test_the_total_length_of_factor_is_the_first_iteration_at_the_floor(factor, step):
    schedule = FactorSchedule(0.3, step, factor, stop_factor_lr=1e-3)
    settled = schedule.total_length
    assert schedule(settled - 1) > 1e-3
    assert schedule(settled) == schedule(settled + 10**6) == 1e-3
    assert schedule.breakpoints(10**9)[-1] == settled


def test_factor_without_floor_never_settles():
    assert FactorSchedule(1, 2, 0.5, stop_factor_lr=0).total_length is None
    assert FactorSchedule(1, 2, 0.5, stop_factor_lr=0)(10**12) == 0.0


def test_factor_1_settles_at_once():
    schedule = FactorSchedule(1, 2, 1)
    assert (schedule.total_length, schedule.breakpoints(10), schedule(10**12)) == (0, (), 1.0)


def test_multi_factor_drops_after_each_entry():
    schedule = MultiFactorSchedule(1, [2, 3, 7], 0.5)
    assert [schedule(t) for t in range(10)] == [1, 1, 1, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125, 0.125]
    assert schedule.total_length == 8
    assert schedule.breakpoints(8) == (3, 4)
    assert schedule.breakpoints(9) == (3, 4, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSchedule(-0.1), "ConstantSchedule: lr must be a finite number >= 0, found -0.1"),
        (lambda: ConstantSchedule(float("nan")), "lr must be a finite number >= 0, found nan"),
        (lambda: ConstantSchedule(float("inf")), "lr must be a finite number >= 0, found inf"),
        (lambda: ConstantSchedule(10**400), "lr must be a finite number >= 0, found 1000"),
        (lambda: ConstantSchedule(True), "lr must be a finite number >= 0, found True"),
        (lambda: ConstantSchedule("0.1"), "lr must be a finite number >= 0, found '0.1'"),
        (lambda: ConstantSchedule(None), "lr must be a finite number >= 0, found None"),
        (lambda: FactorSchedule(-1, 2, 0.5), "FactorSchedule: base_lr must be a finite number >= 0, found -1"),
        (lambda: FactorSchedule(1, 0, 0.5), "step must be an int >= 1, found 0"),
        (lambda: FactorSchedule(1, 2.0, 0.5), "step must be an int >= 1, found 2.0"),
        (lambda: FactorSchedule(1, True, 0.5), "step must be an int >= 1, found True"),
        (lambda: FactorSchedule(1, 2, 0), "factor must be a finite number > 0 and <= 1, found 0"),
        (lambda: FactorSchedule(1, 2, 1.1), "factor must be a finite number > 0 and <= 1, found 1.1"),
        (lambda: FactorSchedule(1, 2, 0.5, -1e-8), "stop_factor_lr must be a finite number >= 0, found -1e-08"),
        (lambda: FactorSchedule(1, 2, 0.5, 2), "stop_factor_lr must be at most base_lr, which is 1.0, found 2.0"),
        (lambda: MultiFactorSchedule(1, [], 0.5), "step must be a list of at least 1 ints"),
        (lambda: MultiFactorSchedule(1, [0], 0.5), "step must be a list .* found \\[0\\]"),
        (lambda: MultiFactorSchedule(1, [3, 3], 0.5), "each larger than the one before, found \\[3, 3\\]"),
        (lambda: MultiFactorSchedule(1, [3, 2], 0.5), "each larger than the one before, found \\[3, 2\\]"),
        (lambda: MultiFactorSchedule(1, [3.0], 0.5), "step must be a list"),
        (lambda: MultiFactorSchedule(1, [True, 3], 0.5), "step must be a list"),
        (lambda: MultiFactorSchedule(1, 3, 0.5), "step must be a list .* found 3"),
        (lambda: MultiFactorSchedule(1, [3], 2), "factor must be a finite number > 0 and <= 1, found 2"),
    ],
)
def test_bounds(make, message):
    with pytest.raises(BoundError, match=message):
        make()
