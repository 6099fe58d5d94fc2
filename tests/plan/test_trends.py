"""What evaluations decide, compared with what PyTorch and Keras decided from the same ones (`peers_of_trends.py`)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness.config import parse_config
from harness.folder import Fields, RecordError
from harness.plan import Cut, LRPlan, PlateauRule, Sizes, StopRule, Trend
from harness.plan.decided import describe_decisions
from harness.plan.trends import LEAST_CUT

GOLDEN = json.loads((Path(__file__).parent / "trends.json").read_text())
DIRECTIONS = {"min": "lowest", "max": "highest"}
CONFIG = {"train": {"iterations": 41}, "network": {"name": "mlp"}, "lr": {"schedule": 0.1}}


def rule_of(settings):
    relative = settings["threshold_mode"] == "rel"
    given = (settings["patience"], settings["threshold"], relative, settings["cooldown"])
    return PlateauRule(DIRECTIONS[settings["mode"]], *given)


@pytest.mark.parametrize("case", GOLDEN["plateau"], ids=lambda case: "")
def test_rates_are_those_of_pytorch_to_the_bit(case):
    """The plan with the cuts so far gives the next update what PyTorch's optimizer would use."""
    settings, rule, trend = case["settings"], rule_of(case["settings"]), Trend("test.loss")
    config = parse_config({**CONFIG, "lr": {"schedule": case["lr"]}})
    sizes = Sizes.of(config.train, num_samples=64, shards=1, batch_size=64)
    cuts, rates = [], []
    plan = LRPlan(config.lr, sizes)
    for t, value in enumerate(map(float, case["values"]), start=1):
        trend, is_cut = rule.judge(trend, value, t)
        if is_cut:
            trend, cut = rule.after_cut(trend), Cut(t, settings["factor"], settings["min_lr"])
            if plan.lr(t) - cut(plan.lr(t)) > LEAST_CUT:
                cuts.append(cut)
                plan = LRPlan(config.lr, sizes, cuts=cuts)
        rates.append(plan.lr(t + 1).hex())
    assert rates == case["rates"]


@pytest.mark.parametrize("case", GOLDEN["early_stop"], ids=lambda case: "")
def test_the_end_is_that_of_keras(case):
    settings, trend, ended = case["settings"], Trend("test.loss"), None
    rule = StopRule(DIRECTIONS[settings["mode"]], settings["patience"], settings["min_delta"])
    for count, value in enumerate(map(float, case["values"]), start=1):
        trend, stops = rule.judge(trend, value, count)
        if stops:
            ended = count
            break
    assert ended == case["ended"]


def test_the_golden_cases_are_of_every_kind():
    plateaus, stops = GOLDEN["plateau"], GOLDEN["early_stop"]
    for key in ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr"):
        assert len({case["settings"][key] for case in plateaus}) > 1
    assert any("nan" in case["values"] for case in plateaus)
    assert any("nan" in case["values"] for case in stops)
    assert {len(set(case["rates"])) for case in plateaus} >= {1, 2, 3, 4}
    assert {case["ended"] is None for case in stops} == {True, False}


@pytest.mark.parametrize("direction", ["lowest", "highest"])
def test_a_nan_is_never_the_best_not_even_the_first(direction):
    """Keras 3 keeps a first NaN as the best, with which every later value compares as worse."""
    for rule in (PlateauRule(direction), StopRule(direction, 3)):
        trend, _ = rule.judge(Trend("test.loss"), math.nan, 1)
        assert (trend.best, trend.best_at, trend.since) == (None, 0, 1)
        trend, _ = rule.judge(trend, 2.0, 2)
        assert (trend.best, trend.best_at, trend.since) == (2.0, 2, 0)


@pytest.mark.parametrize("trend", [Trend("test.loss"), Trend("test.loss", math.inf, 3, 1), Trend("a.b", -0.5, 4, 2, 7)])
def test_the_json_of_checkpoints_is_read_back(trend):
    content = json.loads(json.dumps(trend.to_json()))
    assert Trend.read(Fields(content), 4) == trend


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"best_at": 5}, "best_at is 5; allowed: 1 to 4"),
        ({"best": None}, "best_at is 3; allowed: 0 to 0"),
        ({"best": math.nan}, "best is nan; allowed: a finite number"),
        ({"best": "low"}, "best is the text 'low', not a number"),
        ({"since": -1}, "since is -1; allowed: 0 to"),
        ({"cooldown": 0.5}, "cooldown is 0.5, not a whole number"),
        ({"monitor": 1}, "monitor is 1, not text"),
    ],
)
def test_what_is_wrong_is_named(change, reason):
    content = {**Trend("test.loss", 0.5, 3).to_json(), **change}
    with pytest.raises(RecordError, match=f"^{reason}"):
        Trend.read(Fields(content), 4)


@pytest.mark.parametrize(
    ("lr", "train", "every", "lines"),
    [
        ({}, {}, "1it", []),
        (
            {"plateau": {"patience": 3, "factor": 0.5, "min_lr": 0.01}},
            {},
            "8it",
            [
                "a plateau may change the plan: after more than 3 evaluations of loss in a row without improvement, "
                "all later learning rates are x 0.5 (at least 0.01)"
            ],
        ),
        (
            {"plateau": {"patience": 1, "monitor": "accuracy"}},
            {"early_stop": {"patience": 1}},
            "20it",
            [
                "a plateau may change the plan: after more than 1 evaluation of accuracy in a row without "
                "improvement, all later learning rates are x 0.1; before its last update the run has 2 evaluations, "
                "too few for that",
                "the run may end early: after 1 evaluation of loss in a row without improvement",
            ],
        ),
        (
            {},
            {"early_stop": {"patience": 1}},
            "40it",
            [
                "the run may end early: after 1 evaluation of loss in a row without improvement; before its last "
                "update the run has 1 evaluation, too few for that"
            ],
        ),
    ],
)
def test_what_may_be_decided_in_words(lr, train, every, lines):
    lr, train = {**CONFIG["lr"], **lr}, {**CONFIG["train"], **train}
    config = parse_config({**CONFIG, "lr": lr, "train": train, "evaluation": {"every": every}})
    sizes = Sizes.of(config.train, num_samples=64, shards=1, batch_size=64)
    assert describe_decisions(config, sizes) == lines
