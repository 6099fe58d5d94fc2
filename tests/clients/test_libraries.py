"""The programs of examples/clients, which train the models of Gluon's libraries: one digest, wherever they run."""

from __future__ import annotations

import functools
import json
import re

import pytest

from tests.conftest import ROOT

# what each reports in the end, and from where on it has learnt something
LEARNT = {
    "awd_lstm": ("test.perplexity", lambda perplexity: perplexity < 5),
    "bert": ("test.accuracy", lambda accuracy: accuracy > 0.9),
    "deepar": ("test.loss", lambda loss: loss < 3.5),
    "ssd": ("test.voc07.mAP", lambda precision: precision > 0.05),
    "transformer": ("test.bleu", lambda score: score > 40),
}
each = pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in LEARNT])


def trained(start, name, output, *arguments, **more):
    """What a run printed."""
    settings = ("--set", f"output={output}", "--set", "threads_per_rank=1")
    words = ["launch/train.py", "--config", f"examples/clients/{name}.yaml", *settings, *arguments]
    return start(*words, timeout_s=600, **more).stdout


def digest_of(output):
    (digest,) = re.findall(r"done after \d+ iterations, digest ([0-9a-f]{64})", output)
    return digest


@pytest.fixture(scope="module")
def trained_alone(start, tmp_path_factory):
    """A client's digest and folder, trained in one process when it is first asked for."""

    @functools.cache
    def run(name):
        folder = tmp_path_factory.mktemp(name)
        printed = trained(start, name, folder, "--set", "checkpoint.keep=20")
        assert "cannot be compiled" not in printed
        return digest_of(printed), folder / name

    return run


def evaluations(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == "test"]


@each
def test_it_learns(trained_alone, name):
    _, run = trained_alone(name)
    key, has_learnt = LEARNT[name]
    assert has_learnt(evaluations(run)[-1][key.removeprefix("test.")])


@each
@pytest.mark.parametrize(("launcher", "ranks"), [("mpirun", 2), ("mpirun", 4), ("horovodrun", 2)])
def test_on_any_number_of_ranks(start, tmp_path, trained_alone, name, launcher, ranks):
    digest, run = trained_alone(name)
    assert digest_of(trained(start, name, tmp_path, np=ranks, launcher=launcher)) == digest
    without_time = [
        [{key: value for key, value in line.items() if key != "time"} for line in evaluations(place)]
        for place in (run, tmp_path / name)
    ]
    assert without_time[0] == without_time[1]


@each
@pytest.mark.parametrize("ranks", [None, 2])
def test_resumed_in_the_middle(start, tmp_path, trained_alone, name, ranks):
    digest, run = trained_alone(name)
    checkpoints = sorted((run / "checkpoints").iterdir())
    middle = checkpoints[len(checkpoints) // 2 - 1]
    more = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    assert digest_of(trained(start, name, tmp_path, "--resume", middle, **more)) == digest


@each
def test_the_finder_puts_everything_back(start, tmp_path, name):
    words = ["--config", f"examples/clients/{name}.yaml", "--set", f"output={tmp_path}", "--set", "threads_per_rank=1"]
    words += ["--set", "finder={max_iterations: 16, min_iter: 4}"]
    printed = [
        start("launch/find_lr.py", *words, **more, exit_code=None, timeout_s=600).stdout
        for more in ({}, {"np": 2, "launcher": "mpirun"})
    ]
    told = [re.findall(r"state restored: digest \w+ unchanged", one) for one in printed]
    assert len(told[0]) == 1
    assert told[0] == told[1]


@each
def test_it_is_short(name):
    assert len((ROOT / f"examples/clients/{name}.py").read_text().splitlines()) < 150
