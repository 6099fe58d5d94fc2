import pytest

from harness.schedules import (
    BoundError,
    ConstantSchedule,
    CosineAnnealingSchedule,
    InverseSqrtSchedule,
    LinearCoolDown,
    LinearWarmUp,
    MultiFactorSchedule,
    OneCycleSchedule,
    PolySchedule,
    ScaledSchedule,
    SequentialSchedule,
    TriangularSchedule,
    breakpoints_of,
    length_of,
)


def counting(t):
    return 100.0 + t


def test_warm_up_shifts_the_schedule():
    schedule = LinearWarmUp(counting, start_lr=0, length=4)
    assert [schedule(t) for t in range(8)] == [0, 25, 50, 75, 100, 101, 102, 103]


def test_warm_up_may_come_down():
    assert [LinearWarmUp(ConstantSchedule(1), 3, 2)(t) for t in range(4)] == [3, 2, 1, 1]


def test_warm_up_of_1_iteration():
    assert [LinearWarmUp(counting, 7, 1)(t) for t in range(4)] == [7, 100, 101, 102]


def test_pieces_of_a_warm_up():
    schedule = LinearWarmUp(MultiFactorSchedule(1, [3, 5], 0.5), 0, 10)
    assert schedule.breakpoints(100) == (10, 14, 16)
    assert schedule.breakpoints(16) == (10, 14)
    assert schedule.breakpoints(10) == ()
    assert schedule.total_length == 16
    assert LinearWarmUp(InverseSqrtSchedule(1, 5), 0, 10).total_length is None


def test_cool_down_starts_from_the_schedule():
    schedule = LinearCoolDown(counting, finish_lr=3, start_idx=5, length=3)
    assert [schedule(t) for t in range(3, 11)] == pytest.approx([103, 104, 105, 71, 37, 3, 3, 3])
    assert [schedule(t) for t in (5, 8, 9)] == [105, 3, 3]


def test_cool_down_from_the_beginning_and_of_1_iteration():
    schedule = LinearCoolDown(counting, finish_lr=3, start_idx=0, length=1)
    assert [schedule(t) for t in range(3)] == [100, 3, 3]


def test_pieces_of_a_cool_down():
    schedule = LinearCoolDown(MultiFactorSchedule(1, [3, 5, 20], 0.5), 0, 10, 5)
    assert schedule.breakpoints(100) == (4, 6, 10, 15)
    assert schedule.breakpoints(15) == (4, 6, 10)
    assert schedule.total_length == 15


def test_one_cycle_by_hand():
    schedule = OneCycleSchedule(start_lr=0.1, max_lr=0.5, cycle_length=8, cooldown_length=4, finish_lr=0.02)
    expected = [0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 0.08, 0.06, 0.04, 0.02, 0.02]
    assert [schedule(t) for t in range(14)] == pytest.approx(expected, rel=1e-12)
    assert [schedule(t) for t in (0, 4, 8, 12, 10**12)] == [0.1, 0.5, 0.1, 0.02, 0.02]
    assert schedule.breakpoints(13) == (4, 8, 12)
    assert schedule.total_length == 12


def test_one_cycle_without_cool_down_stays_at_the_start():
    schedule = OneCycleSchedule(1, 2, 4)
    assert [schedule(t) for t in range(7)] == [1, 1.5, 2, 1.5, 1, 1, 1]
    assert schedule.breakpoints(100) == (2, 4)


