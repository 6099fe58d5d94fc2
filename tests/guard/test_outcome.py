"""The history of a run's attempts."""

from __future__ import annotations

import json
import threading

import pytest

from harness.folder import AttemptStart
from harness.folder.outcome import JOB_FOLDER, OutcomeFiles, read_outcome


def history_of(folder):
    return [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]


def test_attempts_and_their_outcomes_are_kept(tmp_path):
    for number, end in enumerate([(75, "stopped"), None, (0, "done")]):
        files = OutcomeFiles(rank=0, attempt=f"attempt {number}", environ={})
        files.use_folder(tmp_path, AttemptStart(after=10 * number))
        assert read_outcome(tmp_path) is None
        if end is not None:
            files.write(*end)
    lines = [(line["attempt"], line.get("after"), line.get("cause")) for line in history_of(tmp_path)]
    assert lines == [
        ("attempt 0", 0, None),
        ("attempt 0", None, "stopped"),
        ("attempt 1", 10, None),
        ("attempt 2", 20, None),
    ]
    assert read_outcome(tmp_path).cause == "done"


def test_only_rank_0_keeps_the_history(tmp_path):
    OutcomeFiles(rank=1, attempt="a", environ={}).use_folder(tmp_path, AttemptStart())
    assert not list(tmp_path.iterdir())


def test_a_rank_without_rank_0s_disk_tells_on_its_own(tmp_path):
    folder = tmp_path / "runs" / "digits"
    for attempt in ("a", "b"):
        files = OutcomeFiles(rank=1, attempt=attempt, environ={})
        files.use_folder(folder, AttemptStart())
        files.write(7, f"lost in {attempt}")
        assert json.loads((folder / "failures" / "rank-1.json").read_text())["cause"] == f"lost in {attempt}"
        assert read_outcome(folder).cause == f"lost in {attempt}"


def test_the_first_of_an_attempts_ranks_tells_and_rank_0_has_the_last_word(tmp_path):
    for rank in (2, 1):
        files = OutcomeFiles(rank, attempt="a", environ={})
        files.use_folder(tmp_path, AttemptStart())
        files.write(7, f"by rank {rank}")
    assert read_outcome(tmp_path).cause == "by rank 2"
    files = OutcomeFiles(rank=0, attempt="a", environ={})
    files.use_folder(tmp_path, AttemptStart())
    files.write(7, "by rank 0")
    assert read_outcome(tmp_path).cause == "by rank 0"


def test_rank_0_has_the_last_word_however_close_they_are(tmp_path, monkeypatch):
    """Rank 0 writes just after rank 1 has looked."""
    rank_0, rank_1 = (OutcomeFiles(rank, attempt="a", environ={}) for rank in (0, 1))
    for files in (rank_0, rank_1):
        files.use_folder(tmp_path, AttemptStart())

    def read_and_be_overtaken(folder):
        found = read_outcome(folder)
        rank_0.write(6, "by rank 0")
        return found

    monkeypatch.setattr("harness.folder.outcome.read_outcome", read_and_be_overtaken)
    rank_1.write(7, "by rank 1")
    assert read_outcome(tmp_path).cause == "by rank 0"


def test_a_job_that_begins_has_no_outcome_of_an_earlier_one(tmp_path):
    """One command under the supervisor may start several."""
    environ = {JOB_FOLDER: str(tmp_path)}
    OutcomeFiles(0, attempt="a", environ=environ).write(0, "done")
    OutcomeFiles(1, attempt="b", environ=environ).announce()
    assert read_outcome(tmp_path).attempt == "a"
    OutcomeFiles(0, attempt="b", environ=environ).announce()
    assert read_outcome(tmp_path) is None


