"""What a disk that fails does to a run: a clear message, the policy followed, what was saved intact."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from harness.checkpoint import list_checkpoints, verify, write_checkpoint
from harness.errors import CheckpointError
from harness.folder import MetricsFile

SETTINGS = ("train={iterations: 200}", "checkpoint={every: 20it, keep: 50}", "evaluation.every=100it")


def words(*settings):
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.parametrize("np", [None, 2])
def test_sets_that_cannot_be_written_stop_every_rank(start, tmp_path, np):
    arguments = ["tests/programs/lose_disk.py", *words(*SETTINGS, f"output={tmp_path}")]
    done = start(*arguments, np=np, exit_code=None)
    text = done.stdout + done.stderr
    assert done.returncode == (4 if np is None else 1)
    assert "the checkpoint could not be written (No such file or directory); older ones are untouched" in text
    assert text.count("the checkpoint could not be written") == 1
    assert "<stderr>:Traceback" not in text  # a rank's; horovodrun prints one of its own
    if np:
        assert "Exit code: 4" in text
    assert not (tmp_path / "digits/final.params").exists()


def test_or_the_run_goes_on_and_says_so_each_time(start, tmp_path):
    arguments = words(*SETTINGS, "checkpoint.on_failure=continue", f"output={tmp_path}")
    done = start("tests/programs/lose_disk.py", *arguments)
    assert done.stdout.count("the checkpoint could not be written") == 8
    assert "continuing, as checkpoint.on_failure says" in done.stdout
    assert "done after 200 iterations" in done.stdout
    assert (tmp_path / "digits/final.params").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_disk_that_fills_up(start, small_disk, policy):
    arguments = words(*SETTINGS, f"checkpoint.on_failure={policy}", "log.every=1it", f"output={small_disk}")
    done = start("launch/train.py", *arguments, exit_code=None)
    text = done.stdout + done.stderr
    assert "No space left on device" in text
    assert "Traceback" not in text
    assert done.returncode in ((4,) if policy == "stop" else (0, 4))  # with continue the final weights may have no room
    sets = list_checkpoints(small_disk / "digits/checkpoints")
    assert sets
    for place in sets:
        verify(place)
    assert {path.name[:10] for path in (small_disk / "digits/checkpoints").iterdir()} == {"iteration-"}
    for line in (small_disk / "digits/metrics.jsonl").read_text().splitlines():
        json.loads(line)
    reached = [int(path.name[-9:]) for path in sets][-1]
    assert ("[200/200]" in text) if policy == "continue" else reached < 200, text

    sets[0].joinpath("params.safetensors").unlink()  # somebody makes room
    for place in sets[1:-1]:
        for file in place.iterdir():
            file.unlink()
    again = start("launch/train.py", *arguments, "--resume", "auto", exit_code=None)
    assert f"resuming after iteration {reached}" in again.stdout + again.stderr


def test_a_disk_that_is_full_from_the_start(start, small_disk):
    (small_disk / "filler").write_bytes(bytes(399_000))
    done = start("launch/train.py", *words(*SETTINGS, f"output={small_disk}"), exit_code=2)
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_line_of_metrics_is_there_whole_or_not_at_all(small_disk):
    path = small_disk / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        free = 400_000 - 20 * 1000
        for t in range(1, free // 1000):
            metrics.write({"iteration": t, "text": "x" * 900})
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl: a line could not be written \(No space left"):
            metrics.write({"iteration": t + 1, "text": "x" * 100_000})
        lines = path.read_bytes().splitlines(keepends=True)
        assert [json.loads(line)["iteration"] for line in lines] == list(range(1, t + 1))
        assert lines[-1].endswith(b"\n")


def test_metrics_are_cut_back_to_an_iteration(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        for t in (1, 2, 2, 3, 4):
            metrics.write({"iteration": t})
    whole = path.read_bytes().splitlines(keepends=True)
    with MetricsFile(path, after=2) as metrics:
        assert path.read_bytes() == b"".join(whole[:3])
        metrics.write({"iteration": 3})
    for torn in (b'{"iteration": 4, "lo', b'{"iteration": 4}', b"[1]\n", b"\0\0\0\0\n"):
        path.write_bytes(b"".join(whole[:3]) + torn)
        with MetricsFile(path, after=9):
            pass
        assert path.read_bytes() == b"".join(whole[:3])
    with MetricsFile(path, after=0):
        assert path.read_bytes() == b""


def test_a_disk_that_has_become_read_only(small_disk):
    arrays = {"parameters": {"a": np.ones(3)}, "slots": {}}
    first = write_checkpoint(small_disk, 1, arrays, {})
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(
        CheckpointError, match=r"could not be written \(Read-only file system\); older ones are untouched"
    ):
        write_checkpoint(small_disk, 2, arrays, {})
    verify(first)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    write_checkpoint(small_disk, 2, arrays, {})
    assert len(list_checkpoints(small_disk)) == len(list(small_disk.iterdir())) == 2
