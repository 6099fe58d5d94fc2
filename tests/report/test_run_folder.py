"""Who may write to a run's folder, and what in it is never written to."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.checkpoint import list_checkpoints, newest_valid, write_checkpoint
from harness.checkpoint.store import write_json
from harness.errors import CheckpointError, ConfigError
from harness.folder import MetricsFile, RunFolder, append_line
from harness.locks import lock_of_name
from harness.report.pages import write_page
from harness.train.resume import StartOptions, find_resume_point, open_folder
from tests.conftest import THOROUGH

ROOT = Path(__file__).parents[2]
ROUNDS = 100 if THOROUGH else 10


class Folder(RunFolder):
    """One that is closed at the end of its test."""

    def __init__(self, path):
        super().__init__(path)
        OPEN.append(self)


OPEN: list[Folder] = []


@pytest.fixture(autouse=True)
def _closed():
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def claimed(tmp_path):
    """A run's folder that holds a run, and is nobody's."""
    path = tmp_path / "run"
    folder = Folder(path)
    assert folder.claim(overwrite=False) is None
    (path / "config.yaml").write_text("{}\n")
    (path / "checkpoints").mkdir()
    folder.close()
    assert not (tmp_path / ".run.lock").exists()
    return path


@pytest.mark.parametrize(
    "ways",
    [
        ("overwrite", "overwrite"),
        ("overwrite", "overwrite", "overwrite"),
        ("resume", "overwrite"),
        ("resume", "resume"),
        ("new", "new"),
        ("finder", "finder"),
        ("finder", "overwrite", "resume"),
    ],
)
def test_of_many_at_once_one_gets_the_folder(tmp_path, ways):
    path = tmp_path / "runs" / "x"
    path.mkdir(parents=True)
    if "new" not in ways:
        (path / "config.yaml").write_text("{}\n")
    done = subprocess.run(
        [sys.executable, "tests/programs/contenders.py", str(path), str(ROUNDS), *ways],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(done.stdout)
    assert [len(owners) for owners in found["owners"]] == [1] * ROUNDS
    for text in found["refusals"]:
        assert "process N on " in text
        assert "is writing there" in text
    assert not list(path.parent.glob(".*.lock"))


def test_the_second_is_told_who_writes_there(claimed):
    owner = Folder(claimed)
    owner.lock()
    for ask in (RunFolder.lock, RunFolder.open, RunFolder.reserve, lambda folder: folder.claim(overwrite=True)):
        with pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* is writing there; wait"):
            ask(Folder(claimed))
    owner.close()
    Folder(claimed).lock()


def test_a_job_of_an_earlier_version_is_respected(claimed):
    """It holds the lock in the folder, and knows none beside it."""
    with (claimed / ".lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is writing there"):
            Folder(claimed).lock()
        with pytest.raises(ConfigError, match="another process is writing there"):
            Folder(claimed).claim(overwrite=True)
    assert Folder(claimed).claim(overwrite=True) == claimed.with_name("run.1")


def test_an_earlier_version_respects_this_one(claimed):
    owner = Folder(claimed)
    owner.lock()
    with (claimed / ".lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    owner.close()


def test_a_name_that_a_run_is_just_beginning_under_is_not_moved_to(claimed):
    other = Folder(claimed.with_name("run.1"))
    other.reserve()  # and not made yet
    folder = Folder(claimed)
    assert folder.claim(overwrite=True) == claimed.with_name("run.2")
    folder.close()
    other.close()


def test_a_refused_start_leaves_no_lock(claimed):
    with pytest.raises(ConfigError, match="already holds a run"):
        Folder(claimed).claim(overwrite=False)
    assert not lock_of_name(claimed).path.exists()


def test_a_run_that_another_one_has_just_finished_is_not_begun_again(tmp_path):
    """Between looking for a checkpoint, where there was no folder at all, and opening the folder."""
    start, path = StartOptions(resume="auto"), tmp_path / "runs" / "x"
    folder = Folder(path)
    assert find_resume_point(folder, start) is None
    (path / "checkpoints" / "iteration-000000010").mkdir(parents=True)
    with pytest.raises(ConfigError, match="another process has just trained there"):
        open_folder(folder, start, None)


def test_a_folder_whose_parent_cannot_be_written_is_locked_by_its_own_lock(claimed, monkeypatch):
    def refuse(lock, *words):
        if lock.path.name in (".run.lock", ".other.lock"):
            raise PermissionError(13, "Permission denied", str(lock.path))
        return acquire(lock, *words)

    acquire = type(lock_of_name(claimed)).acquire
    monkeypatch.setattr("harness.locks.FileLock.acquire", refuse)
    owner = Folder(claimed)
    owner.lock()
    with pytest.raises(ConfigError, match="is writing there"):
        Folder(claimed).lock()
    owner.close()
    with pytest.raises(ConfigError, match=r"other: cannot be made \(Permission denied\)"):
        Folder(claimed.with_name("other")).claim(overwrite=False)


PLACES = [
    *("config.yaml", "plan.json", "plan.csv", "plan.png", "metrics.jsonl", "attempts.jsonl", "outcome.json"),
    *("report.html", "final.params", ".lock", "tensorboard", "checkpoints", "failures", "finder"),
    *("failures/rank-0.json", "finder/result.json", "finder/report.html", "tensorboard/events"),
    *("checkpoints/best.json", "checkpoints/aside", "checkpoints/iteration-000000001"),
    *("checkpoints/iteration-000000002/manifest.json", "checkpoints/.writing-best.json-1", ".writing-config.yaml-7"),
]


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo"])
@pytest.mark.parametrize("place", PLACES)
def test_what_was_planted_in_a_folder_is_refused_before_anything_is_written(tmp_path, claimed, place, kind):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "mine").write_text("mine")
    (claimed / ".lock").unlink()
    (claimed / "checkpoints").rmdir()
    planted = claimed / place
    planted.parent.mkdir(exist_ok=True, parents=True)
    planted.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(planted)
    else:
        planted.symlink_to(victim if kind == "link" else tmp_path / "absent")
    before = sorted(claimed.rglob("*"))
    folder = Folder(claimed)
    with pytest.raises(ConfigError, match=rf"{place} is a (symbolic link|FIFO)"):
        open_folder(folder, StartOptions(resume="auto"), find_resume_point(folder, StartOptions(resume="auto")))
    folder.close()
    assert sorted(claimed.rglob("*")) == before
    assert [path.name for path in victim.iterdir()] == ["mine"]
    assert not (tmp_path / "absent").exists()


FILES = [
    *("config.yaml", "plan.json", "plan.csv", "plan.png", "metrics.jsonl", "attempts.jsonl", "outcome.json"),
    *("report.html", "final.params", ".lock", "finder/result.json", "checkpoints/best.json"),
]


@pytest.mark.parametrize("place", [*FILES, "tensorboard", "checkpoints", "failures", "finder", "checkpoints/aside"])
def test_a_folder_where_a_file_belongs_and_the_reverse_are_refused_before_anything_is_written(claimed, place):
    (claimed / ".lock").unlink()
    (claimed / "checkpoints").rmdir()
    wrong = claimed / place
    wrong.parent.mkdir(exist_ok=True)
    wrong.unlink(missing_ok=True)
    if place in FILES:
        wrong.mkdir()
    else:
        wrong.touch()
    before = sorted(claimed.rglob("*"))
    said = "a folder, where a file belongs" if place in FILES else "a file, where a folder belongs"
    folder = Folder(claimed)
    with pytest.raises(ConfigError, match=rf"run: {place} is {said}") as caught:
        open_folder(folder, StartOptions(resume="auto"), find_resume_point(folder, StartOptions(resume="auto")))
    assert caught.value.exit_code == 2
    folder.close()
    assert sorted(claimed.rglob("*")) == before


def test_folders_under_names_of_ones_own_are_nobodys_concern(claimed):
    for name in ("notes.jsonl", "outcome.json.unreadable", "final"):
        (claimed / name).mkdir()
    (claimed / "checkpoints" / "notes").touch()
    Folder(claimed).lock()


def test_a_folder_with_something_planted_is_moved_aside_as_it_is(tmp_path, claimed):
    (claimed / "metrics.jsonl").symlink_to(tmp_path / "victim")
    folder = Folder(claimed)
    assert folder.claim(overwrite=True) == claimed.with_name("run.1")
    assert (tmp_path / "run.1" / "metrics.jsonl").is_symlink()
    folder.close()


def test_links_under_names_of_ones_own_are_nobodys_concern(tmp_path, claimed):
    (claimed / "notes").symlink_to(tmp_path)
    (claimed / "checkpoints" / "latest").symlink_to("iteration-000000001")
    folder = Folder(claimed)
    folder.lock()
    folder.close()


@pytest.mark.parametrize("way", [RunFolder.lock, RunFolder.open, RunFolder.reserve, lambda f: f.claim(overwrite=True)])
def test_the_folder_itself_must_not_be_a_link(tmp_path, claimed, way):
    link = tmp_path / "link"
    link.symlink_to(claimed)
    with pytest.raises(ConfigError, match="is a symbolic link, which is not followed; remove it"):
        way(Folder(link))
    assert not (tmp_path / ".link.lock").exists()


def test_the_folder_of_all_runs_may_be_a_link(tmp_path, claimed):
    link = tmp_path / "scratch"
    link.symlink_to(tmp_path)
    folder = Folder(link / "run")
    folder.lock()
    with pytest.raises(ConfigError, match="is writing there"):
        Folder(claimed).lock()
    folder.close()


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_is_planted_later_is_not_followed_either(tmp_path, kind):
    """Between the look at the start and a write: files are opened without following, and without waiting."""
    victim, path = tmp_path / "victim", tmp_path / "planted"
    victim.write_text("mine")
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(victim)
    said = "is a FIFO" if kind == "fifo" else "is a symbolic link"
    with pytest.raises(CheckpointError, match=said):
        MetricsFile(path)
    with pytest.raises(OSError, match=said):
        append_line(path, {"a": 1})
    with pytest.raises(ConfigError, match=said):
        write_page(path, "<html>")
    with pytest.raises(OSError, match=said):
        write_json(path, {"a": 1})
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("kind", ["link", "fifo"])
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "params.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_of_anything_but_files_is_rejected(tmp_path, name, kind):
    older = write_checkpoint(tmp_path, 1, {"parameters": {}, "slots": {}}, {})
    newer = write_checkpoint(tmp_path, 2, {"parameters": {}, "slots": {}}, {})
    content = (newer / name).rename(tmp_path / "content")
    if kind == "fifo":
        os.mkfifo(newer / name)
    else:
        (newer / name).symlink_to(content)
    found = newest_valid(list_checkpoints(tmp_path))
    assert found.newest == older
    ((path, reason),) = found.rejected
    assert path == newer
    assert f"{name} cannot be read (is a {'FIFO' if kind == 'fifo' else 'symbolic link'}, not a regular file)" in reason
