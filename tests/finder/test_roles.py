"""What the suggestion is for, and that what is printed to paste is a configuration that does it."""

from __future__ import annotations

import pytest
import yaml

from harness.config import parse_config
from harness.finder import ROLES, Suggestion, to_paste
from harness.finder.roles import role_of
from harness.plan import LRPlan, Sizes

TRIANGLE = {"schedule_class": "triangular", "cycle_length": "50%", "min_lr": "0.1x", "max_lr": "1x"}
ONE_CYCLE = {"one_cycle": {"start_lr": "0.1x", "max_lr": "1x", "cycle_length": "80%"}}
FOUND = Suggestion(0.284, "edge", 0.2, 0.3, {}, None, 0.0041)


def config_of(**lr):
    return parse_config({"train": {"iterations": 10_000}, "network": {"name": "mlp"}, "lr": lr}, "x.yaml")


@pytest.mark.parametrize(
    ("schedule", "role"),
    [
        ("1x", "peak"),
        ({"cosine": {"min_lr": 0, "max_lr": "1x", "cycle_length": "100%"}}, "peak"),
        ({"cyclical": TRIANGLE}, "cyclical"),
        ({"triangular2": {key: value for key, value in TRIANGLE.items() if key != "schedule_class"}}, "cyclical"),
        (ONE_CYCLE, "one_cycle"),
        ({"sequential": {"boundaries": ["90%"], "schedules": [ONE_CYCLE, 0.001]}}, "one_cycle"),
    ],
)
def test_the_role_is_that_of_the_schedule(schedule, role):
    assert role_of(config_of(base=0.1, schedule=schedule).lr) == role
    assert role in ROLES


@pytest.mark.parametrize(
    ("role", "first", "lowest", "last"),
    [("peak", 0.284, 0.284, 0.284), ("cyclical", 0.0041, 0.0041, 0.0041), ("one_cycle", 0.0284, 0.000284, 0.000284)],
)
@pytest.mark.parametrize("scaling", [None, "linear", "sqrt", "none"])
def test_what_is_pasted_has_the_suggestion_as_its_highest_rate(role, first, lowest, last, scaling):
    pasted = yaml.safe_load(to_paste(FOUND, role, 64, scaling))["lr"]
    config = config_of(**{"schedule": "1x", **pasted})
    rates = LRPlan(config.lr, Sizes.of(config.train, num_samples=640, shards=2, batch_size=32), "x.yaml")
    lrs = [rates.lr(t) for t in range(1, 10_001)]
    assert max(lrs) == pytest.approx(0.284, rel=1e-6)
    assert lrs[0] == pytest.approx(first, rel=0.05)  # a multiple has two digits
    assert min(lrs) == pytest.approx(lowest, rel=0.05)
    assert lrs[-1] == pytest.approx(last, rel=0.05)
    assert ("reference_batch" in pasted) == (scaling != "none")


def test_without_a_beginning_cycles_begin_at_a_quarter():
    assert "min_lr: 0.25x" in to_paste(Suggestion(0.284, "edge", 0.2, 0.3, {}, None), "cyclical", 64, None)
