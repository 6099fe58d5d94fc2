import json
import pickle
import random
from dataclasses import FrozenInstanceError
from fractions import Fraction

import pytest

from harness.schedules import (
    BoundError,
    ConstantSchedule,
    CoolDown,
    CosineAnnealingSchedule,
    CyclicalSchedule,
    ExponentialSchedule,
    FactorSchedule,
    Frame,
    InverseSqrtSchedule,
    LinearCoolDown,
    LinearWarmUp,
    MaximumSchedule,
    MinimumSchedule,
    MultiFactorSchedule,
    MultipliedSchedule,
    NoisySchedule,
    OneCycleSchedule,
    PolySchedule,
    RaisedSchedule,
    RampSchedule,
    RiseAndFallSchedule,
    ScaledSchedule,
    SequentialSchedule,
    SpecError,
    TriangularSchedule,
    WarmUp,
    WarmupStableDecaySchedule,
    exp_range,
    parse_spec,
    triangular2,
)
from harness.schedules.catalogue import CATALOGUE

FRAME = Frame(iterations_per_epoch=100, span=1000, x=0.5)

BUILT = [
    (0.1, ConstantSchedule(0.1)),
    (0, ConstantSchedule(0)),
    ("2x", ConstantSchedule(1)),
    ({"constant": {"lr": "0.2x"}}, ConstantSchedule(0.1)),
    ({"factor": {"base_lr": "1x", "step": "2ep", "factor": 0.5}}, FactorSchedule(0.5, 200, 0.5)),
    (
        {"factor": {"base_lr": 1, "step": "7it", "factor": 0.5, "stop_factor_lr": "0.01x"}},
        FactorSchedule(1, 7, 0.5, 0.005),
    ),
    (
        {"multi_factor": {"base_lr": "1x", "step": ["3ep", "60%", "800it"], "factor": 0.1}},
        MultiFactorSchedule(0.5, [300, 600, 800], 0.1),
    ),
    ({"poly": {"base_lr": "1x", "max_update": "100%"}}, PolySchedule(0.5, 1000)),
    (
        {"poly": {"base_lr": 1, "max_update": "9ep", "pwr": 1, "final_lr": "1e-3"}},
        PolySchedule(1, 900, 1, 0.001),
    ),
    ({"cosine": {"min_lr": 0, "max_lr": "1x", "cycle_length": "50%"}}, CosineAnnealingSchedule(0, 0.5, 500)),
    ({"triangular": {"min_lr": 0, "max_lr": 1, "cycle_length": "2.5ep"}}, TriangularSchedule(0, 1, 250)),
    (
        {"triangular": {"min_lr": 0, "max_lr": 1, "cycle_length": "10it", "inc_fraction": 0.1}},
        TriangularSchedule(0, 1, 10, 0.1),
    ),
    (
        {"exponential": {"start_lr": "1x", "finish_lr": "1e-4x", "length": "100%"}},
        ExponentialSchedule(0.5, 5e-5, 1000),
    ),
    ({"inverse_sqrt": {"base_lr": "1x", "timescale": "40it"}}, InverseSqrtSchedule(0.5, 40)),
    (
        {
            "warmup_stable_decay": {
                "peak_lr": "1x",
                "warmup_length": "1%",
                "stable_length": "79%",
                "decay_length": "20%",
                "decay": "one_minus_sqrt",
            }
        },
        WarmupStableDecaySchedule(0.5, 10, 790, 200, 0, "one_minus_sqrt"),
    ),
    (
        {"linear_warm_up": {"schedule": "1x", "start_lr": 0, "length": "5ep"}},
        LinearWarmUp(ConstantSchedule(0.5), 0, 500),
    ),
    (
        {"linear_cool_down": {"schedule": "1x", "finish_lr": 0, "start_idx": "80%", "length": "20%"}},
        LinearCoolDown(ConstantSchedule(0.5), 0, 800, 200),
    ),
    ({"one_cycle": {"start_lr": "0.1x", "max_lr": "1x", "cycle_length": "8ep"}}, OneCycleSchedule(0.05, 0.5, 800)),
    (
        {
            "one_cycle": {
                "start_lr": "0.1x",
                "max_lr": "1x",
                "cycle_length": "80%",
                "cooldown_length": "20%",
                "finish_lr": "0.001x",
            }
        },
        OneCycleSchedule(0.05, 0.5, 800, 200, 0.0005),
    ),
    (
        {
            "cyclical": {
                "schedule_class": "triangular",
                "cycle_length": "2ep",
                "min_lr": "0.1x",
                "max_lr": "1x",
                "cycle_length_decay": 1.5,
            }
        },
        CyclicalSchedule(TriangularSchedule, 200, 1.5, min_lr=0.05, max_lr=0.5, inc_fraction=0.5),
    ),
    (
        {"sequential": {"schedules": ["1x", {"poly": {"base_lr": "1x", "max_update": "40%"}}], "boundaries": ["60%"]}},
        SequentialSchedule([ConstantSchedule(0.5), PolySchedule(0.5, 400)], [600]),
    ),
    ({"scaled": {"schedule": 0.1, "factor": 8}}, ScaledSchedule(ConstantSchedule(0.1), 8)),
    ({"raised": {"schedule": "1x", "floor_lr": "0.1x"}}, RaisedSchedule(ConstantSchedule(0.5), 0.05)),
    ({"ramp": {"start_lr": 0, "end_lr": "1x", "length": "3ep"}}, RampSchedule(0, 0.5, 300)),
    (
        {"ramp": {"start_lr": "1x", "end_lr": 0.1, "length": "50%", "shape": "cosine"}},
        RampSchedule(0.5, 0.1, 500, "cosine"),
    ),
    (
        {
            "rise_and_fall": {
                "start_lr": "0.04x",
                "max_lr": "1x",
                "end_lr": 0,
                "cycle_length": "100%",
                "inc_fraction": 0.25,
                "shape": "linear",
                "starts": "first_update",
                "phases": "three",
            }
        },
        RiseAndFallSchedule(0.02, 0.5, 0, 1000, 0.25, "linear", "first_update", "three"),
    ),
    (
        {"ramp": {"start_lr": "1x", "end_lr": 0.1, "length": "50%", "shape": "poly", "pwr": 3}},
        RampSchedule(0.5, 0.1, 500, "poly", 3),
    ),
    (
        {"warm_up": {"schedule": "1x", "start_lr": "0.1x", "length": "1ep", "shape": "constant"}},
        WarmUp(ConstantSchedule(0.5), 0.05, 100, "constant"),
    ),
    (
        {
            "cool_down": {
                "schedule": "1x",
                "start_idx": "80%",
                "length": "20%",
                "finish_fraction": 0.1,
                "shape": "cosine",
            }
        },
        CoolDown(ConstantSchedule(0.5), 800, 200, None, 0.1, "cosine"),
    ),
    (
        {"triangular2": {"min_lr": "0.1x", "max_lr": "1x", "cycle_length": "1ep"}},
        triangular2(0.05, 0.5, 100),
    ),
    (
        {"exp_range": {"min_lr": 0, "max_lr": 1, "cycle_length": "1ep", "gamma": 0.999, "inc_fraction": 0.3}},
        exp_range(0, 1, 100, 0.999, 0.3),
    ),
    (
        {"multiplied": {"schedules": ["1x", {"poly": {"base_lr": 1, "max_update": "100%"}}]}},
        MultipliedSchedule([ConstantSchedule(0.5), PolySchedule(1, 1000)]),
    ),
    ({"maximum": {"schedules": ["1x", 0.1]}}, MaximumSchedule([ConstantSchedule(0.5), ConstantSchedule(0.1)])),
    ({"minimum": {"schedules": ["1x", 0.1]}}, MinimumSchedule([ConstantSchedule(0.5), ConstantSchedule(0.1)])),
    (
        {"noisy": {"schedule": "1x", "noise": 0.3, "distribution": "uniform", "seed": 5, "start_idx": "1ep"}},
        NoisySchedule(ConstantSchedule(0.5), 0.3, "uniform", 5, 100),
    ),
]


