"""The state of a run: what a manifest keeps of it is what a resumed run has."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from harness.checkpoint import Best, Manifest, Replaced
from harness.errors import CheckpointError
from harness.plan import EarlyStop, Extend, PlateauCut, Replace, Rewind, Trend
from harness.train.state import RunState, is_due

OLD = Path(__file__).parents[1] / "checkpoint/format_1/iteration-000000004/manifest.json"
LEARNERS = ("applied_lr", "num_update", "update_counts", "scalars")
STATES = [
    RunState(iteration=4),
    RunState(4, replaced=Replaced(3, 1, ("sample 7 by sample 8: 7.jpg: is empty",))),
    RunState(4, evaluation_due=True, best=Best(2, "test.loss", math.inf)),
    RunState(
        4,
        amendments=(
            Rewind(1, 0.5, 3),
            Extend(2, {"lr.base": (0.1, 0.2)}),
            Replace(2, {"seed": (0, 1)}, {"base": 0.1}, {"epochs": 1}),
        ),
        best=Best(4, "validation.accuracy", 0.5),
    ),
    RunState(
        4,
        amendments=(PlateauCut(2, "test.loss", 3, 1, 0.5, 0.1, 0.0), EarlyStop(4, "test.loss", 4, 0, None)),
        plateau=Trend("test.loss", 0.5, 1, 0, cooldown=2),
        early_stop=Trend("test.loss", -math.inf, 3, 1),
    ),
]


def manifest_with(state):
    content = json.loads(OLD.read_text())
    numbers = {key: content["state"][key] for key in LEARNERS}
    content["state"] = {**numbers, **json.loads(json.dumps(state.to_json()))}
    return Manifest.of(content, "runs/x")


@pytest.mark.parametrize("state", STATES)
def test_what_a_manifest_keeps_is_read_back(state):
    assert RunState.of(manifest_with(state), "runs/x") == state


@pytest.mark.parametrize("kind", ["skipped", "weightless"])
def test_updates_that_were_left_out_are_read_back(kind):
    content = json.loads(OLD.read_text())
    content["state"] |= {"num_update": 3, kind: 1}
    content["state"]["update_counts"] = [3 for _ in content["state"]["update_counts"]]
    state = RunState.of(Manifest.of(content, "runs/x"), "runs/x")
    assert getattr(state, kind) == 1
    assert state.to_json()[kind] == 1


def test_a_manifest_of_the_first_version_is_read_and_written_alike():
    content = json.loads(OLD.read_text())
    state = RunState.of(Manifest.of(copy.deepcopy(content), "runs/x"), "runs/x")
    assert {**{key: content["state"][key] for key in LEARNERS}, **state.to_json()} == content["state"]


def test_amendments_that_are_not_possible_name_the_checkpoint():
    content = json.loads(OLD.read_text())
    content["state"]["amendments"] = [{"iteration": 5, "choice": "rewind", "lr_factor": 0.5, "diverged_at": 6}]
    with pytest.raises(CheckpointError, match=r"^runs/x: manifest\.json: state\.amendments\[0\]\.iteration is 5"):
        RunState.of(Manifest.of(content, "runs/x"), "runs/x")


def test_what_is_false_or_zero_is_not_written():
    assert RunState(7).to_json() == {"iteration": 7, "amendments": [], "best": None}
    assert RunState(7, skipped=2, evaluation_due=True).to_json() == {
        "iteration": 7,
        "amendments": [],
        "best": None,
        "evaluation_due": True,
        "skipped": 2,
    }


@pytest.mark.parametrize(
    ("direction", "values", "best_at"),
    [
        ("highest", [0.5, 0.7, 0.7, 0.6], 2),  # of equals the first
        ("lowest", [0.5, 0.4, 0.4, 0.6], 2),
        ("lowest", [math.nan, 0.4, math.nan], 2),
        ("lowest", [math.inf, 3.0], 2),
        ("highest", [math.nan], None),
        ("highest", [-1.0], 1),
    ],
)
def test_the_best_evaluation_is_the_first_of_the_best_value(direction, values, best_at):
    state = RunState()
    for t, value in enumerate(values, start=1):
        state = RunState(t, best=state.best).judged("test.accuracy", value, direction)
    assert (None if state.best is None else state.best.iteration) == best_at
    if best_at:
        assert state.best == Best(best_at, "test.accuracy", values[best_at - 1])


def test_a_best_by_another_metric_is_forgotten():
    state = RunState(4, best=Best(2, "test.accuracy", 0.9))
    assert state.judged_by("accuracy") == state
    assert state.judged_by("loss").best is None
    assert state.judged_by(None).best is None
    assert RunState(4).judged_by("loss") == RunState(4)


def test_amendments_stay_in_the_order_of_their_iterations():
    state = RunState(9).amended(Rewind(6, 0.5, 7)).amended(Rewind(2, 0.1, 5)).amended(Rewind(6, 0.2, 8))
    assert state.amendments == (Rewind(2, 0.1, 5), Rewind(6, 0.5, 7), Rewind(6, 0.2, 8))


def test_a_state_does_not_change():
    with pytest.raises(FrozenInstanceError):
        RunState().iteration = 1


@pytest.mark.parametrize(
    ("every", "total", "due"),
    [
        (3, None, [3, 6, 9]),
        (3, 10, [3, 6, 9, 10]),
        (5, 10, [5, 10]),
        (1, None, list(range(1, 11))),
        (None, 10, [10]),
        (None, None, []),
        (20, 10, [10]),
    ],
)
def test_what_is_due_when(every, total, due):
    assert [t for t in range(1, 11) if is_due(t, every, total)] == due
