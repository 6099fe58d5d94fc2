"""Schedules that a program gives as objects, where a file has one written."""

import pytest
from mxnet.lr_scheduler import PolyScheduler

from harness.config import TrainConfig, parse_lr
from harness.errors import ConfigError
from harness.plan import LRPlan, Sizes
from harness.schedules import GivenSchedule, PolySchedule, read_schedule

SIZES = Sizes.of(TrainConfig(iterations=20), num_samples=100, shards=1, batch_size=10)
POLY = PolySchedule(base_lr=0.8, max_update=20)


@pytest.mark.parametrize(
    "given", [POLY, lambda t: POLY(t), PolyScheduler(max_update=20, base_lr=0.8)], ids=["ours", "function", "mxnet's"]
)
def test_a_plan_holds_the_rates_of_an_object(given):
    plan = LRPlan(parse_lr({"schedule": given}), SIZES)
    assert [plan.lr(t) for t in range(1, 21)] == pytest.approx([POLY(t) for t in range(1, 21)], abs=1e-12)


def test_an_object_stands_beside_a_warm_up_and_as_momentum():
    warmup = {"length": "4it", "start": 0.0}
    plan = LRPlan(parse_lr({"warmup": warmup, "schedule": lambda t: POLY(t), "momentum": lambda t: 0.9}), SIZES)
    assert [plan.lr(t) for t in (2, 4, 5)] == [0.4, 0.8, POLY(1)]
    assert plan.momentum(7) == 0.9


def test_what_is_written_stays_what_it_was():
    assert read_schedule(0.1) == parse_lr({"schedule": 0.1}).schedule
    assert isinstance(read_schedule(POLY), GivenSchedule)


@pytest.mark.parametrize(
    ("given", "message"), [(PolySchedule, "must be a mapping"), (lambda t: -1.0, "gave -1.0 at its iteration 1")]
)
def test_what_is_no_schedule_is_refused_by_key(given, message):
    with pytest.raises(ConfigError, match=f"lr.*{message}"):
        LRPlan(parse_lr({"schedule": given}), SIZES)


def test_a_base_has_no_effect_beside_an_object():
    with pytest.raises(ConfigError, match=r"lr\.base: 0\.1 has no effect"):
        parse_lr({"base": 0.1, "schedule": POLY})
