"""A run of MXNet's that PyTorch trains from its middle on ends where MXNet's own second half does."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys

import pytest
import torch

from harness.cli import bridge
from harness.errors import ConfigError
from tests.conftest import ROOT

TESTS = re.compile(r"^\[ *(\d+)/\d+\] test: loss (\S+)  accuracy (\S+)$", re.MULTILINE)
NETWORKS = {"digits": ("mlp", 48), "lenet": ("lenet", 44), "resnet18": ("resnet18", 22), "lstm": ("lstm", 132)}


@pytest.mark.parametrize(
    "name", [name if name == "digits" else pytest.param(name, marks=pytest.mark.thorough) for name in NETWORKS]
)
def test_half_here_and_half_there(start, tmp_path, monkeypatch, name):
    network, middle = NETWORKS[name]
    config = f"examples/leaving/{name}.yaml"
    out = start(
        "launch/train.py", "--config", config, "--set", f"output={tmp_path}", np=2, launcher="mpirun", timeout_s=600
    ).stdout
    here = {int(t): (float(loss), float(accuracy)) for t, loss, accuracy in TESTS.findall(out)}
    folder = tmp_path / f"leaving-{name}"
    checkpoint = folder / f"checkpoints/iteration-{middle:09d}"
    for command in ("match", "export"):
        words = ["bridge.py", command, str(checkpoint), "--module", f"examples.leaving.torch_nets:{network}"]
        monkeypatch.setattr(sys, "argv", words)
        assert bridge.main() == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "examples/leaving/train.py", str(checkpoint)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    there = {int(t): (float(loss), float(accuracy)) for t, loss, accuracy in TESTS.findall(done.stdout)}
    assert list(there) == [t for t in here if t > middle]
    for t, (loss, accuracy) in there.items():
        # rounding grows on the way, least in the small networks; a lost state or rate shows in the first digit
        assert loss == pytest.approx(here[t][0], rel=5e-3), t
        assert accuracy == pytest.approx(here[t][1], abs=6e-3), t
    final = torch.load(folder / "bridge/final.pt")
    assert final["rates"] == {"iteration": max(here)}


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("iteration = 84", "is the export of iteration 84"),
        ("", "is no such export"),
        (None, "is no such export"),
    ],
)
def test_weights_of_another_iteration_are_refused(tmp_path, monkeypatch, written, found):
    """A run's folder has one export, and `train.py` is called with a checkpoint."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    checkpoint, program = tmp_path / "checkpoints/iteration-000000112", tmp_path / "bridge/go_on.py"
    program.parent.mkdir()
    if written is not None:
        program.write_text(written)
    load = runpy.run_path(str(ROOT / "examples/leaving/train.py"))["load"]
    with pytest.raises(ConfigError) as error:
        load(checkpoint, 112, torch.device("cpu"))
    assert str(error.value) == (
        f"{program}: {found}, and rates and batches would be those after iteration 112; export that checkpoint: "
        f"`python launch/bridge.py export {checkpoint} --module MODULE:FUNCTION`"
    )
