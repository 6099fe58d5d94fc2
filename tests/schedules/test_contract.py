"""What is promised of every schedule, asked of one of each."""

import copy
import dataclasses
import pickle
import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

import harness.schedules as public
from harness.schedules import (
    ConstantSchedule,
    CoolDown,
    CosineAnnealingSchedule,
    CyclicalSchedule,
    ExponentialSchedule,
    FactorSchedule,
    InverseSqrtSchedule,
    LinearCoolDown,
    LinearWarmUp,
    MaximumSchedule,
    MinimumSchedule,
    MultiFactorSchedule,
    MultipliedSchedule,
    NoisySchedule,
    OneCycleSchedule,
    OppositeSchedule,
    OverlapWarmUp,
    PolySchedule,
    RaisedSchedule,
    RampSchedule,
    RiseAndFallSchedule,
    ScaledAfter,
    ScaledSchedule,
    Schedule,
    SequentialSchedule,
    Spliced,
    TriangularSchedule,
    WarmUp,
    WarmupStableDecaySchedule,
    WithoutBreakpoints,
    exp_range,
    triangular2,
)

MAKERS = {
    "constant": lambda: ConstantSchedule(0.1),
    "factor": lambda: FactorSchedule(1, 25, 0.5, 1e-3),
    "multi_factor": lambda: MultiFactorSchedule(1, [25, 40, 300], 0.5),
    "poly": lambda: PolySchedule(1, 90, 1.5, 0.1),
    "cosine": lambda: CosineAnnealingSchedule(0.1, 1, 90),
    "triangular": lambda: TriangularSchedule(0.1, 1, 90, 0.3),
    "exponential": lambda: ExponentialSchedule(1, 1e-4, 90),
    "inverse_sqrt": lambda: InverseSqrtSchedule(1, 20),
    "warmup_stable_decay": lambda: WarmupStableDecaySchedule(1, 10, 50, 20, 0.1, "one_minus_sqrt"),
    "linear_warm_up": lambda: LinearWarmUp(FactorSchedule(1, 25, 0.5), 0, 30),
    "linear_cool_down": lambda: LinearCoolDown(CosineAnnealingSchedule(0.1, 1, 90), 0, 60, 20),
    "one_cycle": lambda: OneCycleSchedule(0.1, 1, 80, 20, 0.001),
    "cyclical": lambda: CyclicalSchedule(TriangularSchedule, 9, 1.3, 0.8, min_lr=0.1, max_lr=1, inc_fraction=0.2),
    "cyclical above a floor": lambda: CyclicalSchedule(
        CosineAnnealingSchedule, 9, 1.3, 0.8, floor_lr=0.1, iteration_magnitude_decay=0.999, min_lr=0.1, max_lr=1
    ),
    "one_cycle of cosines": lambda: OneCycleSchedule(0.1, 1, 81, 20, 0.001, "cosine"),
    "ramp": lambda: RampSchedule(0.1, 1, 90, "cosine"),
    "rise_and_fall": lambda: RiseAndFallSchedule(0.04, 1, 0.001, 93, 0.3, starts="first_update"),
    "rise_and_fall in three": lambda: RiseAndFallSchedule(0.04, 1, 0.001, 93, 0.3, "linear", phases="three"),
    "raised": lambda: RaisedSchedule(PolySchedule(1, 90), 0.1),
    "sequential": lambda: SequentialSchedule([PolySchedule(1, 90), ConstantSchedule(0.3)], [50]),
    "scaled": lambda: ScaledSchedule(PolySchedule(1, 90), 8),
    "overlap_warm_up": lambda: OverlapWarmUp(FactorSchedule(1, 25, 0.5), 0, 30),
    "overlap_warm_up to the end": lambda: OverlapWarmUp(PolySchedule(1, 90, 1.5, 0.1), 0.3, 95),
    "scaled_after": lambda: ScaledAfter(FactorSchedule(1, 25, 0.5), 0.25, 60),
    "scaled_after above a floor": lambda: ScaledAfter(
        ScaledAfter(PolySchedule(1, 90, 1.5, 0.1), 0.5, 20, floor=0.3), 0.25, 60, floor=0.15
    ),
    "scaled_after at the end": lambda: ScaledAfter(PolySchedule(1, 90, 1.5, 0.1), 0.25, 95),
    "spliced": lambda: Spliced(FactorSchedule(1, 25, 0.5), PolySchedule(1, 90), 60),
    "spliced at the end": lambda: Spliced(InverseSqrtSchedule(1, 20), PolySchedule(1, 90), 200),
    "ramp by equal factors": lambda: RampSchedule(0.1, 1, 90, "exponential"),
    "ramp by a power": lambda: RampSchedule(1, 0.1, 90, "poly", 3),
    "triangular2": lambda: triangular2(0.1, 1, 90, 0.3),
    "exp_range": lambda: exp_range(0.1, 1, 90, 0.999, 0.3),
    "warm_up by equal factors": lambda: WarmUp(FactorSchedule(1, 25, 0.5), 0.01, 30, "exponential"),
    "warm_up that is constant": lambda: WarmUp(ConstantSchedule(1), 0.01, 30, "constant"),
    "warm_up that is constant, of more": lambda: WarmUp(PolySchedule(1, 90), 0.01, 30, "constant"),
    "overlap_warm_up by a power": lambda: OverlapWarmUp(FactorSchedule(1, 25, 0.5), 0, 30, "poly", 3),
    "overlap_warm_up that is constant": lambda: OverlapWarmUp(ConstantSchedule(1), 0.5, 30, "constant"),
    "cool_down": lambda: CoolDown(CosineAnnealingSchedule(0.1, 1, 90), 60, 20, finish_fraction=0.25, shape="cosine"),
    "cool_down by equal factors": lambda: CoolDown(ConstantSchedule(1), 60, 20, 0.01, shape="exponential"),
    "multiplied": lambda: MultipliedSchedule([PolySchedule(1, 90, 1.5, 0.1), FactorSchedule(1, 25, 0.5, 0.1)]),
    "maximum": lambda: MaximumSchedule([PolySchedule(1, 90), ConstantSchedule(0.3)]),
    "maximum of more": lambda: MaximumSchedule([TriangularSchedule(0, 1, 90), PolySchedule(0.8, 60, 1, 0.25)]),
    "minimum": lambda: MinimumSchedule([RampSchedule(0, 8, 90), ConstantSchedule(0.3)]),
    "noisy": lambda: NoisySchedule(PolySchedule(1, 90, 2, 0.1), 0.3, "normal", 7, 20, 200),
    "noisy, uniform": lambda: NoisySchedule(CosineAnnealingSchedule(0.1, 1, 90), 0.9, "uniform", length=95),
    "opposite": lambda: OppositeSchedule(TriangularSchedule(0, 1, 90), 0.95, 0.85),
    "without_breakpoints": lambda: WithoutBreakpoints(PolySchedule(1, 90)),
}
every_schedule = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@every_schedule
def test_the_order_of_questions_makes_no_difference(make):
    iterations = [*range(400), 10**6, 10**9]
    in_order = {t: make()(t) for t in iterations}
    shuffled, asked = make(), iterations * 2
    random.Random(1).shuffle(asked)
    assert {t: shuffled(t) for t in asked} == in_order


