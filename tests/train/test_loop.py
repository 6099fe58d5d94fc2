"""The loop in this process: what happens after which update, and that a stop anywhere resumes to the same bits."""

from __future__ import annotations

import json

import pytest

from harness.checkpoint import Manifest, list_checkpoints, newest_valid, read_manifest
from harness.errors import StoppedOnRequestError
from harness.gluon import LearnerState
from harness.guard import ConsistencyCheck, Unguarded
from harness.train.loop import train
from harness.train.state import RunState
from tests.train.runs import run_builder

TOTAL = 14
SETTINGS = (
    "network={name: mlp, params: {hidden: [8]}}",
    "batch.shards=1",
    f"train={{iterations: {TOTAL}}}",
    "checkpoint={every: 5it, keep: 9, best: accuracy}",
    "evaluation={every: 4it, metrics: [accuracy]}",
    "log={every: 3it, tensorboard: false}",
    "guard.divergence.policy=skip",  # so that one process, too, waits for an update and hears of a stop with it
    "threads_per_rank=1",
)


class Stopper(Unguarded):
    """Notes where the run is, and is told to stop when it comes to a place."""

    def __init__(self, where=None):
        self.where, self.places, self.was_told = where, [], False

    def enter(self, where, kind="update"):
        self.places.append((where, kind))
        self.was_told |= where == self.where

    @property
    def stop_requested(self):
        return self.was_told


@pytest.fixture
def run_of(tmp_path, request):
    return run_builder(SETTINGS, tmp_path, request)


def checkpoints(run):
    return [int(path.name[-9:]) for path in list_checkpoints(run.folder.path / "checkpoints")]


def newest_state(run):
    path = newest_valid(list_checkpoints(run.folder.path / "checkpoints")).newest
    return RunState.of(Manifest.of(read_manifest(path), path), str(path))


def metrics_of(run):
    clocks = ("time", "images_per_s")
    lines = map(json.loads, (run.folder.path / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


def result_of(run):
    """Every bit and number that an unbroken and a resumed run have to have in common."""
    last = run.folder.path / f"checkpoints/iteration-{TOTAL:09d}"
    return LearnerState.load(last).digest(), newest_state(run), metrics_of(run)


@pytest.fixture
def unbroken(run_of):
    run = run_of("unbroken")
    train(run, "error")
    return run


def test_what_is_logged_evaluated_and_saved_after_which_update(run_of):
    guard = Stopper()
    run = run_of("run", "data.validation=100", guard=guard)
    results = train(run, "error")
    lines = metrics_of(run)
    assert [line["iteration"] for line in lines if line["split"] == "train"] == [1, 3, 6, 9, 12, TOTAL]
    assert [line["iteration"] for line in lines if line["split"] == "validation"] == [4, 8, 12, TOTAL]
    assert [line["iteration"] for line in lines if line["split"] == "test"] == [TOTAL]  # only the end is tested
    assert all(line["lr"] == run.plan.lr(line["iteration"]) for line in lines)
    accuracies = {line["iteration"]: line["accuracy"] for line in lines if line["split"] == "validation"}
    assert results["validation.accuracy"] == accuracies[TOTAL]
    best = newest_state(run).best
    assert (best.metric, best.value) == ("validation.accuracy", max(accuracies.values()))
    assert accuracies[best.iteration] == best.value
    # every 5, at the end, and where the best so far was met
    running = [t for t in accuracies if accuracies[t] > max((accuracies[s] for s in accuracies if s < t), default=-1)]
    assert checkpoints(run) == sorted({5, 10, TOTAL, *running})
    updates = [place for place in guard.places if place[0].startswith("iteration")]
    assert updates == [(f"iteration {t}", "first" if t == 1 else "update") for t in range(1, TOTAL + 1)]
    assert guard.places[-1] == ("the end", "evaluation")


@pytest.mark.parametrize("at", [1, 5, 7, 8, 13, TOTAL])
def test_a_stop_is_saved_and_resumes_to_the_bits_and_metrics_of_an_unbroken_run(run_of, unbroken, at):
    stopped = run_of("run", guard=Stopper(f"iteration {at}"))
    with pytest.raises(StoppedOnRequestError, match=f"saved after iteration {at}; start it again with --resume auto"):
        train(stopped, "error")
    stopped.folder.close()
    state = newest_state(stopped)
    assert state.iteration == at
    assert state.evaluation_due == (at in (4, 8, 12, TOTAL))  # whoever stops has no time to evaluate
    resumed = run_of("run", resume="auto")
    assert resumed.initial_state == state
    results = train(resumed, "error")
    assert set(results) == {"test.loss", "test.accuracy"}
    if at < TOTAL:
        assert result_of(resumed) == result_of(unbroken)
    assert metrics_of(resumed) == metrics_of(unbroken)


def test_ranks_are_compared_every_so_often_and_after_the_last_update(run_of, monkeypatch):
    compared = []
    monkeypatch.setattr(ConsistencyCheck, "verify", lambda check, t, *_: compared.append(t))
    train(run_of("run", "guard.verify_every=4it", "checkpoint={every: null}"), "error")
    assert compared == [4, 8, 12, TOTAL]


def test_an_evaluation_that_was_left_can_be_left_again(run_of):
    small = "batch.size=8"  # ranks ask each other every 32 batches
    run = run_of("run", small, guard=Stopper("iteration 8"))
    with pytest.raises(StoppedOnRequestError):
        train(run, "error")
    run.folder.close()
    again = run_of("run", small, guard=Stopper("evaluation on test"), resume="auto")
    with pytest.raises(StoppedOnRequestError, match="iteration 8 is saved; start it again with --resume auto"):
        train(again, "error")
    assert newest_state(again) == again.initial_state
    assert again.initial_state.evaluation_due


def test_a_run_that_is_done_has_nothing_left_to_do(run_of, unbroken):
    before = metrics_of(unbroken)
    unbroken.folder.close()
    again = run_of("unbroken", resume="auto")
    assert train(again, "error") == {}
    assert metrics_of(again) == before
