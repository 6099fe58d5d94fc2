"""Whatever is different on one rank is found, and named with the ranks and both values."""

from __future__ import annotations

import os

import pytest

THOROUGH = os.environ.get("HARNESS_THOROUGH") == "1"
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
    "version": "versions.numpy: 1.23.5 on {others}; 9.9 on rank 1",
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
)
NPS = (2, 4) if THOROUGH else (2,)


@pytest.fixture
def planted(start, tmp_path):
    def run(what, np):
        words = [word for setting in (*SETTINGS, f"output={tmp_path}") for word in ("--set", setting)]
        done = start("tests/programs/planted.py", what, *words, np=np, exit_code=1)
        assert "Exit code: 5" in done.stderr
        assert "<stderr>:Traceback" not in done.stderr
        text = "\n".join(line.partition(">:")[2] for line in done.stderr.splitlines())
        assert text.count("error: ") == 1, text  # rank 0 speaks for all
        return text, "rank 0" if np == 2 else "ranks 0, 2, 3"

    return run


@pytest.mark.parametrize(("what", "np"), [(what, np) for what in PREFLIGHT for np in NPS])
def test_before_the_first_update(planted, what, np):
    text, others = planted(what, np)
    assert PREFLIGHT[what].format(others=others) in text
    assert "iteration" not in text.partition("error: ")[0]


@pytest.mark.parametrize(("what", "np"), [(what, np) for what in DRIFT for np in NPS])
def test_by_the_consistency_check_after_the_fact(planted, what, np):
    text, others = planted(what, np)
    assert "iteration 20: the ranks have drifted apart" in text
    for part in DRIFT[what]:
        assert part.format(others=others) in text
    assert "rank 1" in text


@pytest.mark.parametrize("np", NPS)
def test_fewer_samples_at_that_very_update(planted, np):
    text, _ = planted("fewer samples", np)
    assert "iteration 7: the ranks played 63 samples, but the global batch has 64" in text
