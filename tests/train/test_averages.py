"""Averages of weights in whole runs: evaluated, saved, resumed to the bit, written at the end, exported."""

from __future__ import annotations

import json
import re

import mxnet as mx
import pytest

from harness.checkpoint import read_arrays
from harness.cli.checkpoint import export
from harness.comm import SingleWorld
from harness.config import load_config
from harness.errors import CheckpointError, ConfigError, StoppedOnRequestError
from harness.gluon import LearnerState
from harness.train.build import build_learner
from harness.train.loop import train
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions

TOTAL = 12
SETTINGS = (
    "network={name: cnn, params: {channels: [4], hidden: 8, batch_norm: true}}",
    "batch={size: 16, shards: 2}",
    f"train={{iterations: {TOTAL}}}",
    "checkpoint={every: 3it, keep: 20}",
    "evaluation={every: 4it, metrics: [accuracy]}",
    "log={every: 1it, tensorboard: false}",
    "threads_per_rank=1",
)
EMA = "ema={decay: 0.8, every: 2it, after: 4it}"
SWA = "swa={every: 2it, after: 4it, over: 3it}"
BOTH = pytest.mark.parametrize(("kind", "setting"), [("ema", EMA), ("swa", SWA)], ids=["ema", "swa"])


@pytest.fixture
def run_of(tmp_path, request):
    def build(name, *settings, resume="never", on_conflict="error"):
        words = [*SETTINGS, f"output={tmp_path}", f"name={name}", *settings]
        config = load_config("configs/digits.yaml", words)
        start = StartOptions(resume=str(resume), on_conflict=on_conflict)
        run = prepare_run(config, SingleWorld(), threads=1, start=start)
        request.addfinalizer(run.folder.close)
        return run

    return build


def at(run, t):
    return run.folder.path / f"checkpoints/iteration-{t:09d}"


def evaluations_of(run):
    lines = map(json.loads, (run.folder.path / "metrics.jsonl").read_text().splitlines())
    return {
        (line["split"], line["iteration"]): line["loss"] for line in lines if line["split"] not in ("train", "digest")
    }


def same(one, other):
    return one.keys() == other.keys() and all((array == other[name]).all() for name, array in one.items())


@BOTH
def test_it_is_evaluated_beside_the_weights_saved_and_written_at_the_end(run_of, kind, setting):
    plain = run_of("plain")
    train(plain, "error")
    run = run_of("run", setting)
    results = train(run, "error")
    assert list(evaluations_of(run)) == [
        ("test", 4),
        ("test", 8),
        (f"test_{kind}", 8),
        ("test", TOTAL),
        (f"test_{kind}", TOTAL),
    ]
    assert set(results) == {"test.loss", "test.accuracy", f"test_{kind}.loss", f"test_{kind}.accuracy"}
    assert {t: loss for (split, t), loss in evaluations_of(run).items() if split == "test"} == {
        t: loss for (_, t), loss in evaluations_of(plain).items()
    }
    for t in range(3, TOTAL + 1, 3):
        arrays, expected = read_arrays(at(run, t)), read_arrays(at(plain, t))
        assert ("averages" in arrays) == (t > 4)
        assert same(arrays["parameters"], expected["parameters"])
        assert same(arrays["slots"], expected["slots"])
    weights, averages = (mx.nd.load(str(run.folder.path / name)) for name in ("final.params", f"final_{kind}.params"))
    assert same({name: array.asnumpy() for name, array in weights.items()}, read_arrays(at(run, TOTAL))["parameters"])
    assert same({name: array.asnumpy() for name, array in averages.items()}, read_arrays(at(run, TOTAL))["averages"])
    assert not (plain.folder.path / f"final_{kind}.params").exists()


