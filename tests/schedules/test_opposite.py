"""A momentum that is derived from the schedule of the learning rate; test_peers.py has PyTorch's and fastai's."""

import pytest

from harness.schedules import (
    ConstantSchedule,
    CosineAnnealingSchedule,
    OppositeSchedule,
    OppositeSpec,
    SpecError,
    parse_spec,
)
from harness.schedules.given import GivenSchedule
from harness.schedules.spec import Frame

FRAME = Frame(100, 1000, 0.5)
SPEC = OppositeSpec(high=0.95, low=0.75)


def momenta(raw, *at):
    schedule = OppositeSchedule(SPEC.heights(parse_spec(raw)).build(FRAME), SPEC.high, SPEC.low)
    return [schedule(t) for t in at]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"triangular": {"min_lr": "0.3x", "max_lr": "1x", "cycle_length": "4it"}}, [0.95, 0.85, 0.75, 0.85, 0.95]),
        ({"cosine": {"min_lr": 0.3, "max_lr": 1, "cycle_length": "4it"}}, [0.75, None, 0.85, None, 0.95]),
        (
            {
                "one_cycle": {
                    "start_lr": 0.3,
                    "max_lr": 1,
                    "cycle_length": "4it",
                    "cooldown_length": "2it",
                    "finish_lr": 0,
                }
            },
            [0.95, 0.85, 0.75, 0.85, 0.95, 0.95, 0.95],
        ),
        (
            {
                "warmup_stable_decay": {
                    "peak_lr": 1,
                    "warmup_length": "2it",
                    "stable_length": "1it",
                    "decay_length": "2it",
                }
            },
            [0.95, 0.85, 0.75, 0.75, 0.85, 0.95],
        ),
        ({"triangular2": {"min_lr": 0.3, "max_lr": 1, "cycle_length": "2it"}}, [0.95, 0.75, 0.95, 0.85, 0.95, 0.9]),
        (
            {
                "cyclical": {
                    "schedule_class": "cosine",
                    "min_lr": 0.3,
                    "max_lr": 1,
                    "cycle_length": "2it",
                    "cycle_magnitude_decay": 0.5,
                    "floor_lr": 0.3,
                }
            },
            [0.75, 0.85, 0.85, 0.9],
        ),
    ],
)
def test_it_is_high_where_the_rate_is_low(raw, expected):
    found = momenta(raw, *range(len(expected)))
    for value, wanted in zip(found, expected, strict=True):
        assert wanted is None or value == pytest.approx(wanted, rel=1e-15)


def test_both_ends_are_exact():
    assert momenta({"triangular": {"min_lr": 0.1, "max_lr": 0.7, "cycle_length": "4it"}}, 0, 2, 9) == [0.95, 0.75, 0.95]


@pytest.mark.parametrize(
    ("raw", "name"),
    [(0.1, "constant"), ({"sequential": {"schedules": [1], "boundaries": []}}, "sequential")],
)
def test_a_schedule_without_a_highest_rate_is_refused(raw, name):
    if name == "sequential":
        spec = parse_spec({"scaled": {"schedule": 1, "factor": 2}})
        name = "scaled"
    else:
        spec = parse_spec(raw)
    with pytest.raises(SpecError) as caught:
        SPEC.heights(spec)
    assert str(caught.value) == (
        f"opposite: needs to know where the learning rate is highest, which {name} does not say; it goes with cosine, "
        "triangular, warmup_stable_decay, one_cycle, rise_and_fall, cyclical, triangular2, exp_range, so write "
        "lr.momentum as a schedule of its own"
    )


def test_an_object_of_a_program_is_refused():
    with pytest.raises(
        SpecError, match=r"opposite: needs to know where the learning rate is highest, which .* not say"
    ):
        SPEC.heights(GivenSchedule(CosineAnnealingSchedule(0, 1, 5), "mine"))


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        ({}, ["opposite.high: is missing; opposite has high, low", "opposite.low: is missing; opposite has high, low"]),
        (
            {"high": 1, "low": "0.8x", "hihg": 3},
            [
                "opposite.hihg: is not a parameter of opposite; did you mean 'high'? known: high, low",
                "opposite.high: must be a finite number >= 0 and < 1, found 1",
                "opposite.low: must be a finite number >= 0 and < 1, found '0.8x'",
            ],
        ),
        ({"high": 0.8, "low": 0.9}, ["opposite.low: must be at most high, which is 0.8, found 0.9"]),
    ],
)
def test_what_is_refused_in_yaml(raw, lines):
    with pytest.raises(SpecError) as caught:
        OppositeSpec.parse(raw)
    assert str(caught.value).splitlines() == lines


def test_bounds():
    with pytest.raises(ValueError, match=r"^OppositeSchedule: low must be at most high, which is 0\.8, found 0\.9$"):
        OppositeSchedule(ConstantSchedule(1), 0.8, 0.9)
    with pytest.raises(ValueError, match="OppositeSchedule: high must be a finite number >= 0 and < 1, found 1"):
        OppositeSchedule(ConstantSchedule(1), 1, 0.9)


def test_it_is_written_as_it_is_read():
    assert OppositeSpec.parse(SPEC.raw["opposite"]) == SPEC