@pytest.mark.parametrize(("raw", "schedule"), BUILT)
def test_what_is_built(raw, schedule):
    assert parse_spec(raw).build(FRAME) == schedule


def test_every_name_was_built():
    assert {parse_spec(raw).name for raw, _ in BUILT} == set(CATALOGUE)


@pytest.mark.parametrize(("raw", "schedule"), BUILT)
def test_raw_is_plain_canonical_and_read_back_as_the_same(raw, schedule):
    spec = parse_spec(raw)
    plain = json.loads(json.dumps(spec.raw))
    assert plain == spec.raw
    assert parse_spec(plain) == spec
    assert parse_spec(plain).raw == plain
    assert hash(parse_spec(plain)) == hash(spec)
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_two_ways_to_write_one_schedule_have_one_canonical_form():
    short = parse_spec({"triangular": {"cycle_length": "2.0ep", "max_lr": "1.0x", "min_lr": 0}})
    long = parse_spec({"triangular": {"min_lr": 0.0, "max_lr": " 1x", "cycle_length": "2 ep", "inc_fraction": 0.5}})
    assert short == long
    assert json.dumps(short.raw) == json.dumps(long.raw)
    expected = {"min_lr": 0.0, "max_lr": "1x", "cycle_length": "2ep", "inc_fraction": 0.5}
    assert long.raw == {"triangular": expected}
    assert parse_spec("0.10x").raw == {"constant": {"lr": "0.1x"}}