@every_schedule
def test_many_at_once_have_the_bits_of_one_by_one(make):
    schedule = make()
    iterations = [*range(400), 5, 399, 10**6, 10**9, 0]
    expected = [schedule(t) for t in iterations]
    assert make().values(np.array(iterations)).tolist() == expected
    for t in iterations:
        assert schedule.values(np.array([t])).tolist() == [schedule(t)]
    assert schedule.values(np.array([], np.int64)).shape == (0,)


@pytest.mark.parametrize("decay", ["linear", "cosine", "one_minus_sqrt"])
def test_so_have_all_decays(decay):
    for schedule in (
        WarmupStableDecaySchedule(0.3, 7, 0, 991, 0.01, decay),
        PolySchedule(0.3, 997, {"linear": 1, "cosine": 3, "one_minus_sqrt": 0.5}[decay]),
        LinearWarmUp(LinearCoolDown(lambda t: 1 / (t + 1), 0, 300, 400), 0.2, 30),
    ):
        iterations = np.arange(1100)
        assert schedule.values(iterations).tolist() == [schedule(t) for t in range(1100)]


@every_schedule
def test_equal_by_value_hashable_and_frozen(make):
    first, second = make(), make()
    second(1000)
    assert first == second
    assert hash(first) == hash(second)
    assert len({first, second}) == 1
    assert repr(first) == repr(second)
    name = dataclasses.fields(first)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(first, name, 0.5)