def test_one_cycle_of_1_iteration():
    assert [OneCycleSchedule(1, 2, 1)(t) for t in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("length", [1, 2, 3, 8, 9, 469])
def test_one_cycle_is_a_triangle_that_is_cooled_down(length):
    schedule = OneCycleSchedule(0.1, 0.7, length, 5, 0.01)
    composed = LinearCoolDown(TriangularSchedule(0.1, 0.7, length), 0.01, length, 5)
    assert [schedule(t) for t in range(length + 8)] == pytest.approx(
        [composed(t) for t in range(length + 8)], rel=1e-12
    )


def test_momentum_is_cycled_downwards():
    assert [OneCycleSchedule(0.75, 0.25, 4)(t) for t in range(6)] == [0.75, 0.5, 0.25, 0.5, 0.75, 0.75]


def test_a_boundary_is_0_of_the_next_schedule():
    schedule = SequentialSchedule([lambda t: 10.0 + t, lambda t: 20.0 + t, lambda t: 30.0 + t], [2, 5])
    assert [schedule(t) for t in range(8)] == [10, 11, 20, 21, 22, 30, 31, 32]


def test_pieces_of_a_sequence():
    drops = MultiFactorSchedule(1, [3, 30], 0.5)
    schedule = SequentialSchedule([drops, counting, drops], [10, 20])
    assert schedule.breakpoints(100) == (4, 10, 20, 24, 51)
    assert schedule.breakpoints(24) == (4, 10, 20)
    assert schedule.breakpoints(9) == (4,)
    assert schedule.total_length == 51
    assert SequentialSchedule([drops, counting], [10]).total_length is None


def test_a_sequence_of_one():
    assert SequentialSchedule([counting], [])(5) == 105


def test_scaled():
    schedule = ScaledSchedule(PolySchedule(1, 4, 1), 8)
    assert [schedule(t) for t in range(6)] == [8, 6, 4, 2, 0, 0]
    assert (schedule.total_length, schedule.breakpoints(9)) == (4, (4,))


def test_foreign_callables_have_no_length_and_no_pieces():
    assert (length_of(counting), breakpoints_of(counting, 100)) == (None, ())
    assert (length_of(PolySchedule(1, 4)), breakpoints_of(PolySchedule(1, 4), 100)) == (4, (4,))


def test_inner_schedules_are_asked_once():
    asked = []

    def inner(t):
        asked.append(t)
        return 1.0

    warm, cool = LinearWarmUp(inner, 0, 10), LinearCoolDown(inner, 0, 5, 10)
    asked.clear()
    assert [schedule(t) for schedule in (warm, cool) for t in (7, 8, 9)]
    assert asked == []


one = ConstantSchedule(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearWarmUp(0.1, 0, 5), "LinearWarmUp: schedule must be a schedule, a callable .*, found 0.1"),
        (lambda: LinearWarmUp(ConstantSchedule, 0, 5), "LinearWarmUp: schedule must be a schedule, a callable"),
        (lambda: LinearWarmUp(one, -1, 5), "start_lr must be a finite number >= 0, found -1"),
        (lambda: LinearWarmUp(one, 0, 0), "length must be an int >= 1, found 0"),
        (lambda: LinearWarmUp(one, 0, 1.5), "length must be an int >= 1, found 1.5"),
        (lambda: LinearCoolDown(None, 0, 5, 5), "LinearCoolDown: schedule must be a schedule"),
        (lambda: LinearCoolDown(one, -1, 5, 5), "finish_lr must be a finite number >= 0, found -1"),
        (lambda: LinearCoolDown(one, 0, -1, 5), "start_idx must be an int >= 0, found -1"),
        (lambda: LinearCoolDown(one, 0, 5, 0), "length must be an int >= 1, found 0"),
        (lambda: OneCycleSchedule(-1, 1, 5), "OneCycleSchedule: start_lr must be a finite number >= 0, found -1"),
        (lambda: OneCycleSchedule(0, float("nan"), 5), "max_lr must be a finite number >= 0, found nan"),
        (lambda: OneCycleSchedule(0, 1, 0), "cycle_length must be an int >= 1, found 0"),
        (lambda: OneCycleSchedule(0, 1, 5, -1), "cooldown_length must be an int >= 0, found -1"),
        (lambda: OneCycleSchedule(0, 1, 5, 1), "finish_lr must be given with a cooldown_length > 0, found None"),
        (lambda: OneCycleSchedule(0, 1, 5, 0, 0.1), "finish_lr must be left out without a cooldown_length > 0"),
        (lambda: OneCycleSchedule(0, 1, 5, 1, -1), "finish_lr must be a finite number >= 0, found -1"),
        (lambda: SequentialSchedule([], []), "SequentialSchedule: schedules must be a list of at least one schedule"),
        (lambda: SequentialSchedule(one, []), "schedules must be a list of at least one schedule"),
        (lambda: SequentialSchedule([one, 2], [5]), "schedules must be a list of schedules, but 2 is not"),
        (lambda: SequentialSchedule([one, one], []), "boundaries must be 1 long, one fewer than the schedules"),
        (lambda: SequentialSchedule([one, one], [5, 6]), "boundaries must be 1 long"),
        (lambda: SequentialSchedule([one, one], [0]), "boundaries must be a list of .* ints >= 1"),
        (lambda: SequentialSchedule([one] * 3, [6, 5]), "each larger than the one before, found \\[6, 5\\]"),
        (lambda: ScaledSchedule(3, 1), "ScaledSchedule: schedule must be"),
        (lambda: ScaledSchedule(one, 0), "factor must be a finite number > 0, found 0"),
    ],
)
def test_bounds(make, message):
    with pytest.raises(BoundError, match=message):
        make()


def test_modifiers_nest():
    schedule = LinearWarmUp(LinearCoolDown(CosineAnnealingSchedule(0.2, 1, 10), 0, 5, 5), 0, 10)
    assert [schedule(t) for t in (0, 5, 10, 15, 20, 99)] == pytest.approx([0, 0.5, 1, 0.6, 0, 0])
    assert schedule.breakpoints(100) == (10, 15, 20)