def test_an_absent_parameter_may_be_written_null():
    spec = parse_spec({"one_cycle": {"start_lr": 0, "max_lr": 1, "cycle_length": "8it", "finish_lr": None}})
    assert spec.build(FRAME) == OneCycleSchedule(0, 1, 8)


def test_a_spec_cannot_be_changed():
    spec = parse_spec(0.1)
    with pytest.raises(FrozenInstanceError):
        spec.name = "factor"
    spec.raw["constant"]["lr"] = 5
    assert spec.raw == {"constant": {"lr": 0.1}}


def test_uses_x():
    nested = {
        "linear_warm_up": {"schedule": {"scaled": {"schedule": "1x", "factor": 2}}, "start_lr": 0, "length": "1ep"}
    }
    assert parse_spec(nested).uses_x
    assert parse_spec({"sequential": {"schedules": [1, "1x"], "boundaries": ["1ep"]}}).uses_x
    assert not parse_spec({"sequential": {"schedules": [1, 2], "boundaries": ["1ep"]}}).uses_x


def one_cycle(cycle, cooldown):
    return {
        "one_cycle": {
            "start_lr": 0.1,
            "max_lr": 1,
            "cycle_length": cycle,
            "cooldown_length": cooldown,
            "finish_lr": 0,
        }
    }


def test_lengths_end_where_their_exact_sums_do():
    schedule = parse_spec(one_cycle("33.3%", "66.7%")).build(Frame(10, 469, 1))
    # 156.177 and 312.823: rounded one by one they happen to fit, the halves below do not
    assert (schedule.cycle_length, schedule.cooldown_length) == (156, 313)
    schedule = parse_spec(one_cycle("50%", "50%")).build(Frame(10, 469, 1))
    assert (schedule.cycle_length, schedule.cooldown_length) == (235, 234)


def test_any_split_of_any_span_adds_up():
    rng = random.Random(3)
    for _ in range(300):
        span = rng.randrange(200, 5000)
        cut, second = sorted(rng.sample(range(50, 950), 2))
        parts = [cut, second - cut, 1000 - second]
        texts = [f"{part / 10}%" for part in parts]
        frame = Frame(rng.randrange(1, 50), span, 1)
        stable = {"peak_lr": 1, "warmup_length": texts[0], "stable_length": texts[1], "decay_length": texts[2]}
        schedule = parse_spec({"warmup_stable_decay": stable}).build(frame)
        assert schedule.total_length == span
        assert schedule.warmup_length == int(Fraction(cut * span, 1000) + Fraction(1, 2))
        cycle = parse_spec(one_cycle(f"{cut / 10}%", f"{(1000 - cut) / 10}%")).build(frame)
        assert cycle.total_length == span