@every_schedule
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda schedule: pickle.loads(pickle.dumps(schedule))])
def test_copies_are_equal_and_answer_alike(make, duplicate):
    schedule = make()
    schedule(500)
    twin = duplicate(schedule)
    assert twin == schedule
    assert [twin(t) for t in range(200)] == [make()(t) for t in range(200)]


def test_different_values_are_different():
    schedules = [make() for make in MAKERS.values()]
    assert len(set(schedules)) == len(MAKERS)
    assert ConstantSchedule(1) != ConstantSchedule(2)
    cycles = [CyclicalSchedule(TriangularSchedule, 9, min_lr=0.1, max_lr=top) for top in (1, 2)]
    assert cycles[0] != cycles[1]


@every_schedule
def test_values_are_floats_at_any_distance(make):
    values = [make()(t) for t in (0, 1, 2, 89, 90, 91, 10**6, 10**12)]
    assert all(type(value) is float and 0 <= value <= 8 for value in values)


@every_schedule
def test_nothing_changes_after_the_total_length(make):
    schedule = make()
    settled = schedule.total_length
    if settled is None:
        assert type(schedule) in (InverseSqrtSchedule, CyclicalSchedule)
    else:
        assert len({schedule(settled + extra) for extra in (0, 1, 7, 10**9)}) == 1
        assert settled == 0 or schedule(settled - 1) != schedule(settled)


@every_schedule
def test_breakpoints_are_inside_increasing_and_a_prefix_of_those_of_a_longer_run(make):
    schedule = make()
    longest = schedule.breakpoints(400)
    assert list(longest) == sorted(set(longest))
    for until in range(402):
        assert schedule.breakpoints(until) == tuple(b for b in schedule.breakpoints(401) if b < until)
    assert all(b > 0 for b in longest)


@pytest.mark.parametrize("name", ["constant", "factor", "multi_factor", "triangular", "one_cycle", "cyclical"])
def test_between_breakpoints_these_are_straight(name):
    schedule = MAKERS[name]()
    bounds = [0, *schedule.breakpoints(400), 400]
    for start, end in pairwise(bounds):
        slopes = [schedule(t + 1) - schedule(t) for t in range(start, end - 1)]
        assert slopes == pytest.approx(slopes[:1] * len(slopes), abs=1e-12)


def test_every_class_is_here():
    classes = {item for item in vars(public).values() if isinstance(item, type) and issubclass(item, Schedule)}
    assert {type(make()) for make in MAKERS.values()} == classes - {Schedule}


def test_everything_public_is_listed():
    assert sorted(public.__all__) == public.__all__
    assert all(hasattr(public, name) for name in public.__all__)


def test_importing_loads_numpy_and_the_standard_library():
    code = "import sys, harness.schedules; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(run.stdout.split())
    assert not loaded & {"mxnet", "horovod", "mpi4py", "pydantic", "yaml", "logging"}
    assert run.stderr == ""
