"""Whole runs on several devices of one process, against ranks; sets go from one to the other."""

from __future__ import annotations

import re

import pytest

RUN = (
    "network={name: cnn, params: {channels: [6], dropout: 0.2}}",
    "batch={size: 8, shards: 2}",
    "train={iterations: 60}",
    "evaluation.every=null",
    "checkpoint.every=30it",
    "threads_per_rank=1",
    "lr.schedule={one_cycle: {start_lr: 0.1x, max_lr: 1x, cycle_length: 80%, cooldown_length: 20%, finish_lr: 0.001x}}",
)
DEVICES = ("devices=[cpu(0), cpu(1)]", "kvstore=local", "update_on_kvstore=true")


@pytest.fixture
def train(launch, tmp_path):
    """Train the digits into a folder and give what was printed."""

    def run(folder, *settings, options=(), **how):
        arguments = [
            word for setting in (*RUN, f"output={tmp_path / folder}", *settings) for word in ("--set", setting)
        ]
        return launch("launch/train.py", *options, *arguments, **how).stdout

    return run


def digest(out):
    return re.search(r"digest ([0-9a-f]{64})", out)[1]


def test_sets_written_with_a_kvstore_go_on_on_two_ranks_and_the_other_way_round(train, tmp_path):
    whole = digest(train("whole", np=2, launcher="mpirun"))
    on_devices = train("devices", *DEVICES)
    assert "1 rank (single) on cpu(0), cpu(1)" in on_devices
    assert digest(on_devices) == whole
    middle = {name: tmp_path / name / "digits/checkpoints/iteration-000000030" for name in ("whole", "devices")}
    on_ranks = train("to-ranks", options=["--resume", str(middle["devices"])], np=2, launcher="mpirun")
    assert "resuming after iteration 30" in on_ranks
    assert digest(on_ranks) == whole
    for name, more in (("to-kvstore", DEVICES), ("to-workers", DEVICES[:1])):
        assert digest(train(name, *more, options=["--resume", str(middle["whole"])])) == whole


def test_devices_are_for_one_process(start, tmp_path):
    done = start(
        "launch/train.py", "--set", f"output={tmp_path}", "--set", DEVICES[0], np=2, launcher="mpirun", exit_code=2
    )
    assert "devices: [cpu(0), cpu(1)] is for one process, but there are 2 ranks" in done.stdout + done.stderr