def test_nested_lengths_begin_where_the_outer_ones_end_exactly():
    # spans of 50% of 469 begin at 234.5 -> 235 and leave 234 to whatever comes after
    rest = {"poly": {"base_lr": 1, "max_update": "50%"}}
    frame = Frame(10, 469, 1)
    warm = parse_spec({"linear_warm_up": {"schedule": rest, "start_lr": 0, "length": "50%"}}).build(frame)
    assert (warm.length, warm.schedule.max_update, warm.total_length) == (235, 234, 469)
    cool = parse_spec({"linear_cool_down": {"schedule": 1, "finish_lr": 0, "start_idx": "50%", "length": "50%"}})
    assert cool.build(frame).total_length == 469
    both = parse_spec({"sequential": {"schedules": [rest, rest], "boundaries": ["50%"]}}).build(frame)
    assert both.boundaries == (235,)
    assert [schedule.max_update for schedule in both.schedules] == [235, 234]
    deep = {"sequential": {"schedules": [1, {"linear_warm_up": {"schedule": rest, "start_lr": 0, "length": "25%"}}]}}
    deep["sequential"]["boundaries"] = ["25%"]
    assert parse_spec(deep).build(frame).total_length == 469


def test_positions_round_where_they_lie_in_the_run():
    drops = {"multi_factor": {"base_lr": 1, "step": ["25%", "50%"], "factor": 0.1}}
    both = parse_spec({"sequential": {"schedules": [1, drops], "boundaries": ["50%"]}}).build(Frame(10, 469, 1))
    # the boundary lies at 234.5 -> 235, the drops at 351.75 -> 352 and 469
    assert both.breakpoints(1000) == (235, 353, 470)


def problems(raw, **more):
    with pytest.raises(SpecError) as caught:
        parse_spec(raw, **more)
    return dict(caught.value.problems)


def cosine(**change):
    return {"cosine": {"min_lr": 0, "max_lr": 1, "cycle_length": "5ep"} | change}


ANY = "must be a mapping from one schedule's name to its parameters, or for a constant a number or text like 1x, found"


