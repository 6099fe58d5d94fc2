"""The moving average of weights in whole runs: evaluated, saved, resumed to the bit, written at the end, exported."""

from __future__ import annotations

import json
import re

import mxnet as mx
import pytest

from harness.checkpoint import read_arrays
from harness.cli.checkpoint import export
from harness.comm import SingleWorld
from harness.config import load_config
from harness.errors import CheckpointError, ConfigError
from harness.gluon import LearnerState
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


def test_it_is_evaluated_beside_the_weights_saved_and_written_at_the_end(run_of):
    plain = run_of("plain")
    train(plain, "error")
    run = run_of("run", EMA)
    results = train(run, "error")
    assert list(evaluations_of(run)) == [
        ("test", 4),
        ("test", 8),
        ("test_ema", 8),
        ("test", TOTAL),
        ("test_ema", TOTAL),
    ]
    assert set(results) == {"test.loss", "test.accuracy", "test_ema.loss", "test_ema.accuracy"}
    assert {t: loss for (split, t), loss in evaluations_of(run).items() if split == "test"} == {
        t: loss for (_, t), loss in evaluations_of(plain).items()
    }
    for t in range(3, TOTAL + 1, 3):
        arrays, expected = read_arrays(at(run, t)), read_arrays(at(plain, t))
        assert ("averages" in arrays) == (t > 4)
        assert same(arrays["parameters"], expected["parameters"])
        assert same(arrays["slots"], expected["slots"])
    weights, averages = (mx.nd.load(str(run.folder.path / name)) for name in ("final.params", "final_ema.params"))
    assert same({name: array.asnumpy() for name, array in weights.items()}, read_arrays(at(run, TOTAL))["parameters"])
    assert same({name: array.asnumpy() for name, array in averages.items()}, read_arrays(at(run, TOTAL))["averages"])
    assert not (plain.folder.path / "final_ema.params").exists()


def test_instead_of_the_weights_it_has_their_name_and_decides(run_of):
    beside = run_of("beside", EMA, "checkpoint.best=loss")
    train(beside, "error")
    instead = run_of("instead", EMA, "ema.evaluate=instead", "checkpoint.best=loss")
    train(instead, "error")
    losses = evaluations_of(beside)
    averaged = {("test", t): losses["test_ema" if t > 4 else "test", t] for t in (4, 8, TOTAL)}
    assert evaluations_of(instead) == averaged
    assert LearnerState.load(at(instead, TOTAL)).digest() == LearnerState.load(at(beside, TOTAL)).digest()
    best = json.loads((instead.folder.path / "checkpoints/best.json").read_text())
    assert best["value"] == min(averaged.values())


@pytest.mark.parametrize("t", [3, 6, 9])
def test_a_run_that_resumes_has_the_bits_of_the_unbroken_one(run_of, t):
    run = run_of("run", EMA)
    train(run, "error")
    fork = run_of("fork", EMA, resume=at(run, t))
    train(fork, "error")
    assert LearnerState.load(at(fork, TOTAL)).digest() == LearnerState.load(at(run, TOTAL)).digest()
    assert evaluations_of(fork) == {key: loss for key, loss in evaluations_of(run).items() if key[1] > t}


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


@pytest.mark.parametrize(
    ("ema", "message"),
    [
        (
            "{after: 12it}",
            "ema: has no effect: by every (1it) and after (12it) it would begin with iteration 13, and the run has 12; "
            "lower them, or remove ema",
        ),
        (
            "{every: 8it, after: 50%}",
            None,
        ),
        (
            "{every: 20it}",
            "ema: has no effect: by every (20it) and after (0it) it would begin with iteration 20, and the run has 12; "
            "lower them, or remove ema",
        ),
    ],
)
def test_one_that_would_not_begin_is_refused(run_of, ema, message):
    run = run_of("run", f"ema={ema}")
    if message is None:
        train(run, "error")
        return
    with pytest.raises(ConfigError) as refused:
        train(run, "error")
    assert str(refused.value) == f"configs/digits.yaml: {message}"
    assert not run.folder.path.exists()


def test_two_ranks_have_the_average_of_one_process(start, tmp_path):
    digests = []
    for np_, options in ((2, []), (None, ["--emulate-np", "2"])):
        words = [word for one in (*SETTINGS, EMA, f"output={tmp_path}", f"name=np{np_}") for word in ("--set", one)]
        done = start("launch/train.py", *words, "--set", "guard.verify_every=2it", *options, np=np_)
        digests.append(re.search(r"digest ([0-9a-f]{64})", done.stdout)[1])
    assert digests[0] == digests[1]


def test_it_is_exported(run_of, tmp_path, capsys):
    run = run_of("run", EMA)
    train(run, "error")
    export(run.folder.path, tmp_path / "a.params", ema=True)
    assert capsys.readouterr().out.endswith("iteration-000000012, averaged\n")
    exported = {name: array.asnumpy() for name, array in mx.nd.load(str(tmp_path / "a.params")).items()}
    assert same(exported, read_arrays(at(run, TOTAL))["averages"])
    with pytest.raises(CheckpointError, match=r"holds no average of its weights \(ema\); leave out --ema for the wei"):
        export(at(run, 3), tmp_path / "b.params", ema=True)
