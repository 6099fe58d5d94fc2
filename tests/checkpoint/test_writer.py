"""The writer's thread: one set at a time, what is kept, and a failure told once."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time

import numpy as np
import pytest

from harness.checkpoint import (
    CheckpointWriter,
    checkpoint_path,
    list_checkpoints,
    remove_debris,
    verify,
    write_checkpoint,
)
from harness.checkpoint.store import keep_newest
from harness.errors import CheckpointError

ARRAYS = {"parameters": {"a": np.arange(4.0)}, "slots": {}}


@pytest.fixture
def writer(tmp_path):
    made = CheckpointWriter(tmp_path, keep=2)
    yield made
    made.close()


def test_the_newest_stay_and_the_best(writer, tmp_path):
    best = None
    for iteration in range(1, 7):
        if iteration in (2, 3):
            best = {"iteration": iteration, "metric": "test.accuracy", "value": 0.5 + iteration / 100}
        writer.start(iteration, ARRAYS, {}, best=best)
        assert writer.wait() is None
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, iteration) for iteration in (3, 5, 6)]
    assert json.loads((tmp_path / "best.json").read_text()) == {"set": "iteration-000000003", **best}


KILLED_AFTER_A_SET = """
import os, signal, sys
from pathlib import Path
import numpy as np
from harness.checkpoint import CheckpointWriter
import harness.checkpoint.store as sets
import harness.checkpoint.writer as written

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

writer = CheckpointWriter(Path(sys.argv[1]), keep=1)
arrays = {"parameters": {"a": np.arange(4.0)}, "slots": {}}
for iteration, best in ((1, 1), (2, 1), (3, 1), (4, 4)):
    if iteration == 4 and sys.argv[2] == "before best.json":
        written.mark_best = die
    if iteration == 4 and sys.argv[2] == "inside best.json":
        written.write_json = lambda path, content: (setattr(Path, "rename", die), sets.write_json(path, content))
    if iteration == 4 and sys.argv[2] == "before old sets go":
        written.keep_newest = die
    writer.start(iteration, arrays, {}, best={"iteration": best, "metric": "test.loss", "value": 1 / best})
    assert writer.wait() is None
"""


@pytest.mark.parametrize(
    ("moment", "best"), [("before best.json", 1), ("inside best.json", 1), ("before old sets go", 4)]
)
def test_killed_between_a_set_and_the_name_of_the_best(start, tmp_path, moment, best):
    start("-c", KILLED_AFTER_A_SET, tmp_path, moment, exit_code=-signal.SIGKILL)
    sets = list_checkpoints(tmp_path)
    assert sets == [checkpoint_path(tmp_path, iteration) for iteration in (1, 3, 4)]
    for place in sets:
        verify(place)
    assert json.loads((tmp_path / "best.json").read_text())["set"] == checkpoint_path(tmp_path, best).name

    remove_debris(tmp_path)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "best.json", *sets]
    # the next attempt goes on, with the best that the newest set knows of
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.start(5, ARRAYS, {}, best={"iteration": 4, "metric": "test.loss", "value": 0.25})
    assert writer.wait() is None
    writer.close()
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, iteration) for iteration in (4, 5)]
    assert json.loads((tmp_path / "best.json").read_text())["set"] == "iteration-000000004"


def test_without_a_best_there_is_no_name_of_one(writer, tmp_path):
    for iteration in range(1, 5):
        writer.start(iteration, ARRAYS, {})
        assert writer.wait() is None
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, iteration) for iteration in (3, 4)]
    assert not (tmp_path / "best.json").exists()


def test_the_best_is_named_before_the_set_that_was_it_goes(writer, tmp_path, monkeypatch):
    """Else a reader would find a name that leads nowhere."""
    named = []

    def looking(folder, keep, protected):
        named.append(json.loads((folder / "best.json").read_text())["set"])
        assert (folder / named[-1]).is_dir()
        keep_newest(folder, keep, protected)

    monkeypatch.setattr("harness.checkpoint.writer.keep_newest", looking)
    for iteration in range(1, 5):
        writer.start(iteration, ARRAYS, {}, best={"iteration": iteration, "metric": "test.loss", "value": 1.0})
        assert writer.wait() is None
    assert named == [checkpoint_path(tmp_path, iteration).name for iteration in range(1, 5)]


def test_one_at_a_time(writer):
    gate = threading.Event()
    writer.start(1, ARRAYS, {}, first=gate.wait)
    assert writer.poll() is None  # not done, and nothing to say
    with pytest.raises(RuntimeError, match="wait"):
        writer.start(2, ARRAYS, {})
    gate.set()
    assert writer.wait() is None
    assert writer.wait() is None
    assert writer.poll() is None


def test_a_set_that_has_ended_is_waited_for_all_the_same(writer, tmp_path):
    """Else its failure would be lost."""
    writer.start(1, ARRAYS, {})
    deadline = time.monotonic() + 10
    while not (tmp_path / "iteration-000000001").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match=r"wait\(\) comes first"):
        writer.start(2, ARRAYS, {})
    assert writer.wait() is None
    writer.start(2, ARRAYS, {})
    assert writer.wait() is None
    assert len(list_checkpoints(tmp_path)) == 2


def test_what_comes_first_is_done_before_the_set(writer, tmp_path):
    seen = []
    writer.start(1, ARRAYS, {}, first=lambda: seen.append((threading.current_thread().name, list(tmp_path.iterdir()))))
    assert writer.wait() is None
    ((thread, there),) = seen
    assert thread.startswith("checkpoint")
    assert there == []


def test_a_failure_is_told_once_and_harms_nothing(writer, tmp_path):
    folder = tmp_path / "sets"
    folder.mkdir()
    other = CheckpointWriter(folder, keep=2)
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
    verify(checkpoint_path(folder, 1))

    kept = tmp_path / "kept"
    shutil.move(folder, kept)  # unmounted
    other.start(3, ARRAYS, {})
    assert "(No such file or directory); older ones are untouched" in str(other.wait())
    assert not folder.exists()  # nothing is made in the place where a disk was
    shutil.move(kept, folder)
    other.start(4, ARRAYS, {})
    assert other.wait() is None
    other.close()
    assert [path.name for path in list_checkpoints(folder)] == ["iteration-000000001", "iteration-000000004"]
    assert not list(folder.glob(".*"))


def test_a_bug_is_not_taken_for_a_full_disk(writer):
    writer.start(1, {"parameters": {"a": np.zeros(2, "c8")}, "slots": {}}, {})
    with pytest.raises(KeyError):
        writer.wait()


def test_closing_waits_for_the_set_under_way(tmp_path):
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.start(1, {"parameters": {"a": np.zeros(2_000_000)}, "slots": {}}, {})
    writer.close()
    verify(checkpoint_path(tmp_path, 1))
    with pytest.raises(RuntimeError):
        writer.start(2, ARRAYS, {})
    writer = CheckpointWriter(tmp_path, keep=1)
    begun, gate, closed = threading.Event(), threading.Event(), threading.Event()
    writer.start(2, ARRAYS, {}, first=lambda: (begun.set(), gate.wait()))
    closing = threading.Thread(target=lambda: (writer.close(), closed.set()))
    begun.wait(10)
    closing.start()
    assert not closed.wait(0.05)
    gate.set()
    closing.join(10)
    assert closed.is_set()
    verify(checkpoint_path(tmp_path, 2))
    assert writer.wait() is None


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "sets").write_text("a file")
    with pytest.raises(CheckpointError, match=r"could not be written \(Not a directory\)"):
        write_checkpoint(tmp_path / "sets", 1, ARRAYS, {})
