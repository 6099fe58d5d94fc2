"""Lengths in samples and tokens, and stretched ones: what they are in iterations, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from harness.config import LRConfig, parse_config
from harness.data import Batching
from harness.errors import ConfigError
from harness.plan import LRPlan, Sizes
from harness.units import Duration

POLY = {"poly": {"base_lr": 0.1, "max_update": "10ep", "pwr": 1}}


def plan(sizes=None, **lr):
    sizes = sizes or Sizes(Batching(num_samples=3200, shards=2, batch_size=16), num_iterations=1000)
    return LRPlan(LRConfig.model_validate(lr), sizes)


@pytest.mark.parametrize(
    ("batching", "samples"),
    [
        (Batching(3200, 2, 16), 32),
        (Batching(3210, 2, 16), 32),  # 10 are dropped
        (Batching(3210, 2, 16, "keep"), Fraction(3210, 101)),
        (Batching(3200, 2, 16, "keep"), 32),
        (Batching(3200, 2, 16, num_batches=90), None),
    ],
)
def test_samples_of_an_iteration_on_the_average_of_an_epoch(batching, samples):
    sizes = Sizes(batching, 1000, tokens_per_sample=7)
    assert sizes.samples_per_iteration == samples
    assert sizes.tokens_per_iteration == (None if samples is None else 7 * samples)
    if samples is not None:
        epoch = samples * batching.iterations_per_epoch
        assert sizes.iterations(Duration(Fraction(3 * epoch), "sa")) == 3 * batching.iterations_per_epoch


def test_lengths_of_a_plan_in_samples_and_tokens():
    sizes = Sizes(Batching(3200, 2, 16), 1000, tokens_per_sample=5)
    expected = plan(sizes, warmup={"length": "50it"}, schedule={"poly": {"base_lr": 0.1, "max_update": "900it"}})
    for warm, length in (("1600sa", "28800sa"), ("8e3tok", "1.44e5tok"), ("1600sa", "9ep")):
        written = {"poly": {"base_lr": 0.1, "max_update": length}}
        assert plan(sizes, warmup={"length": warm}, schedule=written).schedule == expected.schedule


def test_ends_of_phases_are_rounded_and_never_their_lengths():
    """Ten thirds of an iteration each: 3, 7, 10."""
    sizes = Sizes(Batching(300, 1, 3), 1000)
    parts = [{"constant": {"lr": rate}} for rate in (1, 2, 3, 4)]
    written = {"sequential": {"boundaries": ["10sa", "20sa", "30sa"], "schedules": parts}}
    assert plan(sizes, schedule=written).breakpoints() == [1, 3, 7, 10, 1000]


def test_stretch_multiplies_all_lengths_but_parts_of_the_run():
    momentum = {"one_cycle": {"start_lr": 0.9, "max_lr": 0.8, "cycle_length": "300it"}}
    schedule = {"sequential": {"boundaries": ["1ep", "50%"], "schedules": [0.1, POLY, 0.3]}}
    plain = plan(warmup={"length": "2ep"}, schedule=schedule, momentum=momentum)
    half = plan(warmup={"length": "2ep"}, schedule=schedule, momentum=momentum, stretch=0.5)
    # the peak of the momentum, the warm-up, its end and the first boundary, the second: 50% of what the warm-up leaves
    assert plain.breakpoints() == [1, 150, 200, 300, 600, 1000]
    assert half.breakpoints() == [1, 75, 100, 150, 550, 1000]
    assert half.momentum(75) == pytest.approx(0.8)
    assert plain.momentum(150) == pytest.approx(0.8)


def test_stretch_keeps_exact_decimals():
    """0.1 of 10,005 iterations is 1000.5, which is rounded up; as a binary fraction it would be a little more."""
    written = {"poly": {"base_lr": 0.1, "max_update": "10005it"}}
    sizes = Sizes(Batching(3200, 2, 16), 2000)
    assert plan(sizes, schedule=written, stretch=0.1).schedule.total_length == 1001


def test_a_schedule_that_is_stretched_beyond_the_run_is_refused():
    with pytest.raises(ConfigError) as caught:
        plan(schedule=POLY, stretch=1.5)
    assert "lr.schedule.poly: takes 1500 iterations but the run has 1000; it would end at LR" in str(caught.value)


def test_lengths_that_nobody_can_measure_are_refused_by_the_plan():
    """A Job has no `train.tokens_per_sample`; every problem is told at once."""
    with pytest.raises(ConfigError) as caught:
        plan(warmup={"length": "100tok"}, schedule={"poly": {"base_lr": 0.1, "max_update": "200tok"}})
    told = "but how many an iteration has is not known here; write a length as '500it' or '5ep'"
    assert str(caught.value).splitlines() == [
        f"config: lr.warmup.length: '100tok' is a number of tokens, {told}",
        f"config: lr.schedule.poly.max_update: '200tok' is a number of tokens, {told}",
    ]


def config(**sections):
    return parse_config({"train": {"epochs": 2}, "network": {"name": "mlp"}, "lr": {"schedule": 0.1}} | sections)


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        (
            {"lr": {"schedule": {"poly": {"base_lr": 0.1, "max_update": "3e3tok"}}}},
            "lr.schedule.poly.max_update: '3000tok' needs the number of tokens in a sample; set "
            "train.tokens_per_sample",
        ),
        (
            {"evaluation": {"every": "64tok"}},
            "evaluation.every: '64tok' needs the number of tokens in a sample; set train.tokens_per_sample",
        ),
        (
            {"ema": {"decay": 0.9, "after": "64tok"}},
            "ema.after: '64tok' needs the number of tokens in a sample; set train.tokens_per_sample",
        ),
        (
            {"train": {"epochs": 2, "tokens_per_sample": 5}},
            "train.tokens_per_sample: 5 has no effect, no length is in tokens (3e9tok); remove it",
        ),
        (
            {"data": {"name": "m:f", "params": {}, "batches": "m:g"}, "checkpoint": {"every": "640sa"}},
            "checkpoint.every: '640sa' is not possible with data.batches, whose batches may have any number of "
            "samples; "
            "write it as '500it' or '5ep'",
        ),
        (
            {"lr": {"schedule": {"cosine": {"min_lr": 0, "max_lr": 1, "cycle_length": "100%"}}, "stretch": 2}},
            "lr.stretch: 2 has no effect, because no length in lr is absolute (5ep, 500it); remove it",
        ),
        ({"lr": {"schedule": POLY, "stretch": 0}}, "lr.stretch: found 0; must be above 0"),
        (
            {"lr": {"schedule": 0.1, "warmup": {"length": "1ep", "pwr": 3}}},
            "lr.warmup.pwr: 3 has no effect with shape: linear; remove it",
        ),
        (
            {"lr": {"schedule": 0.1, "warmup": {"length": "1ep", "shape": "exponential"}}},
            "lr.warmup.start: must be above 0 with shape: exponential, because equal factors lead nowhere from 0; "
            "set it, "
            "such as to 0.1x",
        ),
        (
            {"lr": {"base": 1, "schedule": "1x", "warmup": {"length": "1ep", "start": "0x", "shape": "constant"}}},
            "lr.warmup.start: must be above 0 with shape: constant, because nothing would be trained; set it, such "
            "as to "
            "0.1x",
        ),
        (
            {"lr": {"schedule": 0.1, "warmup": {"length": "1ep", "shape": "cubic"}}},
            "lr.warmup.shape: found 'cubic'; must be linear, cosine, exponential, poly or constant",
        ),
        (
            {"lr": {"schedule": 0.1, "momentum": {"opposite": 0.9}}},
            "lr.momentum: found {'opposite': 0.9}; opposite must be a mapping with the keys high, low",
        ),
    ],
)
def test_one_clear_message(sections, line):
    with pytest.raises(ConfigError) as caught:
        config(**sections)
    assert str(caught.value).splitlines()[0].startswith(f"config: {line}"), str(caught.value)


@pytest.mark.parametrize(
    ("lr", "line"),
    [
        (
            {"schedule": 0.1},
            "lr.momentum.opposite: needs to know where the learning rate is highest, which constant does",
        ),
        (
            {
                "schedule": {"cosine": {"min_lr": 0, "max_lr": 1, "cycle_length": "100%"}},
                "warmup": {"length": "1ep", "start": 0.1, "shape": "constant"},
            },
            "lr.momentum.opposite: is not possible with warmup.shape: constant, after which the rate jumps; use "
            "another",
        ),
    ],
)
def test_an_opposite_momentum_that_means_nothing_is_one_message(lr, line):
    optimizer = {"name": "sgd", "params": {"momentum": 0.9}}
    with pytest.raises(ConfigError) as caught:
        config(lr=lr | {"momentum": {"opposite": {"high": 0.9, "low": 0.8}}}, optimizer=optimizer)
    assert str(caught.value).startswith(f"config: {line}"), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_warm_up_by_equal_factors_to_0_is_refused_by_the_plan():
    ramp = {"ramp": {"start_lr": 0, "end_lr": 1, "length": "100%"}}
    with pytest.raises(ConfigError) as caught:
        plan(schedule=ramp, warmup={"length": "1ep", "start": 0.1, "shape": "exponential"})
    assert str(caught.value) == (
        "config: lr.warmup.shape: must be linear, cosine, poly or constant where the schedule is 0 when the warm-up "
        "ends, "
        "found 'exponential'"
    )


def test_a_configuration_with_everything_is_written_and_read_back():
    lr = {
        "warmup": {"length": "1e3sa", "start": 0.1, "shape": "poly", "pwr": 3},
        "schedule": {"cosine": {"min_lr": 0, "max_lr": 1, "cycle_length": "3e3tok"}},
        "stretch": 0.5,
        "momentum": {"opposite": {"high": 0.9, "low": 0.8}},
    }
    optimizer = {"name": "adam", "params": {}}
    found = config(lr=lr, optimizer=optimizer, train={"epochs": 2, "tokens_per_sample": 5})
    assert parse_config(found.plain()) == found
    assert found.plain()["lr"]["momentum"] == {"opposite": {"high": 0.9, "low": 0.8}}
