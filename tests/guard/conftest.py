"""A run with everything that has a state: batch norm, dropout, momentum, augmentation, a best set."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

SETTINGS = (
    "network={name: cnn, params: {channels: [8, 16], hidden: 32, dropout: 0.3, batch_norm: true}}",
    "data.augment={pad_crop: 1, flip: true, mean: [0.3], std: [0.4]}",
    "batch={size: 16, shards: 2}",
    "train={iterations: 100}",
    "evaluation={every: 30it, metrics: [accuracy]}",
    "checkpoint={every: 20it, keep: 2, best: accuracy}",
    "threads_per_rank=1",
    "lr.schedule={one_cycle: {start_lr: 0.1x, max_lr: 1x, cycle_length: 80%, cooldown_length: 20%, finish_lr: 0.001x}}",
    "lr.base=0.05",
)


class Ended:
    """One attempt: what it printed, and what it wrote of its end."""

    def __init__(self, done, folder: Path, took_s: float) -> None:
        self.code, self.text = done.returncode, done.stdout + done.stderr
        self.folder, self.took_s = folder, took_s
        path = folder / "outcome.json"
        self.outcome = json.loads(path.read_text()) if path.exists() else None
        self.failures = {
            int(path.stem.split("-")[1]): json.loads(path.read_text()) for path in folder.glob("failures/rank-*.json")
        }

    @property
    def digest(self):
        return re.search(r"digest ([0-9a-f]{64})", self.text)[1]


@pytest.fixture
def attempt(start, tmp_path):
    """Start a run with faults, and see how it ends."""

    def run(*settings, faults="none@0:-", np=2, options=(), program="launch/train.py", exit_code=None, **more):
        shards = f"batch.shards={max(2, np or 1)}"
        words = [word for setting in (*SETTINGS, shards, *settings) for word in ("--set", setting)]
        begun = time.monotonic()
        done = start(
            "tests/programs/faulty_train.py",
            faults,
            *words,
            *options,
            "--set",
            f"output={tmp_path}",
            np=np,
            exit_code=exit_code,
            PROGRAM=program,
            **more,
        )
        return Ended(done, tmp_path / "digits", time.monotonic() - begun)

    return run


def still_running(output: Path) -> list[int]:
    """Processes whose command line names the folder of a run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"output={output}".encode() in words:
                found.append(int(entry.name))
    return found
