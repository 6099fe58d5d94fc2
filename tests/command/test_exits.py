"""How a job ends, on ranks that are threads: which code each rank returns, what is recorded, and what is printed."""

from __future__ import annotations

import time

import pytest

from harness.comm import SingleWorld
from harness.command.exits import end_together, end_with_error, finish, leave, report_failure
from harness.config import GuardConfig
from harness.errors import ConfigError, DataError, DivergedError, HarnessError, LostRankError, StoppedOnRequestError
from harness.folder import AttemptStart
from harness.folder.outcome import OutcomeFiles, read_outcome
from harness.guard import Guard
from tests.guard.worlds import Ranks

OWN = "network's or the data's own"


def guarded(folder, act, size=2):
    """What `act(world, guard)` returns on every rank, under a guard each."""

    def one(world):
        files = OutcomeFiles(world.rank, "a", environ={})
        files.use_folder(folder, AttemptStart())
        guard = Guard(world, GuardConfig(), files)
        guard.open()
        guard.enter("iteration 4")
        try:
            return act(world, guard)
        finally:
            guard.close()

    return Ranks(size).run(one) if size > 1 else [one(SingleWorld())]


def lost(guard):
    """What a rank raises whose collective failed, once it can know why."""
    deadline_s = time.monotonic() + 5
    while guard.known_departure() is None and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return LostRankError("a collective failed")


@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_that_fails_alone_gives_every_rank_its_code_and_its_cause(tmp_path, capfd, failing):
    def act(world, guard):
        return leave(DataError("item 7") if world.rank == failing else lost(guard), world, guard)

    assert guarded(tmp_path, act) == [3, 3]
    told = read_outcome(tmp_path)
    assert (told.exit_code, told.cause) == (3, f"rank {failing} left in iteration 4: DataError: item 7")
    assert sorted(path.name for path in (tmp_path / "failures").iterdir()) == ["rank-0.json", "rank-1.json"]
    said = capfd.readouterr().err
    assert "error: item 7" in said.replace(f"rank {failing}: ", "")
    assert "waiting in the collective" in said


def test_of_two_ranks_that_fail_at_once_the_weightier_cause_counts(tmp_path):
    def act(world, guard):
        error = ConfigError("x") if world.rank == 0 else LostRankError("y")
        return leave(error, world, guard)

    assert guarded(tmp_path, act) == [2, 2]


def test_an_error_that_follows_from_a_weightier_one_is_told_as_its_consequence(tmp_path, capfd):
    def act(world, guard):
        if world.rank == 1:
            return leave(DataError("item 7"), world, guard)
        lost(guard)
        return leave(HarnessError("mine"), world, guard)

    assert guarded(tmp_path, act) == [3, 3]
    said = capfd.readouterr().err
    assert "mine" not in said
    assert "in iteration 4: rank 1 left in iteration 4: DataError: item 7" in said


def test_a_collective_that_failed_is_no_cause_of_its_own(tmp_path):
    assert guarded(tmp_path, lambda world, guard: leave(LostRankError("y"), world, guard)) == [7, 7]
    assert read_outcome(tmp_path).cause == "LostRankError: y", "no rank is said to have left"


def test_an_error_on_all_ranks_is_printed_once_and_nobody_is_blamed(tmp_path, capfd):
    def act(world, guard):
        return end_together(DivergedError("loss is nan").on_all_ranks(), world, guard)

    assert guarded(tmp_path, act) == [6, 6]
    assert capfd.readouterr().err.count("loss is nan") == 1
    assert read_outcome(tmp_path).cause == "loss is nan"


def test_a_job_that_is_done_says_so_when_all_have_closed(tmp_path):
    assert guarded(tmp_path, finish) == [0, 0]
    assert (read_outcome(tmp_path).exit_code, read_outcome(tmp_path).cause) == (0, "done")


@pytest.mark.parametrize(
    ("error", "code", "cause"),
    [
        (DataError("item 7"), 3, "item 7"),
        (
            SystemExit(5),
            2,
            "c.yaml: the network's or the data's own code ended the process (SystemExit(5)); it must not",
        ),
        (ValueError("a bug"), None, "ValueError('a bug')"),
    ],
)
def test_one_process_alone(tmp_path, error, code, cause):
    def act(world, guard):
        return end_with_error(error, world, guard, "c.yaml")

    assert guarded(tmp_path, act, size=1) == [code]
    assert read_outcome(tmp_path).cause == cause
    assert read_outcome(tmp_path).exit_code == (code or 1)


def test_a_bug_on_one_of_several_ranks_is_1_everywhere_and_has_its_traceback(tmp_path, capfd):
    def act(world, guard):
        try:
            raise ValueError("a bug") if world.rank else lost(guard)
        except Exception as error:
            return end_with_error(error, world, guard, "c.yaml")

    assert guarded(tmp_path, act) == [1, 1]
    assert "Traceback" in capfd.readouterr().err


def test_a_stop_is_no_error_and_a_rank_names_itself_only_where_it_is_alone(capfd):
    report_failure(StoppedOnRequestError("stopped").on_all_ranks(), rank=0)
    report_failure(DataError("x").on_all_ranks(), rank=1)
    report_failure(DataError("y"), rank=1)
    assert capfd.readouterr().err == "stopped\nerror: rank 1: y\n"
