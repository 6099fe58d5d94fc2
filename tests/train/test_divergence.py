"""NaN in one shard at iteration 50: stop, skip and rewind do what they say, on both ranks."""

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


def test_skipping_is_bounded(train):
    _, _, outcome, _ = train("{policy: skip, at_most: 1}", "train={iterations: 400}")
    assert outcome["exit_code"] == 6
    assert "not finite in 2 updates, and guard.divergence.at_most leaves out 1" in outcome["cause"]


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


def test_a_rewound_run_can_be_stopped_and_gone_on_with(train):
    """Rates so high that the run diverges; after a rewind it goes through, and its set knows the cut."""
    two = "schedules: [{constant: {lr: 0.05}}, {constant: {lr: 5e+10}}], boundaries: [25it]"
    wild = f"lr={{base: null, schedule: {{sequential: {{{two}}}}}}}"
    policy = "{policy: rewind, at_most: 9, lr_factor: 1e-8}"
    text, folder, outcome, _ = train(policy, wild, bad="none")
    assert outcome["exit_code"] == 0, text
    state = json.loads((newest(folder) / "manifest.json").read_text())["state"]
    assert [amendment["choice"] for amendment in state["amendments"]] == ["rewind"] * len(state["amendments"])
    assert state["amendments"][0]["iteration"] == 20
    digest = re.search(r"digest ([0-9a-f]{64})", text)[1]
    for path in list_checkpoints(folder / "checkpoints"):
        if path.name > "iteration-000000040":
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    text, _, outcome, _ = train(policy, wild, options=("--resume", "auto"), bad="none")
    assert outcome["exit_code"] == 0, text
    assert re.search(r"digest ([0-9a-f]{64})", text)[1] == digest


def test_a_rewind_before_the_first_set_goes_to_the_beginning(train):
    policy = "{policy: rewind, at_most: 1, lr_factor: 0.5}"
    text, _, outcome, lines = train(policy, "checkpoint={every: null}")
    assert outcome["exit_code"] == 6
    assert "rewound to iteration 0 (1 of at most 1), learning rates x 0.5 from here" in text
    assert sorted(rates(lines)) == list(range(1, ITERATION))
