"""Disks that are full, read-only, failing or gone: a clear message, older sets intact, nothing half-written left."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from harness.checkpoint import (
    CheckpointWriter,
    checkpoint_path,
    list_checkpoints,
    newest_valid,
    remove_debris,
    verify,
    write_checkpoint,
)
from harness.errors import CheckpointError

ARRAYS = {"parameters": {"a": np.arange(100_000.0)}, "slots": {"a/0": np.ones(40_000)}}
BEST = {"iteration": 1, "metric": "test.loss", "value": 1.0}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.splitlines()[0]}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def room(disk):
    """Free pages."""
    return os.statvfs(disk).f_bavail


def leave_room(disk, pages):
    """Fill all but a number of pages."""
    page = os.statvfs(disk).f_bsize
    with (disk / "filler").open("wb") as filler:
        while room(disk) > pages:
            filler.write(bytes(page))
            filler.flush()
    assert room(disk) == pages


def pages_of_a_set(disk):
    before = room(disk)
    write_checkpoint(disk, 1, ARRAYS, {})
    return before - room(disk)


def assert_only(folder, *iterations):
    """No sets are there but these, all are whole, and nothing half-written is left."""
    ours = {folder / "filler", folder / "best.json"}
    assert sorted(set(folder.iterdir()) - ours) == [checkpoint_path(folder, iteration) for iteration in iterations]
    for place in list_checkpoints(folder):
        verify(place)


def ended(writer):
    """What `poll` says when the write has ended."""
    deadline = time.monotonic() + 20
    error = None
    while error is None and time.monotonic() < deadline:
        error = writer.poll()
        time.sleep(0.001)
    return error


def test_a_disk_that_fills_up_at_any_moment(small_disk):
    needed = pages_of_a_set(small_disk)
    for missing in (1, 2, 3, 90, needed - 1, needed):  # from the seal back to the first byte
        leave_room(small_disk, needed - missing)
        with pytest.raises(CheckpointError) as raised:
            write_checkpoint(small_disk, 2, ARRAYS, {})
        assert str(raised.value) == (
            f"{small_disk}/iteration-000000002: the checkpoint could not be written (No space left on device); older "
            "ones are untouched. Free some disk space, or set output to a folder that can be written"
        )
        assert room(small_disk) == needed - missing
        assert_only(small_disk, 1)
        (small_disk / "filler").unlink()
    leave_room(small_disk, needed)
    write_checkpoint(small_disk, 2, ARRAYS, {})
    assert_only(small_disk, 1, 2)


def test_a_full_disk_is_reported_once_by_the_writer(small_disk):
    needed = pages_of_a_set(small_disk)
    writer = CheckpointWriter(small_disk, keep=1)
    writer.start(1, ARRAYS, {}, best=BEST)
    assert writer.wait() is None
    before = (small_disk / "best.json").read_bytes()
    for iteration, hear in ((2, ended), (3, CheckpointWriter.wait)):
        leave_room(small_disk, needed // 2)
        writer.start(iteration, ARRAYS, {}, best={**BEST, "iteration": iteration})
        error = hear(writer)
        assert isinstance(error, CheckpointError)
        assert f"iteration-00000000{iteration}: the checkpoint could not be written (No space left on device)" in str(
            error
        )
        assert writer.wait() is writer.poll() is None
        assert (small_disk / "best.json").read_bytes() == before
        assert_only(small_disk, 1)
        (small_disk / "filler").unlink()
    writer.start(4, ARRAYS, {}, best={**BEST, "iteration": 4})
    assert writer.wait() is None
    assert_only(small_disk, 4)
    writer.close()


def test_no_room_for_the_name_of_the_best(small_disk):
    """The set itself has room: it stays, and so does what `best.json` names."""
    needed = pages_of_a_set(small_disk)
    writer = CheckpointWriter(small_disk, keep=1)
    writer.start(1, ARRAYS, {}, best=BEST)
    assert writer.wait() is None
    before = (small_disk / "best.json").read_bytes()
    leave_room(small_disk, needed)
    writer.start(2, ARRAYS, {}, best={**BEST, "iteration": 2})
    assert "iteration 2 could not be saved (No space left on device)" in str(writer.wait())
    assert writer.wait() is None
    assert (small_disk / "best.json").read_bytes() == before
    assert_only(small_disk, 1, 2)
    assert newest_valid(list_checkpoints(small_disk)) == (checkpoint_path(small_disk, 2), [])
    verify(checkpoint_path(small_disk, 1))
    (small_disk / "filler").unlink()
    writer.start(3, ARRAYS, {}, best={**BEST, "iteration": 3})
    assert writer.wait() is None
    assert_only(small_disk, 3)
    writer.close()


def test_a_disk_that_turns_read_only(small_disk):
    write_checkpoint(small_disk, 1, ARRAYS, {})
    writer = CheckpointWriter(small_disk, keep=1)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(CheckpointError, match=r"could not be written \(Read-only file system\); older ones are unt"):
        write_checkpoint(small_disk, 2, ARRAYS, {})
    writer.start(2, ARRAYS, {}, best=BEST)
    assert "(Read-only file system)" in str(writer.wait())
    assert_only(small_disk, 1)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    writer.start(2, ARRAYS, {})
    assert writer.wait() is None
    assert_only(small_disk, 2)
    writer.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission(tmp_path):
    write_checkpoint(tmp_path, 1, ARRAYS, {})
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(CheckpointError, match=r"could not be written \(Permission denied\)"):
            write_checkpoint(tmp_path, 2, ARRAYS, {})
        assert_only(tmp_path, 1)
    finally:
        tmp_path.chmod(0o755)
    write_checkpoint(tmp_path, 2, ARRAYS, {})
    assert_only(tmp_path, 1, 2)


def at_call(monkeypatch, name, number, act):
    """Do something in place of one call of a function of `os`."""
    real, calls = getattr(os, name), []

    def counted(*arguments):
        calls.append(arguments)
        return act() if len(calls) == number else real(*arguments)

    monkeypatch.setattr(os, name, counted)


def io_error():
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(("name", "number"), [("mkdir", 1), *(("fsync", n) for n in range(1, 7)), ("rename", 1)])
def test_an_error_at_any_step(tmp_path, monkeypatch, name, number):
    write_checkpoint(tmp_path, 1, ARRAYS, {})
    with monkeypatch.context() as patches:
        at_call(patches, name, number, io_error)
        with pytest.raises(CheckpointError, match=r"could not be written \(Input/output error\); older ones"):
            write_checkpoint(tmp_path, 2, ARRAYS, {})
    assert_only(tmp_path, 1)
    write_checkpoint(tmp_path, 2, ARRAYS, {})
    assert_only(tmp_path, 1, 2)


@pytest.mark.parametrize(("name", "number"), [("fsync", 6), ("rename", 1), ("rename", 2)])
def test_a_set_that_could_not_be_replaced(tmp_path, monkeypatch, name, number):
    write_checkpoint(tmp_path, 1, ARRAYS, {"which": "old"})
    with monkeypatch.context() as patches:
        at_call(patches, name, number, io_error)
        with pytest.raises(CheckpointError, match="Input/output error"):
            write_checkpoint(tmp_path, 1, ARRAYS, {"which": "new"})
    assert_only(tmp_path, 1)
    assert verify(checkpoint_path(tmp_path, 1))["which"] == "old"


def test_a_bug_leaves_nothing_half_written_either(tmp_path):
    write_checkpoint(tmp_path, 1, ARRAYS, {})
    for arrays, manifest in (({**ARRAYS, "slots": {"a": np.zeros(2, "c8")}}, {}), (ARRAYS, {"x": object()})):
        with pytest.raises((KeyError, TypeError)):
            write_checkpoint(tmp_path, 2, arrays, manifest)
        assert_only(tmp_path, 1)


def test_an_error_of_the_disk_while_a_manifest_is_read(tmp_path, monkeypatch):
    place = write_checkpoint(tmp_path, 1, ARRAYS, {})
    monkeypatch.setattr(Path, "read_bytes", lambda path: io_error())  # which knows no file name
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read \(Input/output error\)"):
        verify(place)


@pytest.mark.parametrize("step", range(1, 6))
def test_a_folder_that_is_deleted_under_the_writer(tmp_path, monkeypatch, step):
    folder = tmp_path / "sets"
    folder.mkdir()
    write_checkpoint(folder, 1, ARRAYS, {})
    with monkeypatch.context() as patches:
        at_call(patches, "fsync", step, lambda: shutil.rmtree(folder))
        with pytest.raises(CheckpointError, match=r"could not be written \(No such file or directory\)"):
            write_checkpoint(folder, 2, ARRAYS, {})
    assert not folder.exists()  # it is not made anew: it may be the place of a disk that is gone
    folder.mkdir()
    write_checkpoint(folder, 3, ARRAYS, {})
    assert_only(folder, 3)


def test_a_disk_that_is_gone_for_a_while(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "sets", tmp_path / "elsewhere"
    folder.mkdir()
    writer = CheckpointWriter(folder, keep=5)
    writer.start(1, ARRAYS, {})
    assert writer.wait() is None
    with monkeypatch.context() as patches:
        at_call(patches, "fsync", 2, lambda: folder.rename(elsewhere))
        writer.start(2, ARRAYS, {}, best={**BEST, "iteration": 2})
        assert "could not be written (No such file or directory)" in str(writer.wait())
    writer.start(3, ARRAYS, {}, first=lambda: (folder / "metrics.jsonl").touch())
    assert f"{folder}/metrics.jsonl: iteration 3 could not be saved (No such file or directory)" in str(writer.wait())
    elsewhere.rename(folder)
    remove_debris(folder)  # the writer could not: the half-written set was out of its reach
    assert_only(folder, 1)
    writer.start(4, ARRAYS, {})
    assert writer.wait() is None
    assert_only(folder, 1, 4)
    writer.close()
