"""A momentum opposite to the learning rate, in runs: of SGD, and beta1 of Adam; one digest on any ranks and resumed."""

from __future__ import annotations

import json
import re

import pytest

from harness.config import LRConfig
from harness.data import Batching
from harness.plan import LRPlan, Sizes

BASE = ("network={name: mlp, params: {hidden: [8]}}", "batch={size: 16, shards: 2}", "train={iterations: 24}")
SCHEDULE = {"rise_and_fall": {"start_lr": "0.04x", "max_lr": "1x", "end_lr": "0.001x", "cycle_length": "100%"}}
LR = {"base": 0.02, "warmup": {"length": "4it", "start": 0.001, "shape": "cosine"}, "schedule": SCHEDULE}
LR["momentum"] = {"opposite": {"high": 0.95, "low": 0.75}}
OPTIMIZERS = {
    "sgd": "{name: sgd, params: {momentum: 0.9}}",
    "adam": "{name: adam, params: {}}",
    "adamw": "{name: adamw, params: {wd: 0.1}}",
    "lamb": "{name: lamb, params: {}}",
}


@pytest.fixture
def train(launch, tmp_path):
    def run(optimizer, *settings, folder="runs", options=(), **more):
        shared = (*BASE, "threads_per_rank=1", f"optimizer={OPTIMIZERS[optimizer]}", f"lr={json.dumps(LR)}")
        words = [word for setting in (*shared, *settings) for word in ("--set", setting)]
        return launch("launch/train.py", *options, *words, "--set", f"output={tmp_path / folder}", **more)

    return run


def digest(done):
    return re.search(r"digest ([0-9a-f]{64})", done.stdout)[1]


def planned():
    sizes = Sizes(Batching(num_samples=1437, shards=2, batch_size=16), num_iterations=24)
    return LRPlan(LRConfig.model_validate(LR), sizes)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_digest_on_any_ranks_and_resumed(train, tmp_path, optimizer):
    expected = digest(train(optimizer, "log.every=1it"))
    lines = [json.loads(line) for line in (tmp_path / "runs/digits/metrics.jsonl").read_text().splitlines()]
    plan = planned()
    applied = {line["iteration"]: line["momentum"] for line in lines if line["split"] == "train"}
    assert applied == {t: plan.momentum(t) for t in range(1, 25)}
    assert digest(train(optimizer, "lr.momentum=0.9", folder="constant")) != expected
    # interrupted after 7 updates, where the momentum is between its two ends
    two = train(optimizer, "checkpoint={every: 7it, keep: 5}", folder="resumed", np=2, launcher="mpirun")
    assert digest(two) == expected
    checkpoint = tmp_path / "resumed/digits/checkpoints/iteration-000000007"
    resumed = train(optimizer, "name=again", options=["--resume", str(checkpoint)])
    assert digest(resumed) == expected
