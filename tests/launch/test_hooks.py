"""Hooks on two ranks: rank 0 alone has them, and what they ask for happens on both after the same update."""

from __future__ import annotations

import json
import re

import pytest

from harness.checkpoint import list_checkpoints

OWN = "tests.programs.own_hooks"
SETTINGS = (
    "network={name: mlp, params: {hidden: [8], dropout: 0.5}}",
    "batch={size: 8, shards: 2}",
    "train={iterations: 12}",
    "lr={base: null, schedule: 0.1}",
    "evaluation={every: 4it}",
    "checkpoint={every: 5it}",
    "log={every: 1it, tensorboard: false}",
    "threads_per_rank=1",
)


@pytest.fixture
def trained(start, tmp_path):
    def run(name, *settings, np=2, resume=(), exit_code=0):
        words = [
            word for one in (*SETTINGS, f"output={tmp_path}", f"name={name}", *settings) for word in ("--set", one)
        ]
        done = start("launch/train.py", *words, *resume, np=np, launcher="mpirun", exit_code=exit_code)
        return done.stdout + done.stderr

    return run


def digest_in(text):
    return re.search("digest ([0-9a-f]{64})", text)[1]


def test_they_ask_and_both_ranks_act_and_end_with_the_bits_of_one_without(trained, tmp_path):
    told = tmp_path / "told"
    keep = f"{{'{OWN}:keep': {{path: '{told}'}}}}"
    asking = f"{{'{OWN}:ask': {{at: 2, save: true}}}}, {{'{OWN}:ask': {{at: 6, stop: true}}}}"
    hooks = f"hooks=['{OWN}:disturb', {keep}, {asking}]"
    first = trained("run", hooks, exit_code=None)
    assert "stopped on request" in first
    assert f"(the hook {OWN}:ask: enough): saved after iteration 7; start it again with --resume auto" in first
    checkpoints = list_checkpoints(tmp_path / "run/checkpoints")
    assert [int(path.name[-9:]) for path in checkpoints] == [3, 5, 7]
    outcome = json.loads((tmp_path / "run/outcome.json").read_text())
    assert (outcome["exit_code"], outcome["cause"] in first) == (75, True)
    # resumed by one process, which needs no hook of before
    resumed = trained("run", f"hooks=[{keep}]", np=None, resume=("--resume", "auto"))
    assert digest_in(resumed) == digest_in(trained("plain"))
    events = [json.loads(line) for line in told.read_text().splitlines()]
    assert [content for kind, _, content in events if kind == "WorldChanged"] == [[2, 1]]
    assert [content for kind, _, content in events if kind == "Opened"] == [[0, 2], [7, 1]]
    assert [content[0] for kind, _, content in events if kind == "Ended"] == [75, 0]
    assert events[[kind for kind, *_ in events].index("Ended")][2] == [75, outcome["cause"]]


def test_one_that_fails_ends_both_ranks_with_one_message(trained, tmp_path):
    said = trained("run", f"hooks=['{OWN}:fail']", "hooks_fail=stop", exit_code=2)
    assert (
        said.count(f"error: configs/digits.yaml: hooks: {OWN}:fail (Logged, iteration 1): KeyError: 'no such thing'")
        == 1
    )
    assert [path.name[-1] for path in list_checkpoints(tmp_path / "run/checkpoints")] == ["2"]
    said = trained("none", "hooks=['no_such_module:hook']", exit_code=2)
    assert said.count("hooks[0]: 'no_such_module:hook': there is no module 'no_such_module'") == 1
    assert not (tmp_path / "none").exists()