@pytest.mark.parametrize(
    ("raw", "path", "message"),
    [
        (None, (), f"{ANY} nothing"),
        ([], (), f"{ANY} []"),
        (True, (), f"{ANY} True"),
        ("fast", (), f"{ANY} 'fast'"),
        ("cosine", (), "it must be the key of a mapping of its parameters (min_lr, max_lr, cycle_length)"),
        ("plateau", (), "evaluations decide about a plateau; use lr.plateau beside"),
        ({}, (), "found an empty mapping"),
        (cosine() | {"poly": {}}, (), "found 'cosine', 'poly'"),
        (-0.1, (), "must be a finite number >= 0, found -0.1"),
        ("-1x", (), "must be x times a finite number >= 0, found '-1x'"),
        ("1e999x", (), "must be x times a finite number >= 0"),
        (float("nan"), (), "must be a finite number >= 0, found nan"),
        ({"cosin": {}}, ("cosin",), "is not a schedule; did you mean 'cosine'? known: constant, factor, multi_factor"),
        ({"cosine_annealing": {}}, ("cosine_annealing",), "did you mean 'cosine'?"),
        ({"OneCycleSchedule": {}}, ("OneCycleSchedule",), "did you mean 'one_cycle'?"),
        ({"wsd": {}}, ("wsd",), "is not a schedule; known: constant"),
        ({"plateau": {}}, ("plateau",), "is not a schedule, which is a function of the iteration"),
        ({"reduce_lr_on_plateau": {}}, ("reduce_lr_on_plateau",), "use lr.plateau beside a schedule"),
        ({5: {}}, (5,), "is not a schedule; known:"),
        ({None: {}}, ("None",), "is not a schedule;"),
        ({"cosine": None}, ("cosine",), "of its parameters (min_lr, max_lr, cycle_length), found nothing"),
        ({"constant": 0.1}, ("constant",), "must be a mapping of its parameters (lr), found 0.1"),
        (
            cosine(maxlr=1),
            ("cosine", "maxlr"),
            "is not a parameter of cosine; did you mean 'max_lr'? known: min",
        ),
        ({"cosine": {}}, ("cosine", "min_lr"), "is missing; cosine has min_lr, max_lr, cycle_length"),
        (cosine(max_lr=-1), ("cosine", "max_lr"), "must be a finite number >= 0, found -1"),
        (cosine(max_lr="big"), ("cosine", "max_lr"), "must be a finite number >= 0 or text like '0.1x', found 'big'"),
        (cosine(max_lr=None), ("cosine", "max_lr"), "found nothing"),
        (cosine(max_lr=[1]), ("cosine", "max_lr"), "found [1]"),
        (cosine(cycle_length=5), ("cosine", "cycle_length"), "5 is not a length"),
        (cosine(cycle_length=5), ("cosine", "cycle_length"), "write '5it' or '5ep'"),
        (cosine(cycle_length="5"), ("cosine", "cycle_length"), "'5' is not a length"),
        (cosine(cycle_length="-5it"), ("cosine", "cycle_length"), "'-5it' is not a length"),
        (cosine(cycle_length="1.5it"), ("cosine", "cycle_length"), "is not a whole number of iterations"),
        (cosine(cycle_length=True), ("cosine", "cycle_length"), "True is not a length"),
        (
            {"factor": {"base_lr": 1, "step": "1ep", "factor": "1x"}},
            ("factor", "factor"),
            "must be a finite number > 0 and <= 1, found '1x'",
        ),
        ({"poly": {"base_lr": 1, "max_update": "1ep", "pwr": 0}}, ("poly", "pwr"), "must be a finite number > 0"),
        (
            {"exponential": {"start_lr": "0x", "finish_lr": 1, "length": "1ep"}},
            ("exponential", "start_lr"),
            "must be x times a finite number > 0, found '0x'",
        ),
        (
            {"multi_factor": {"base_lr": 1, "step": "3ep", "factor": 0.1}},
            ("multi_factor", "step"),
            "must be a list of lengths, found '3ep'",
        ),
        (
            {"multi_factor": {"base_lr": 1, "step": ["3ep", 7], "factor": 0.1}},
            ("multi_factor", "step", 1),
            "7 is not a length",
        ),
        (
            {"warmup_stable_decay": {"decay": "cosin"}},
            ("warmup_stable_decay", "decay"),
            "'cosin' is not allowed; did you mean 'cosine'? known: linear, cosine, one_minus_sqrt",
        ),
        (
            {"sequential": {"schedules": [1, {"cosine": {"cycle_length": 5}}], "boundaries": ["1ep"]}},
            ("sequential", "schedules", 1, "cosine", "cycle_length"),
            "5 is not a length",
        ),
        (
            {"sequential": {"schedules": [1, 2], "boundaries": ["1ep", "2ep"]}},
            ("sequential", "boundaries"),
            "must be 1 long, one fewer than the schedules, found 2",
        ),
        (
            {"sequential": {"schedules": 1, "boundaries": ["1ep"]}},
            ("sequential", "schedules"),
            "must be a list of schedules, found 1",
        ),
        (
            {"scaled": {"schedule": {"cosin": {}}, "factor": 1}},
            ("scaled", "schedule", "cosin"),
            "did you mean 'cosine'?",
        ),
        (
            {"cyclical": {"schedule_class": "poly", "cycle_length": "5it"}},
            ("cyclical", "schedule_class"),
            "'poly' is not allowed; known: cosine, triangular, one_cycle, rise_and_fall",
        ),
        ({"cyclical": {"cycle_length": "5it"}}, ("cyclical", "schedule_class"), "is missing; cyclical has"),
        (
            {"cyclical": {"schedule_class": "cosine", "cycle_length": "5it", "min_lr": 0}},
            ("cyclical", "max_lr"),
            "is missing; cyclical has schedule_class, cycle_length, cycle_length_decay",
        ),
        (
            {"cyclical": {"schedule_class": "cosine", "inc_fraction": 0.5}},
            ("cyclical", "inc_fraction"),
            "is not a parameter of cyclical",
        ),
    ],
)
def test_a_problem_is_named_with_its_place(raw, path, message):
    found = problems(raw)
    assert path in found
    assert message in found[path]


def test_all_problems_are_told_at_once():
    raw = {
        "sequential": {
            "schedules": [
                {"cosine": {"min_lr": -1, "cycle_length": 5, "top": 2}},
                {"plateau": {}},
                -1,
            ],
            "boundaries": ["1ep", 2],
            "extra": 1,
        }
    }
    place = ("sequential", "schedules")
    assert set(problems(raw)) == {
        (*place, 0, "cosine", "top"),
        (*place, 0, "cosine", "min_lr"),
        (*place, 0, "cosine", "max_lr"),
        (*place, 0, "cosine", "cycle_length"),
        (*place, 1, "plateau"),
        (*place, 2),
        ("sequential", "boundaries", 1),
        ("sequential", "extra"),
    }


