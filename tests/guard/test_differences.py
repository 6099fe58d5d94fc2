"""Whatever is different on one rank is found, and named with the ranks and both values."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.long

# what is planted on rank 1: what the message has to say
PREFLIGHT = {
    "seed": "configuration: the ranks do not agree:\n  seed: 0 on {others}; 1 on rank 1",
    "learning rate": "lr.base: 0.1 on {others}; 0.11 on rank 1",
    "batch size": "batch.size: 16 on {others}; 8 on rank 1",
    "iterations": "train.iterations: 40 on {others}; 41 on rank 1",
    "optimizer": "optimizer.params.momentum: 0.9 on {others}; 0.8 on rank 1",
    "last batch": "train.last_batch: drop on {others}; keep on rank 1",
    "logging": "log.every: 10it on {others}; 3it on rank 1",
    "own threads": "threads_per_rank: auto on {others}; 2 on rank 1",
    "threads": "configuration.threads_per_rank: 1 on {others}; 2 on rank 1",
    "parameter name": "weight float32 (8, 1, 3, 3) write on {others}; ",
    "parameter order": "parameters[0]: ",
    "pixel": "training data: ",
    "label": "training data: ",
    "version": f"versions.numpy: {np.__version__} on {{others}}; 9.9 on rank 1",
    "code": "code.harness: ",
    "shards": "shard 1: processed by nobody",
    "schedule": "plan.fingerprint: ",
}
DRIFT = {
    "weight": ("parameters: ", "0.weight: "),
    "running statistic": ("parameters: ", "running_mean: "),
    "slot": ("optimizer state: ", "0.weight/0: "),
    "counter": ("counters.update_counts[0]: 20 on {others}; 21 on rank 1",),
    "skipped update": ("parameters: ", "counters.num_update: 20 on {others}; 19 on rank 1"),
    "another rate": ("parameters: ", "0.weight: "),
    "another momentum": ("parameters: ", "optimizer state: "),
}
SETTINGS = (
    "network={name: cnn, params: {channels: [8], hidden: 16, batch_norm: true}}",
    "train={iterations: 40}",
    "batch={size: 16, shards: 4}",
    "lr={base: 0.1, schedule: {constant: {lr: 1x}}}",
    "guard.verify_every=20it",
    "evaluation.every=null",
)
WHATS = [*PREFLIGHT, *DRIFT, "fewer samples", "nothing"]


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.thorough)])
def ended(request, start, tmp_path_factory):
    """How a run with each difference ended on each rank; one job has them all, one after the other."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = ["tests/programs/planted.py", json.dumps(WHATS), *SETTINGS, f"output={folder}"]
    lines = start(*arguments, np=request.param, launcher="mpirun", timeout_s=600).stdout.splitlines()
    found = dict(json.loads(line.removeprefix("ENDED ")) for line in lines if line.startswith("ENDED "))
    assert list(found) == WHATS
    return found


def message(ended, what):
    """What every rank ended with, and the ranks that were not different."""
    everyone = ended[what]
    assert everyone == [everyone[0]] * len(everyone), "each rank ends alike"
    code, text = everyone[0]
    assert code == 5
    return text, "rank 0" if len(everyone) == 2 else "ranks 0, 2, 3"


@pytest.mark.parametrize("what", PREFLIGHT)
def test_before_the_first_update(ended, what):
    text, others = message(ended, what)
    assert PREFLIGHT[what].format(others=others) in text
    assert "iteration " not in text


@pytest.mark.parametrize("what", DRIFT)
def test_by_the_consistency_check_after_the_fact(ended, what):
    text, others = message(ended, what)
    assert "iteration 20: the ranks have drifted apart" in text
    for part in DRIFT[what]:
        assert part.format(others=others) in text
    assert "rank 1" in text


def test_fewer_samples_at_that_very_update(ended):
    text, _ = message(ended, "fewer samples")
    assert re.search("iteration 7: the ranks .* 63 samples, but the global batch has 64", text)


def test_without_a_difference_the_same_job_trains(ended):
    assert set(ended["nothing"]) == {None}


def test_a_difference_ends_a_command_with_5_and_one_message(start, tmp_path):
    text = (ROOT / "configs/digits.yaml").read_text()
    files = [tmp_path / name for name in ("a.yaml", "b.yaml")]
    for seed, file in enumerate(files):
        file.write_text(f"{text}\nseed: {seed}\nname: x\noutput: {tmp_path}\n")
    done = start("tests/programs/other_config.py", *files, "--", np=2, launcher="mpirun", exit_code=5)
    assert done.stderr.count("error: ") == 1  # rank 0 speaks for all
    assert "seed: 0 on rank 0; 1 on rank 1" in done.stderr
    assert "Traceback" not in done.stderr