def test_a_rank_that_fails_alone_tells_and_rank_0_that_heard_nothing_does_not_overwrite_it(tmp_path):
    """The other way round as well: what rank 1 knows better replaces what rank 0 told."""
    for order in ((1, 0), (0, 1)):
        folder = tmp_path / str(order)
        folder.mkdir()
        ranks = {rank: OutcomeFiles(rank, attempt="a", environ={JOB_FOLDER: str(folder)}) for rank in order}
        for rank in order:
            ranks[rank].write(*((3, "rank 1 left: DataError: item 7") if rank else (7, "another rank left")))
        assert read_outcome(folder).exit_code == 3
        assert sorted(path.name for path in folder.glob("failures/*")) == ["rank-0.json", "rank-1.json"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_page_is_drawn_of_an_attempt_s_own_end_by_rank_0(tmp_path, rank):
    drawn = []
    files = OutcomeFiles(rank, attempt="a", environ={})
    files.use_folder(tmp_path, AttemptStart(), lambda: drawn.append(read_outcome(tmp_path).cause))
    files.write_page()
    assert drawn == []  # it has no end yet
    files.write(7, "rank 1 was killed")
    files.write_page()
    assert drawn == ["rank 1 was killed"] * (rank == 0)
    OutcomeFiles(0, attempt="b", environ={}).use_folder(tmp_path, AttemptStart())
    files.write_page()
    assert len(drawn) == (rank == 0)  # the folder is another attempt's


def test_a_page_that_hangs_or_fails_does_not_keep_a_rank(tmp_path):
    goes_on = threading.Event()
    for page in (goes_on.wait, lambda: 1 / 0):
        files = OutcomeFiles(0, attempt="a", environ={})
        files.use_folder(tmp_path, AttemptStart(), page)
        files.write(7, "the disk is gone")
        files.write_page(limit_s=0.05)
    goes_on.set()
    for thread in threading.enumerate():
        if thread.name == "page":
            thread.join()


def test_an_outcome_that_cannot_be_read_is_kept_under_another_name(tmp_path):
    for number, content in enumerate(('{"attempt": "a", "exit_co', '{"attempt": "a", "exit_code": 99, "cause": "x"}')):
        (tmp_path / "outcome.json").write_text(content)
        assert read_outcome(tmp_path) is None
        OutcomeFiles(0, attempt=str(number), environ={}).use_folder(tmp_path, AttemptStart())
        name = "outcome.json.unreadable" + (f".{number}" if number else "")
        assert (tmp_path / name).read_text() == content
    assert not (tmp_path / "outcome.json").exists()


def test_a_step_that_fails_does_not_keep_the_others(tmp_path):
    """What earlier attempts have left must not pass for this one's, whatever the disk refuses."""
    OutcomeFiles(0, "a", {JOB_FOLDER: str(tmp_path)}).write(7, "an old end")
    (tmp_path / "attempts.jsonl").mkdir()
    OutcomeFiles(0, "b", {}).use_folder(tmp_path, AttemptStart())
    assert not (tmp_path / "outcome.json").exists()
    assert not (tmp_path / "failures").exists()


def test_an_outcome_that_is_a_folder_is_put_aside_under_a_name_that_is_free(tmp_path):
    (tmp_path / "outcome.json" / "x").mkdir(parents=True)
    (tmp_path / "outcome.json.unreadable" / "x").mkdir(parents=True)
    files = OutcomeFiles(0, "b", {})
    files.use_folder(tmp_path, AttemptStart())
    assert (tmp_path / "outcome.json.unreadable.1" / "x").is_dir()
    assert [line["attempt"] for line in history_of(tmp_path)] == ["b"]
    files.write(0, "done")
    assert read_outcome(tmp_path).cause == "done"


def test_without_a_place_for_failures_the_outcome_is_written(tmp_path):
    (tmp_path / "failures").touch()
    OutcomeFiles(0, "a", {JOB_FOLDER: str(tmp_path)}).write(6, "the loss is nan")
    assert read_outcome(tmp_path).exit_code == 6


def test_a_rank_whose_job_has_an_outcome_that_stays_is_announced(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "outcome.json").mkdir()
    monkeypatch.setattr("pathlib.Path.rename", refuse)
    OutcomeFiles(0, "a", {JOB_FOLDER: str(tmp_path)}).announce()
    assert (tmp_path / "rank-0.pid").exists()
