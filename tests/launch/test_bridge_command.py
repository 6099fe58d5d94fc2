"""`launch/bridge.py`: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

WITHOUT_TORCH = "PyTorch is not installed (WITH_TORCH=1), so neither this nor tests/bridge is run"
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason=WITHOUT_TORCH)
MODULE = ("--module", "tests.bridge.torch_nets:mlp")


def test_without_torch_it_says_how_to_install_it(command, monkeypatch):
    monkeypatch.setattr("harness.cli.bridge.find_spec", lambda name: None)
    ended = command("bridge", "match", "runs/digits", *MODULE)
    assert (ended.code, ended.err) == (2, f"error: {sys.executable} has no torch; run `WITH_TORCH=1 make setup`\n")


@pytest.fixture
def run(start, tmp_path):
    """Of the digits, after 20 updates with momentum."""
    settings = ["train={iterations: 20}", "network.params.hidden=[32, 32]", f"output={tmp_path}"]
    start("launch/train.py", "--config", "digits", *(word for one in settings for word in ("--set", one)))
    return tmp_path / "digits"


@needs_torch
def test_a_run_is_matched_and_verified(command, run):
    mapping = run / "bridge/mapping.yaml"
    ended = command("bridge", "verify", run, *MODULE)
    assert (ended.code, ended.err) == (2, f"error: {mapping}: there is no mapping yet; write it with `bridge match`\n")
    ended = command("bridge", "match", run, *MODULE)
    assert (ended.code, ended.err) == (0, "")
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

    mapping.write_text(text.replace("1.bias: 0.bias", "1.bias: 1.bias").replace("3.bias: 1.bias", "3.bias: 0.bias"))
    ended = command("bridge", "verify", run, *MODULE)
    assert ended.code == 5
    assert ended.out.splitlines()[0].endswith("4 arrays as proposed, 2 by hand")
    assert "is not the network of" in ended.err