@BOTH
def test_instead_of_the_weights_it_has_their_name_and_decides(run_of, kind, setting):
    beside = run_of("beside", setting, "checkpoint.best=loss")
    train(beside, "error")
    instead = run_of("instead", setting, f"{kind}.evaluate=instead", "checkpoint.best=loss")
    train(instead, "error")
    losses = evaluations_of(beside)
    averaged = {("test", t): losses[f"test_{kind}" if t > 4 else "test", t] for t in (4, 8, TOTAL)}
    assert evaluations_of(instead) == averaged
    assert LearnerState.load(at(instead, TOTAL)).digest() == LearnerState.load(at(beside, TOTAL)).digest()
    best = json.loads((instead.folder.path / "checkpoints/best.json").read_text())
    assert best["value"] == min(averaged.values())


@BOTH
def test_a_run_that_resumes_has_the_bits_of_the_unbroken_one(run_of, kind, setting):
    run = run_of("run", setting)
    train(run, "error")
    for t in (3, 6, 9):
        fork = run_of(f"fork_{t}", setting, resume=at(run, t))
        train(fork, "error")
        assert LearnerState.load(at(fork, TOTAL)).digest() == LearnerState.load(at(run, TOTAL)).digest()
        assert evaluations_of(fork) == {key: loss for key, loss in evaluations_of(run).items() if key[1] > t}


def test_statistics_are_recomputed_where_it_is_evaluated_and_saved_with_it(run_of):
    run = run_of("run", SWA)
    train(run, "error")
    plain = run_of("plain", SWA, "swa.statistics=latest", "swa.over=null")
    train(plain, "error")
    # updates of the mean after 6, 8, 10 and 12; evaluations after 8 and 12
    kept = {t: LearnerState.load(at(run, t)).numbers["average"] for t in (6, 9, TOTAL)}
    assert kept == {
        t: {"kind": "swa", "num_updates": n, "statistics": how}
        for t, n, how in ((6, 1, "latest"), (9, 2, "recomputed"), (TOTAL, 4, "recomputed"))
    }
    for t in (6, 9, TOTAL):
        found, latest = read_arrays(at(run, t))["averages"], read_arrays(at(plain, t))["averages"]
        differ = {name for name, array in found.items() if not (array == latest[name]).all()}
        assert differ == ({"1.running_mean", "1.running_var"} if t > 6 else set())
    assert evaluations_of(run)["test", TOTAL] == evaluations_of(plain)["test", TOTAL]
    assert evaluations_of(run)["test_swa", TOTAL] != evaluations_of(plain)["test_swa", TOTAL]
    # of the same 3 batches as in a loop of one's own, in which nothing was trained before
    learner = build_learner(run_of("own", SWA))
    learner.restore(LearnerState.load(at(plain, TOTAL)))
    with run.stream() as stream:
        assert learner.recompute_statistics(stream, 3)
    assert same(learner.snapshot().averages, read_arrays(at(run, TOTAL))["averages"])


