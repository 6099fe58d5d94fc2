"""The writer's thread: one set at a time, what is kept, and a failure told once."""

from __future__ import annotations

import json
import shutil
import threading
import time

import numpy as np
import pytest

from harness.checkpoint import SetWriter, list_sets, set_path, verify, write_set
from harness.errors import CheckpointError

ARRAYS = {"parameters": {"a": np.arange(4.0)}, "slots": {}}


@pytest.fixture
def writer(tmp_path):
    made = SetWriter(tmp_path, keep=2)
    yield made
    made.close()


def test_the_newest_stay_and_the_best(writer, tmp_path):
    best = None
    for iteration in range(1, 7):
        if iteration in (2, 3):
            best = {"iteration": iteration, "metric": "test.accuracy", "value": 0.5 + iteration / 100}
        writer.start(iteration, ARRAYS, {}, best=best)
        assert writer.wait() is None
    assert list_sets(tmp_path) == [set_path(tmp_path, iteration) for iteration in (3, 5, 6)]
    assert json.loads((tmp_path / "best.json").read_text()) == {"set": "iteration-000000003", **best}


def test_one_at_a_time(writer):
    gate = threading.Event()
    writer.start(1, ARRAYS, {}, first=gate.wait)
    assert writer.poll() is None  # not done, and nothing to say
    with pytest.raises(RuntimeError, match="wait"):
        writer.start(2, ARRAYS, {})
    gate.set()
    assert writer.wait() is None
    assert writer.wait() is None


def test_a_failure_is_told_once_and_harms_nothing(writer, tmp_path):
    folder = tmp_path / "sets"
    folder.mkdir()
    other = SetWriter(folder, keep=2)
    best = {"iteration": 1, "metric": "test.loss", "value": 1.0}
    other.start(1, ARRAYS, {}, best=best)
    assert other.wait() is None
    before = (folder / "best.json").read_bytes()

    def no_room():
        raise OSError(28, "No space left on device")

    other.start(2, ARRAYS, {}, best={**best, "iteration": 2}, first=no_room)
    deadline = time.monotonic() + 10
    error = None
    while error is None and time.monotonic() < deadline:
        error = other.poll()
    assert isinstance(error, CheckpointError)
    assert "iteration 2 could not be saved (No space left on device)" in str(error)
    assert other.wait() is other.poll() is None
    assert (folder / "best.json").read_bytes() == before
    verify(set_path(folder, 1))

    kept = tmp_path / "kept"
    shutil.move(folder, kept)  # unmounted
    other.start(3, ARRAYS, {})
    assert "(No such file or directory); older sets are untouched" in str(other.wait())
    assert not folder.exists()  # nothing is made in the place where a disk was
    shutil.move(kept, folder)
    other.start(4, ARRAYS, {})
    assert other.wait() is None
    other.close()
    assert [path.name for path in list_sets(folder)] == ["iteration-000000001", "iteration-000000004"]
    assert not list(folder.glob(".*"))


def test_a_bug_is_not_taken_for_a_full_disk(writer):
    writer.start(1, {"parameters": {"a": np.zeros(2, "c8")}, "slots": {}}, {})
    with pytest.raises(KeyError):
        writer.wait()


def test_closing_waits_for_the_set_under_way(tmp_path):
    writer = SetWriter(tmp_path, keep=1)
    writer.start(1, {"parameters": {"a": np.zeros(2_000_000)}, "slots": {}}, {})
    writer.close()
    verify(set_path(tmp_path, 1))


def test_a_read_only_folder(tmp_path):
    """As root permissions do not count; a file in the folder's place is as impossible to write into."""
    (tmp_path / "sets").write_text("a file")
    with pytest.raises(CheckpointError, match=r"could not be written \(Not a directory\)"):
        write_set(tmp_path / "sets", 1, ARRAYS, {})
