"""NaN in one shard at iteration 50: both ranks stop, skip or rewind alike; test_not_finite.py has one process."""

from __future__ import annotations

import json
import re

import pytest

from harness.checkpoint import list_checkpoints, newest_valid
from harness.data import Order

ITERATION = 50
SETTINGS = (
    "data={name: 'tests.programs.own:data_of_rank', augment: {pad_crop: 0, flip: false}}",
    "network={name: 'tests.programs.own:normed', params: {}}",
    "batch={size: 32, shards: 2}",
    "train={iterations: 62}",  # one epoch, so the bad item is met once
    "checkpoint={every: 20it, keep: 9}",
    "evaluation={every: 20it, metrics: [accuracy]}",
    "lr={base: 0.1, schedule: {cosine: {max_lr: 1x, min_lr: 0, cycle_length: 100%}}}",
    "log.every=1it",
    "threads_per_rank=1",
)
BAD_ITEM = str(int(Order(4000, shards=2, batch_size=32, seed=0).shard_indices(ITERATION, shard=1)[3]))


@pytest.fixture
def train(start, tmp_path):
    def run(policy, *settings, np=2, options=(), exit_code=None, bad=BAD_ITEM):
        words = [word for s in (*SETTINGS, f"guard.divergence={policy}", *settings) for word in ("--set", s)]
        output = ("--set", f"output={tmp_path}")
        done = start("launch/train.py", *words, *output, *options, np=np, exit_code=exit_code, BAD_ITEM=bad)
        folder = tmp_path / "digits"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return done.stdout + done.stderr, folder, json.loads((folder / "outcome.json").read_text()), lines

    return run


def newest(folder):
    return newest_valid(list_checkpoints(folder / "checkpoints")).newest


def rates(lines):
    return {line["iteration"]: line["lr"] for line in lines if line["split"] == "train"}


def test_stop_leaves_the_last_good_set_the_newest(train):
    text, folder, outcome, lines = train("{policy: stop}")
    assert outcome["exit_code"] == 6
    assert f"iteration {ITERATION}: the loss is " in outcome["cause"]
    assert newest(folder).name == "iteration-000000040"
    assert lines[-1]["iteration"] == ITERATION - 1
    assert text.count("error: ") == 1
    assert not (folder / "final.params").exists()


def test_skip_is_as_if_the_update_had_not_been(train, start):
    text, folder, outcome, lines = train("{policy: skip}")
    assert outcome["exit_code"] == 0
    assert f"iteration {ITERATION}: loss or gradient were not finite; skipped the update (1 of at most 10)" in text
    assert [line["iteration"] for line in lines if line["split"] == "skipped"] == [ITERATION]
    done = start(
        "tests/programs/leave_one_out.py", ITERATION, "configs/digits.yaml", *SETTINGS, np=2, BAD_ITEM=BAD_ITEM
    )
    without = re.search(r"digest ([0-9a-f]{64})", done.stdout)[1]
    assert re.search(r"digest ([0-9a-f]{64})", text)[1] == without
    assert json.loads((newest(folder) / "manifest.json").read_text())["state"]["skipped"] == 1


def test_rewind_goes_back_and_cuts_the_rate_until_it_was_often_enough(train):
    """The bad item is met again every time: after two rewinds the run ends with 6."""
    _, _, outcome, lines = train("{policy: rewind, at_most: 2, lr_factor: 0.25}")
    assert outcome["exit_code"] == 6
    assert "after 2 rewinds" in outcome["cause"]
    plain = {t: rate for t, rate in rates(lines).items() if t <= 40}
    again = {t: rate for t, rate in rates(lines).items() if t > 40}
    assert sorted(plain) == list(range(1, 41))
    assert sorted(again) == list(range(41, ITERATION))
    _, _, _, good = train("{policy: stop}", options=("--overwrite",), bad="none")
    for t, rate in rates(good).items():
        if t < ITERATION:
            assert rates(lines)[t] == (rate if t <= 40 else rate * 0.25 * 0.25)
    rewinds = [line for line in lines if line["split"] == "rewind"]
    assert [(line["iteration"], line["diverged_at"]) for line in rewinds] == [(40, ITERATION)] * 2