def test_momentum_is_never_scaled():
    message = "momentum is never scaled: write a plain number, found '1x'"
    assert problems("1x", allow_x=False) == {(): message}
    assert problems(cosine(max_lr="1x"), allow_x=False) == {("cosine", "max_lr"): message}
    assert "0.1x" not in problems(cosine(max_lr="big"), allow_x=False)[("cosine", "max_lr")]
    assert "1x" not in problems("big", allow_x=False)[()]
    assert parse_spec(cosine(), allow_x=False).build(FRAME)(0) == 1


@pytest.mark.parametrize(
    ("raw", "path", "message"),
    [
        (cosine(min_lr="3x"), ("cosine", "min_lr"), "must be at most max_lr, which is 1.0, found 1.5 (written '3x')"),
        (cosine(cycle_length="0.01%"), ("cosine", "cycle_length"), "must be an int >= 1, found 0 (written '0.01%')"),
        (one_cycle("50%", "0.01%"), ("one_cycle", "finish_lr"), "must be left out without a cooldown_length > 0"),
        (
            {"scaled": {"schedule": cosine(min_lr=2), "factor": 1}},
            ("scaled", "schedule", "cosine", "min_lr"),
            "must be at most max_lr, which is 1.0, found 2.0",
        ),
        (
            {"multi_factor": {"base_lr": 1, "step": ["1ep", "100it"], "factor": 0.1}},
            ("multi_factor", "step"),
            "each larger than the one before, found [100, 100] (written ['1ep', '100it'])",
        ),
        (
            {"sequential": {"schedules": [1, cosine(cycle_length="0it")], "boundaries": ["1ep"]}},
            ("sequential", "schedules", 1, "cosine", "cycle_length"),
            "must be an int >= 1, found 0 (written '0it')",
        ),
        (
            {"cyclical": {"schedule_class": "cosine", "cycle_length": "1ep", "min_lr": 2, "max_lr": "1x"}},
            ("cyclical", "min_lr"),
            "must be at most max_lr, which is 0.5, found 2.0",
        ),
    ],
)
def test_what_only_sizes_can_tell(raw, path, message):
    spec = parse_spec(raw)
    with pytest.raises(SpecError) as caught:
        spec.build(FRAME)
    ((found_path, found_message),) = caught.value.problems
    assert found_path == path
    assert message in found_message
    assert str(caught.value) == f"{'.'.join(map(str, path))}: {found_message}"


def test_building_tells_all_problems_at_once():
    raw = {"sequential": {"schedules": [cosine(min_lr=2), 1, cosine(cycle_length=0)], "boundaries": ["1ep", "2ep"]}}
    with pytest.raises(SpecError) as caught:
        parse_spec(raw).build(FRAME)
    assert [path[2:] for path, _ in caught.value.problems] == [(0, "cosine", "min_lr"), (2, "cosine", "cycle_length")]


def test_the_error_of_a_whole_spec_has_no_empty_place():
    with pytest.raises(SpecError, match=r"^must be"):
        parse_spec(None)


def test_the_error_survives_pickling():
    with pytest.raises(SpecError) as caught:
        parse_spec({"cosine": {}})
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems
    error = BoundError("Owner", "name", 1, "2")
    assert str(pickle.loads(pickle.dumps(error))) == "Owner: name must be 2, found 1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 1), "Frame: iterations_per_epoch must be an int >= 1, found 0"),
        ((1, 1.0, 1), "Frame: span must be an int >= 1, found 1.0"),
        ((1, 1, 0), "Frame: x must be a finite number > 0, found 0"),
        ((1, 1, float("nan")), "Frame: x must be a finite number > 0, found nan"),
        ((1, 1, "1"), "Frame: x must be a finite number > 0, found '1'"),
    ],
)
def test_bounds_of_a_frame(arguments, message):
    with pytest.raises(BoundError, match=message):
        Frame(*arguments)
