"""`launch/bridge.py`: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import copy
import csv
import runpy
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from harness.checkpoint import read_arrays, read_numbers

WITHOUT_TORCH = "PyTorch is not installed (WITH_TORCH=1), so neither this nor tests/bridge is run"
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason=WITHOUT_TORCH)
MODULE = ("--module", "tests.bridge.torch_nets:mlp")


def test_without_torch_it_says_how_to_install_it(command, monkeypatch):
    monkeypatch.setattr("harness.cli.bridge.find_spec", lambda name: None)
    ended = command("bridge", "match", "runs/digits", *MODULE)
    assert (ended.code, ended.err) == (2, f"error: {sys.executable} has no torch; run `WITH_TORCH=1 make setup`\n")


@pytest.fixture
def run(start, tmp_path):
    """Of the digits, after 20 updates with momentum and two factors on the rate."""
    settings = ["train={iterations: 20}", "network.params.hidden=[32, 32]", "checkpoint.every=10it"]
    settings += [f"output={tmp_path}", "batch.shards=2", "optimizer.lr_mult={1.*: 0.5}"]
    settings += ["optimizer.clip_norm=0.2", "optimizer.clip_value=0.01", "ema.decay=0.9"]
    start("launch/train.py", "--config", "digits", *(word for one in settings for word in ("--set", one)))
    return tmp_path / "digits"


@needs_torch
def test_a_run_is_matched_and_verified(command, run):
    mapping = run / "bridge/mapping.yaml"
    ended = command("bridge", "verify", run, *MODULE)
    match = f"python launch/bridge.py match {run} --module tests.bridge.torch_nets:mlp"
    assert (ended.code, ended.err) == (2, f"error: {mapping}: there is no mapping yet; write it with `{match}`\n")
    ended = command("bridge", "match", run, *MODULE, "--mapping", __file__ + "/mapping.yaml")
    assert ended.err.endswith(
        "test_bridge_command.py/mapping.yaml: cannot be written (File exists); choose another --mapping\n"
    )
    ended = command("bridge", "match", run, *MODULE, "--samples", 99999)
    assert (ended.code, ended.err) == (0, "")
    assert "predictions of 1437 samples, by " in ended.out
    assert ended.out.splitlines()[0] == f"{mapping}: 6 of 6 arrays matched, in 3 layers"
    assert ended.out.splitlines()[1].endswith(": agree")
    text = mapping.read_text()
    assert "  # 1 (Linear) <- 0 (Dense)\n  1.weight: 0.weight\n  1.bias: 0.bias\n" in text

    ended = command("bridge", "verify", run, *MODULE)
    assert (ended.code, ended.err) == (0, "")
    said = ended.out.splitlines()
    assert said[0] == f"{mapping}: 6 arrays as proposed, 0 by hand"
    assert [line.partition(":")[0] for line in said[1:-1]] == ["predictions", "losses in training mode", "gradients"]
    assert said[-1].startswith("tests.bridge.torch_nets:mlp is the network of ")

    ended = command("bridge", "export", run, "--module", "tests.bridge.torch_nets:other", "--params", "{}")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"error: {mapping}: is the mapping of tests.bridge.torch_nets:mlp, not of tests.bridge.torch_nets:other; write "
        f"one with `{match.replace('mlp', 'other')}`, or, if this one is right, correct its `module`\n"
    )

    ended = command("bridge", "match", run, *MODULE, "--params", "{activation: GELU}")
    assert ended.code == 5
    assert ended.out.splitlines()[1].endswith(": DIFFER")
    verify = f"{match.replace('py match', 'py verify')} --params '{{activation: GELU}}'"
    assert f"is not the network of {run}/checkpoints/iteration-000000020; `{verify}` says where" in ended.err

    ended = command("bridge", "match", run, *MODULE, "--params", "{width: 33}")
    assert ended.code == 2
    assert ended.err.startswith(
        f"error: {mapping}: is not complete; correct the module, or the file by hand:\n  the run"
    )
    assert [line.partition(" has no counterpart; nearest: ")[0] for line in ended.err.splitlines()[1:]] == [
        "  the run's 0 (Dense) with weight (32, 64), bias (32,)",
        "  the run's 1 (Dense) with weight (32, 32), bias (32,)",
        "  the module's 1 (Linear) with weight (33, 64), bias (33,)",
        "  the module's 3 (Linear) with weight (32, 33), bias (32,)",
    ]

    edited = text.replace("1.bias: 0.bias", "1.bias: 1.bias").replace("3.bias: 1.bias", "3.bias: 0.bias")
    mapping.write_text(edited)
    ended = command("bridge", "verify", run, *MODULE)
    assert ended.code == 5
    assert ended.out.splitlines()[0].endswith("4 arrays as proposed, 2 by hand")
    assert "is not the network of" in ended.err
    ended = command("bridge", "match", run, *MODULE)
    assert (ended.code, ended.out, mapping.read_text()) == (2, "", edited)
    assert ended.err == (
        f"error: {mapping}: has been edited, or an earlier version wrote it, so it is kept; compare by it with verify, "
        "move it aside with --overwrite, or choose another --mapping\n"
    )
    ended = command("bridge", "match", run, *MODULE, "--overwrite")
    assert (ended.code, mapping.read_text()) == (0, text)
    assert ended.out.startswith(f"moved the edited mapping to {mapping}.1\n")
    assert (run / "bridge/mapping.yaml.1").read_text() == edited


@needs_torch
def test_a_run_is_replayed_and_exported(command, run):
    assert command("bridge", "match", run, *MODULE).code == 0
    middle, page = run / "checkpoints/iteration-000000010", run / "bridge/replay.html"
    ended = command("bridge", "replay", middle, *MODULE, "--iterations", "99")
    assert (ended.code, ended.err) == (0, "")
    said = ended.out.splitlines()
    assert said[0].startswith("iterations 11 to 20: loss ")
    assert said[-1].startswith("losses differ by ")
    assert said[-1].endswith(": the same run")
    assert said[-1] in page.read_text()
    ended = command("bridge", "replay", run, *MODULE)
    assert ended.code == 2
    assert "is of the run's last iteration; give an earlier checkpoint" in ended.err

    ended = command("bridge", "export", middle, *MODULE)
    assert [line.rpartition("/")[2] for line in ended.out.splitlines()] == [
        "model.pt",
        "average.pt",
        "optimizer.pt",
        "plan.csv",
        "go_on.py",
    ]
    went_on = runpy.run_path(str(run / "bridge/go_on.py"))
    assert went_on["iteration"] == 10
    went_on["set_rate"](11)
    plan = {int(row["iteration"]): row for row in csv.DictReader((run / "plan.csv").read_text().splitlines())}
    rate = float(plan[11]["lr"])
    assert [
        (group["lr"], group["lr_mult"], group["momentum"], group["weight_decay"])
        for group in went_on["optimizer"].param_groups
    ] == [
        (rate, 1.0, 0.9, 1e-4),
        (rate, 1.0, 0.9, 0.0),
        (rate * 0.5, 0.5, 0.9, 1e-4),
        (rate * 0.5, 0.5, 0.9, 0.0),
    ]
    import torch  # not at the top, because it need not be installed

    _clips_as_the_run(went_on["module"], went_on["optimizer"])
    saved = read_arrays(middle)
    weight = dict(went_on["module"].named_parameters())["3.weight"]
    assert weight.tolist() == saved["parameters"]["1.weight"].tolist()
    average = torch.load(run / "bridge/average.pt")["3.weight"]
    assert average.tolist() == saved["averages"]["1.weight"].tolist() != weight.tolist()
    buffer = went_on["optimizer"].state[weight]["momentum_buffer"].numpy()
    applied = read_numbers(middle)["applied_lr"] * 0.5
    np.testing.assert_allclose(-buffer * applied, saved["slots"]["1.weight/0"], rtol=1e-6)


def _clips_as_the_run(module, optimizer):
    """By the norm of all, 0.2, and then each number, 0.01; the state is put back."""
    state = copy.deepcopy((module.state_dict(), optimizer.state_dict()))
    parameters = list(module.parameters())
    for one in parameters:
        one.grad = one.new_full(one.shape, 0.001)
    parameters[0].grad[0, 0] = 1.0
    optimizer.step()
    assert parameters[0].grad[0, 0].item() == pytest.approx(0.01)
    assert parameters[1].grad[0].item() == pytest.approx(0.0002, rel=1e-2)
    for one, before in zip((module, optimizer), state, strict=True):
        one.load_state_dict(before)