def test_by_default_statistics_are_of_an_epoch(run_of):
    run = run_of("run", "swa={every: 2it, after: 4it}", "train.iterations=6", "evaluation.every=6it")
    seen = []

    def stream(t):
        seen.append(t)
        return batches(t)

    learner = build_learner(run)
    with run.stream() as batches:
        for t in range(1, 7):
            learner.update(batches(t), 0.1)
        assert run.recompute_statistics(learner, stream)
    assert seen == list(range(1, 1437 // 32 + 1))


def test_a_run_that_is_told_to_stop_meanwhile_recomputes_later_to_the_same_bits(run_of, monkeypatch):
    run = run_of("run", SWA)
    train(run, "error")
    stopped = run_of("stopped", SWA)
    entered = []

    class Told(type(stopped.guard)):
        @property
        def stop_requested(self):
            return entered.count("statistics of the averaged weights") == 2

        def enter(self, activity, kind="update"):
            entered.append(activity)

    monkeypatch.setattr(stopped.guard, "__class__", Told)
    with pytest.raises(StoppedOnRequestError, match="iteration 8"):
        train(stopped, "error")
    resumed = run_of("stopped", SWA, resume="auto")
    assert resumed.initial_state.evaluation_due
    train(resumed, "error")
    assert LearnerState.load(at(resumed, TOTAL)).digest() == LearnerState.load(at(run, TOTAL)).digest()
    assert evaluations_of(resumed) == evaluations_of(run)


def test_it_may_be_taken_up_or_given_up_on_the_way(run_of):
    run, plain = run_of("run", EMA), run_of("plain")
    train(run, "error")
    train(plain, "error")
    without = run_of("without", resume=at(run, 6), on_conflict="config")
    train(without, "error")
    assert LearnerState.load(at(without, TOTAL)).digest() == LearnerState.load(at(plain, TOTAL)).digest()
    late = run_of("late", EMA, resume=at(plain, 6), on_conflict="config")
    train(late, "error")  # which begins with the weights of the next iteration that is due
    weights = read_arrays(at(plain, TOTAL))["parameters"]
    found = read_arrays(at(late, TOTAL))
    assert same(found["parameters"], weights)
    assert not same(found["averages"], read_arrays(at(run, TOTAL))["averages"])
    other = run_of("other", SWA, resume=at(run, 6), on_conflict="config")
    train(other, "error")  # which is no moving average, and begins anew
    assert LearnerState.load(at(other, TOTAL)).numbers["average"]["num_updates"] == 3


@pytest.mark.parametrize(
    ("average", "message"),
    [
        (
            "ema={after: 12it}",
            "ema: has no effect: by every (1it) and after (12it) it would begin with iteration 13, and the run has 12; "
            "lower them, or remove ema",
        ),
        (
            "ema={every: 8it, after: 50%}",
            None,
        ),
        (
            "swa={}",
            "swa: has no effect: by every (1ep) and after (75%) it would begin with iteration 44, and the run has 12; "
            "lower them, or remove swa",
        ),
        (
            "ema={every: 20it}",
            "ema: has no effect: by every (20it) and after (0it) it would begin with iteration 20, and the run has 12; "
            "lower them, or remove ema",
        ),
    ],
)
def test_one_that_would_not_begin_is_refused(run_of, average, message):
    run = run_of("run", average)
    if message is None:
        train(run, "error")
        return
    with pytest.raises(ConfigError) as refused:
        train(run, "error")
    assert str(refused.value) == f"configs/digits.yaml: {message}"
    assert not run.folder.path.exists()


def test_ranks_have_the_average_of_one_process(start, tmp_path, run_of):
    more = "batch.shards=3", "guard.verify_every=2it"
    alone = run_of("alone", SWA, *more)
    train(alone, "error")
    expected = LearnerState.load(at(alone, TOTAL)).digest()
    for np_ in (2, 3):
        words = [
            word for one in (*SETTINGS, SWA, *more, f"output={tmp_path}", f"name=np{np_}") for word in ("--set", one)
        ]
        done = start("launch/train.py", *words, np=np_)
        assert re.search(r"digest ([0-9a-f]{64})", done.stdout)[1] == expected


@BOTH
def test_it_is_exported(run_of, tmp_path, capsys, kind, setting):
    run = run_of("run", setting)
    train(run, "error")
    export(run.folder.path, tmp_path / "a.params", average=True)
    statistics = {"ema": "averaged", "swa": "recomputed"}[kind]
    said = f"iteration-000000012, averaged ({kind} of 4 updates, running statistics: {statistics})\n"
    assert capsys.readouterr().out.endswith(said)
    exported = {name: array.asnumpy() for name, array in mx.nd.load(str(tmp_path / "a.params")).items()}
    assert same(exported, read_arrays(at(run, TOTAL))["averages"])
    with pytest.raises(CheckpointError, match=r"holds no average of its weights \(ema, swa\); leave out --average for"):
        export(at(run, 3), tmp_path / "b.params", average=True)
