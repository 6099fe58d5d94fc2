"""A page for every way a run can end, from the records that the ending job itself writes."""

from __future__ import annotations

import shutil

import pytest

from harness.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DisagreementError,
    DivergedError,
    LostRankError,
    NoUsableLRError,
    StoppedOnRequestError,
)
from harness.folder import AttemptStart
from harness.folder.outcome import OutcomeFiles
from harness.report import reported, write_comparison, write_run_report
from tests.report.folders import make_run, trained

ENDS = {
    0: ("done", "is done after 40 iterations"),
    1: ("ValueError('a bug')", "with exit code 1 (ValueError('a bug'))"),
    2: ("x.yaml: lr: is missing", "with exit code 2 (x.yaml: lr: is missing)"),
    3: ("sample 7 is damaged", "with exit code 3 (sample 7 is damaged)"),
    4: ("no room", "with exit code 4 (no room)"),
    5: ("ranks differ", "with exit code 5 (ranks differ)"),
    6: ("iteration 41: the loss is nan", "diverged after iteration 40 of 100 (iteration 41: the loss is nan)"),
    7: ("rank 1 was killed", "with exit code 7 (rank 1 was killed)"),
    8: ("the curve is flat", "with exit code 8 (the curve is flat)"),
    75: ("stopped on request", "was stopped on request after iteration 40 of 100"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run that has begun."""
    parent, lines = tmp_path_factory.mktemp("begun"), [trained(t, 2 / t) for t in range(1, 41)]
    return make_run(parent, metrics=lines, attempts=(), outcome=None)


@pytest.fixture
def folder(begun, tmp_path):
    """A copy of it."""
    return shutil.copytree(begun, tmp_path / "digits")


def end(folder, code, num_ranks, **where):
    """Every rank writes its end; `None` for ranks that were killed."""
    begun = AttemptStart(ranks=num_ranks, comm="mpi", host="node-1", command="python launch/train.py")
    ranks = [OutcomeFiles(rank, attempt="a", environ={}) for rank in range(num_ranks)]
    for files in ranks:
        files.use_folder(folder, begun)
    for files in reversed(ranks) if code is not None else ():
        files.write(code, ENDS[code][0], **where)


@pytest.mark.parametrize("where", [{}, {"place": "iteration 41", "collective": "fold", "stacks": "Thread 1 <main>"}])
@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("code", [*ENDS, None])
def test_every_end_has_a_page(folder, code, num_ranks, where):
    end(folder, code, num_ranks, **where)
    sentence = write_run_report(folder)
    text = (folder / "report.html").read_text()
    assert (ENDS[code][1] if code is not None else "is running, or was killed after iteration 40 of 100") in sentence
    assert "Unreadable parts" not in text
    failed = code not in (0, 75, None)
    assert [f"Rank {rank}</strong>" in text for rank in range(3)] == [failed and rank < num_ranks for rank in range(3)]
    assert ("in iteration 41" in text) == (failed and bool(where))
    assert ("Thread 1 &lt;main&gt;" in text) == (failed and bool(where))
    assert len(write_comparison([folder, folder], folder / "comparison.html")) == 2


@pytest.mark.parametrize(
    "kind",
    [
        *(ConfigError, DataError, CheckpointError, DisagreementError, DivergedError, LostRankError, NoUsableLRError),
        StoppedOnRequestError,
    ],
)
def test_the_page_at_the_end_says_what_the_later_one_says(folder, capsys, kind):
    end(folder, None, 1)
    cause = ENDS[kind.exit_code][0]
    with pytest.raises(kind), reported(folder, 0):
        raise kind(cause)
    assert ENDS[kind.exit_code][1].replace("'", "&#39;") in (folder / "report.html").read_text()
    assert capsys.readouterr().err == ""


def test_a_run_that_ended_before_its_plan_was_written_has_a_page(folder):
    end(folder, 8, 1)
    for name in ("config.yaml", "plan.json", "plan.csv", "metrics.jsonl"):
        (folder / name).unlink()
    assert write_run_report(folder).startswith("digits ended after iteration 0 with exit code 8 (the curve is flat)")
    assert "There is no config.yaml: the run ended before its plan was written." in (folder / "report.html").read_text()


def test_ranks_that_were_never_there_are_no_failures(folder):
    end(folder, 7, 2)
    record = (folder / "failures/rank-1.json").read_text()
    (folder / "failures/rank-7.json").write_text(record.replace('"rank": 1', '"rank": 7'))
    (folder / "failures/rank-0.json").write_text(record)
    write_run_report(folder)
    text = (folder / "report.html").read_text()
    assert "rank is 7; the last attempt had 2 ranks" in text
    assert "rank is 1, which is not the rank in the file name" in text
    assert "Rank 7</strong>" not in text


def test_a_diverged_job_of_two_ranks(launch, tmp_path):
    """Case 1: rank 0 writes no place, and the page once asked for one."""
    words = [
        f"output={tmp_path}",
        "lr.base=1e9",
        "lr.schedule=1x",
        "train={iterations: 20}",
        "network.params={hidden: [8]}",
    ]
    options = [word for setting in words for word in ("--set", setting)]
    done = launch("launch/train.py", *options, np=2, launcher="mpirun", exit_code=6)
    assert "was not written" not in done.stderr
    page = tmp_path / "digits/report.html"
    assert "digits diverged after iteration" in page.read_text()
    page.unlink()
    assert "digits diverged" in launch("launch/report.py", tmp_path / "digits").stdout
    assert "Rank 1</strong>" in page.read_text()


def test_why_a_page_was_not_written_is_said_in_words(tmp_path, capsys):
    (tmp_path / "config.yaml").mkdir()
    with reported(tmp_path, 0):
        pass
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {tmp_path}/report.html was not written: {tmp_path}")
    assert "Error(" not in warning
