"""Changes of a plan: the JSON that checkpoints hold, to and fro, and what each means for the learning rates."""

from __future__ import annotations

import pytest

from harness.config import parse_config
from harness.errors import CheckpointError
from harness.folder import Fields, RecordError
from harness.plan import (
    EarlyStop,
    Extend,
    PlateauCut,
    Replace,
    Rewind,
    Sizes,
    amended_plan,
    read_amendments,
    with_amendment,
)

LR = {"base": 0.2, "schedule": "1x"}
REWIND = {"iteration": 4, "choice": "rewind", "lr_factor": 0.5, "diverged_at": 6}
EXTEND = {"iteration": 4, "choice": "checkpoint", "changes": {"lr.base": [0.2, 0.3]}}
REPLACE = {"iteration": 4, "choice": "config", "changes": {"lr.base": [0.2, 0.1]}, "lr": LR, "train": {"iterations": 8}}
JUDGED = {"monitor": "test.loss", "evaluations": 3, "best_at": 1, "best": 0.5}
PLATEAU = {"iteration": 4, "choice": "plateau", **JUDGED, "lr_factor": 0.5, "min_lr": 0.0}
STOP = {"iteration": 4, "choice": "early_stop", **JUDGED, "best_at": 0, "best": None}


def read(*listed, last=10):
    return read_amendments([Fields(one, f"amendments[{k}]") for k, one in enumerate(listed)], last)


@pytest.mark.parametrize(
    ("content", "amendment"),
    [
        (REWIND, Rewind(4, 0.5, diverged_at=6)),
        (PLATEAU, PlateauCut(4, "test.loss", 3, 1, 0.5, lr_factor=0.5, min_lr=0.0)),
        (STOP, EarlyStop(4, "test.loss", 3, 0, None)),
        (EXTEND, Extend(4, {"lr.base": (0.2, 0.3)})),
        (REPLACE, Replace(4, {"lr.base": (0.2, 0.1)}, lr=LR, train={"iterations": 8})),
    ],
)
def test_the_json_of_checkpoints_is_read_and_written(content, amendment):
    assert read(content) == (amendment,)
    assert amendment.to_json() == content
    assert list(amendment.to_json()) == list(content)  # manifests keep the order of their keys


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (
            [{**REWIND, "choice": "pause"}],
            r"amendments\[0\].choice is the text 'pause'; allowed: config, checkpoint, re",
        ),
        ([{**PLATEAU, "lr_factor": 1}], r"amendments\[0\].lr_factor is 1; allowed"),
        ([{**PLATEAU, "min_lr": -1}], r"amendments\[0\].min_lr is -1; allowed"),
        ([{**PLATEAU, "best_at": 5}], r"amendments\[0\].best_at is 5; allowed: 0 to 4"),
        ([{**STOP, "evaluations": 0}], r"amendments\[0\].evaluations is 0; allowed: 1 to"),
        ([{**STOP, "best": float("nan")}], r"amendments\[0\].best is nan"),
        ([{**STOP, "monitor": None}], r"amendments\[0\].monitor is null, not text"),
        ([{**REWIND, "iteration": 11}], r"amendments\[0\].iteration is 11; allowed: 0 to 10"),
        ([{**REWIND, "iteration": 5}, EXTEND], r"amendments\[1\].iteration is 4; allowed: 5 to 10"),
        ([{**REWIND, "lr_factor": 1}], r"amendments\[0\].lr_factor is 1; allowed"),
        ([{**REWIND, "diverged_at": 4}], r"amendments\[0\].diverged_at is 4; allowed: 5 to"),
        ([{**EXTEND, "changes": {"lr.base": 0.3}}], r"amendments\[0\].changes.lr.base is 0.3; allowed: a list of old"),
        ([{**EXTEND, "changes": {"a": [1, float("nan")]}}], r"amendments\[0\].changes.a is nan"),
        ([{**REPLACE, "train": []}], r"amendments\[0\].train is a list, not an object"),
    ],
)
def test_what_is_wrong_is_named(listed, reason):
    with pytest.raises(RecordError, match=f"^{reason}"):
        read(*listed)


def test_a_text_is_kept_as_it_was_written():
    content = {**EXTEND, "changes": {"name": ["a\x07b", "x" * 30_000]}}  # a page would show neither like this
    assert read(content)[0].to_json() == content


def test_a_new_one_follows_those_of_its_iteration():
    first, second = Extend(4, {}), Rewind(9, 0.5, diverged_at=10)
    new = Rewind(4, 0.25, diverged_at=7)
    assert with_amendment((first, second), new) == (first, new, second)


@pytest.mark.parametrize(
    ("listed", "rates"),
    [
        ([], [0.1] * 8),
        ([EXTEND], [0.1] * 8),
        ([REWIND], [0.1] * 4 + [0.05] * 4),
        ([REWIND, {**REWIND, "iteration": 6, "diverged_at": 7}], [0.1] * 4 + [0.05] * 2 + [0.025] * 2),
        ([PLATEAU], [0.1] * 4 + [0.05] * 4),
        ([STOP], [0.1] * 8),
        ([{**PLATEAU, "min_lr": 0.075}, {**PLATEAU, "iteration": 6}], [0.1] * 4 + [0.075] * 2 + [0.0375] * 2),
        ([{**PLATEAU, "min_lr": 0.2}], [0.1] * 8),
        ([{**PLATEAU, "iteration": 2, "best_at": 1}, REPLACE], [0.2] * 2 + [0.1] * 2 + [0.05] * 4),
        ([REPLACE], [0.2] * 4 + [0.1] * 4),
        ([{**REWIND, "iteration": 2}, REPLACE], [0.2] * 2 + [0.1] * 2 + [0.05] * 4),
        ([REPLACE, {**REWIND, "iteration": 6, "diverged_at": 7}], [0.2] * 4 + [0.1] * 2 + [0.05] * 2),
    ],
)
def test_what_each_means_for_the_learning_rates(listed, rates):
    config = parse_config({"train": {"iterations": 8}, "network": {"name": "mlp"}, "lr": {**LR, "base": 0.1}})
    sizes = Sizes.of(config.train, num_samples=64, shards=2, batch_size=4)
    config = config.changed({"lr.scaling": "none"})
    listed = [{**one, "lr": {**one["lr"], "scaling": "none"}} if "lr" in one else one for one in listed]
    plan = amended_plan(config, sizes, read(*listed))
    assert [plan.lr(t) for t in range(1, 9)] == rates


def test_a_plan_that_no_longer_can_be_built_is_the_checkpoint_s_fault():
    config = parse_config({"train": {"iterations": 8}, "network": {"name": "mlp"}, "lr": LR})
    sizes = Sizes.of(config.train, num_samples=64, shards=2, batch_size=4)
    broken = Replace(4, {}, lr={"base": 0.1, "schedule": "1y"}, train={"iterations": 8})
    with pytest.raises(CheckpointError, match="the plan that held until iteration 4 cannot be used by this version"):
        amended_plan(config, sizes, [broken])
