"""When a checkpoint is due, what stands in it, what a failed write means; with a learner that has no network."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest

from harness.checkpoint import Best, Manifest, list_checkpoints, read_manifest, verify
from harness.comm import SingleWorld
from harness.config import load_config
from harness.errors import CheckpointError, DisagreementError, DivergedError
from harness.folder import MetricsFile, MetricsLine
from harness.gluon import LearnerState, Requests
from harness.guard import ConsistencyCheck
from harness.plan import Rewind
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions
from harness.train.saving import Saver
from harness.train.state import RunState

SETTINGS = ("name=run", "train={iterations: 20}", "batch.shards=1", "threads_per_rank=1")


class Weights:
    """What a saver needs of a learner: one weight, and as many updates as it is told."""

    began_with = None

    def __init__(self, rate):
        self.t, self.rate, self.is_finite, self.num_popped = 0, rate, True, 0

    def check_weights(self, t):
        if not self.is_finite:
            raise DivergedError("not finite").at(t)

    def snapshot(self, reuse=None):
        numbers = {"applied_lr": self.rate(self.t), "num_update": self.t, "update_counts": [self.t], "scalars": {}}
        return LearnerState({"w": np.full(3, self.t, np.float32)}, {}, numbers)

    def pop_requests(self):
        self.num_popped += 1


@pytest.fixture
def saver_of(tmp_path, request):
    """A saver, its run, its learner and the lines that it shows."""

    def build(*settings, start=None):
        words = [*SETTINGS, f"output={tmp_path}", *settings]
        run = prepare_run(load_config("configs/digits.yaml", words), SingleWorld(), threads=1, start=start)
        (run.folder.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        learner, lines = Weights(run.plan.lr), []
        metrics = MetricsFile(run.folder.path / "metrics.jsonl")
        saver = Saver(run, learner, ConsistencyCheck(run.world, learner), metrics, lines.append)

        def close():
            saver.__exit__(None, None, None)
            metrics.__exit__(None, None, None)
            run.folder.close()

        request.addfinalizer(close)
        return saver, run, learner, lines

    return build


def save(saver, run, learner, state):
    learner.t = state.iteration
    saver.save(run, state)


def due_at(saver, best=None, **requests):
    return [t for t in range(1, 21) if saver.is_due(RunState(t, best=best), Requests(**requests))]


@pytest.mark.parametrize(
    ("setting", "due"),
    [
        ("checkpoint={every: 6it}", [6, 12, 18, 20]),
        ("checkpoint={every: 20it}", [20]),
        ("checkpoint={every: 1h}", [20]),
        ("checkpoint={every: null}", []),
        ("checkpoint={every: null, best: accuracy}", [20]),
    ],
)
def test_a_checkpoint_is_due_by_iterations_and_at_the_end(saver_of, setting, due):
    saver, *_ = saver_of(setting)
    assert due_at(saver) == due


def test_a_checkpoint_is_due_when_ranks_ask_or_the_run_stops_or_there_is_a_new_best(saver_of):
    saver, run, learner, _ = saver_of("checkpoint={every: null, best: accuracy}")
    everywhere = list(range(1, 21))
    assert due_at(saver, save=True) == due_at(saver, stop=True) == everywhere
    best = Best(1, "test.accuracy", 0.5)
    assert due_at(saver, best) == everywhere
    assert saver.is_due(RunState(3, evaluation_due=True), Requests())
    save(saver, run, learner, RunState(4, best=best))
    assert due_at(saver, best) == [20]  # that best is saved
    assert due_at(saver, best, stop=True) == list(range(5, 21))  # and so are the iterations up to it


def test_the_clock_asks_once_until_it_is_saved(saver_of, monkeypatch):
    saver, run, learner, _ = saver_of("checkpoint={every: 10min}")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 540)
    assert saver.ask() == Requests()
    monkeypatch.setattr(time, "monotonic", lambda: now + 601)
    assert saver.ask() == Requests(save=True)
    assert saver.ask(stop=True) == Requests(stop=True)
    save(saver, run, learner, RunState(3))
    assert saver.ask() == Requests()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1202)
    assert saver.ask() == Requests(save=True)


def test_what_is_saved_is_the_state_and_can_be_read_back(saver_of):
    saver, run, learner, _ = saver_of("checkpoint={every: 5it, best: accuracy}")
    state = RunState(5, best=Best(4, "test.accuracy", 0.5), amendments=(Rewind(2, 0.5, 4),))
    run = run.amended(state)
    learner.rate = run.plan.lr
    saver.record(MetricsLine("train", 5, 1, 0.1, None, {"loss": 1.0}))
    save(saver, run, learner, state)
    saver.wait_until_written()
    (place,) = list_checkpoints(run.folder.path / "checkpoints")
    verify(place)
    manifest = Manifest.of(read_manifest(place), place)
    assert RunState.of(manifest, str(place)) == state
    assert manifest.content["plan"]["lr"] == {str(t): run.plan.lr(t) for t in (4, 5, 6)}
    assert manifest.content["plan"]["fingerprint"] == run.plan.fingerprint()
    assert LearnerState.load(place).parameters["w"].tolist() == [5, 5, 5]
    assert json.loads((place.parent / "best.json").read_text())["set"] == "iteration-000000004"
    assert json.loads((run.folder.path / "metrics.jsonl").read_text())["loss"] == 1.0


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_write_that_fails_is_told_to_all_ranks_or_to_the_user(saver_of, policy):
    saver, run, learner, lines = saver_of(f"checkpoint={{every: 5it, on_failure: {policy}}}")
    shutil.rmtree(run.folder.path / "checkpoints")
    save(saver, run, learner, RunState(5))
    if policy == "continue":
        saver.wait_until_written()
        assert "the checkpoint could not be written" in lines[0]
        assert lines[0].endswith("(continuing, as checkpoint.on_failure says)")
        assert saver.ask() == Requests()
        return
    with pytest.raises(CheckpointError, match="the checkpoint could not be written"):
        saver.wait_until_written()
    assert saver.ask() == Requests(failure=True)  # this is how the other ranks hear of it
    with pytest.raises(CheckpointError, match="the checkpoint could not be written"):
        saver.is_due(RunState(6), Requests(failure=True))
    assert lines == []


def test_weights_that_are_not_finite_do_not_become_the_newest_checkpoint(saver_of):
    saver, run, learner, _ = saver_of()
    learner.is_finite = False
    with pytest.raises(DivergedError):
        save(saver, run, learner, RunState(5))
    saver.wait_until_written()
    assert list_checkpoints(run.folder.path / "checkpoints") == []


def test_where_ranks_have_drifted_apart_nothing_is_written(saver_of, monkeypatch):
    def refuse(check, t, *_):
        raise DisagreementError(f"iteration {t}: the ranks have drifted apart")

    monkeypatch.setattr(ConsistencyCheck, "verify", refuse)
    saver, run, learner, _ = saver_of()
    with pytest.raises(DisagreementError, match="iteration 5: the ranks have drifted apart"):
        save(saver, run, learner, RunState(5))
    saver.wait_until_written()
    assert list_checkpoints(run.folder.path / "checkpoints") == []


def test_after_a_rewind_the_same_iterations_are_saved_again(saver_of):
    saver, run, learner, _ = saver_of("checkpoint={every: 5it}")
    assert saver.newest() is None
    for t in (5, 10):
        save(saver, run, learner, RunState(t))
        saver.record(MetricsLine("train", t, 1, 0.1, None, {"loss": 1.0}))
    newest = saver.newest()
    assert (newest.iteration, newest.here) == (10, True)
    saver.rewound(RunState(5))
    assert learner.num_popped == 1
    assert due_at(saver) == [10, 15, 20]
    (line,) = (run.folder.path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["iteration"] == 5


def test_a_resumed_run_does_not_save_again_what_it_resumed_from_and_repairs_best_json(saver_of):
    saver, run, learner, _ = saver_of("checkpoint={every: 5it, best: accuracy}")
    best = Best(10, "test.accuracy", 0.5)
    save(saver, run, learner, RunState(10, best=best))
    saver.wait_until_written()
    run.folder.close()
    file = run.folder.path / "checkpoints/best.json"
    file.write_text(json.dumps({"set": "iteration-000000015", "iteration": 15, "metric": "test.accuracy", "value": 1}))
    saver, run, *_ = saver_of("checkpoint={every: 5it, best: accuracy}", start=StartOptions(resume="auto"))
    assert run.initial_state == RunState(10, best=best)
    assert json.loads(file.read_text())["set"] == "iteration-000000010"
    assert due_at(saver, best) == [15, 20]
    run.folder.close()
    # in a folder of its own a fork has saved nothing yet
    elsewhere = StartOptions(resume=str(run.folder.path))
    fork, *_ = saver_of("checkpoint={every: 5it, best: accuracy}", "name=fork", start=elsewhere)
    assert fork.is_due(RunState(10, best=best), Requests())


def test_a_best_by_another_metric_is_not_taken_over(saver_of):
    saver, run, learner, _ = saver_of("checkpoint={every: 5it, best: accuracy}")
    save(saver, run, learner, RunState(10, best=Best(10, "test.accuracy", 0.5)))
    saver.wait_until_written()
    run.folder.close()
    _, run, *_ = saver_of("checkpoint={every: 5it, best: loss}", start=StartOptions(resume="auto"))
    assert run.initial_state == RunState(10)
