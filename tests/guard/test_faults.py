"""A rank that fails, leaves, is killed, stopped or sleeps for ever ends the job in time, by name and with the cause."""

from __future__ import annotations

import re
import time

import pytest

from tests.conftest import THOROUGH, job_of
from tests.guard.conftest import still_running

STALL_S = 6
LIMITS = tuple(f"guard.stall_after{name}_s={STALL_S}" for name in ("", "_first", "_evaluation"))
CAUSES = {
    "raise": r"rank 1 left in {place}: RuntimeError: something of the user's own",
    "exit": r"rank 1 left in {place}: ConfigError: .*own code ended the process \(SystemExit\(0\)\)",
    "kill": r"rank 1 \(pid \d+ on .*\) was killed or its host went down",
    "stop": r"stalled, .* in {place}: rank 1 \(pid \d+ on .*\) has been silent for \d+ s",
    "sleep": r"stalled, .* in {place}: rank 1 has not reached the collective .*faulty_train.py:\d+ \(strike\)",
}
CODES = {"raise": 1, "exit": 2}  # the cause's own; 7 where a rank was lost
PLACES = {"50": "iteration 50", "evaluation": "evaluation on test", "finder": "the learning-rate finder"}
if THOROUGH:
    CASES = [(fault, where, np) for fault in CAUSES for where in PLACES for np in (2, 4)]
else:
    CASES = [
        ("raise", "50", 2),
        ("exit", "evaluation", 2),
        ("kill", "finder", 2),
        ("kill", "50", 4),
        ("stop", "50", 2),
        ("sleep", "evaluation", 2),
        ("sleep", "finder", 2),
    ]


@pytest.mark.parametrize(("fault", "where", "np"), CASES)
def test_the_others_end_in_time_and_say_why(attempt, tmp_path, fault, where, np):
    settings = [*LIMITS]
    if where == "finder":
        settings += ["lr.base=auto"]
    ended = attempt(*settings, faults=f"{fault}@{where}:1", np=np)
    deadline = time.monotonic() + 12  # horovodrun itself kills what was SIGSTOPped
    while still_running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not still_running(tmp_path)
    struck = float(re.search(r"STRIKE \w+ ([\d.]+)", ended.text)[1])
    silent = {1} if fault in ("kill", "stop") else set()
    assert set(ended.failures) == set(range(np)) - silent
    pattern = CAUSES[fault].format(place=PLACES[where])
    for rank, failure in ended.failures.items():
        assert failure["exit_code"] == CODES.get(fault, 7)
        assert re.search(pattern, failure["cause"]), failure["cause"]
        assert failure["ended_at"] - struck < STALL_S + 15
        if fault in ("raise", "exit", "kill"):
            assert failure["ended_at"] - struck < 10
        if rank != 1:
            assert failure["place"] == PLACES[where]
            assert failure["collective"] in ("update", "evaluation")
            assert f"{failure['collective']!r} in {PLACES[where]}" in ended.text
    assert ended.outcome["exit_code"] == CODES.get(fault, 7)
    assert re.search(pattern, ended.outcome["cause"])


@pytest.mark.parametrize(
    ("fault", "where"),
    [("raise", "50"), pytest.param("exit", "evaluation", marks=pytest.mark.thorough), ("sleep", "50")],
)
def test_the_ranks_of_mpirun_say_why_too(attempt, tmp_path, fault, where):
    ended = attempt(*LIMITS, faults=f"{fault}@{where}:1", launcher="mpirun")
    assert "STRIKE" in ended.text, ended.text
    struck = float(re.search(r"STRIKE \w+ ([\d.]+)", ended.text)[1])
    assert not still_running(tmp_path)
    pattern = CAUSES[fault].format(place=PLACES[where])
    assert set(ended.failures) == {0, 1}
    for failure in ended.failures.values():
        assert failure["exit_code"] == CODES.get(fault, 7)
        assert re.search(pattern, failure["cause"]), failure["cause"]
        assert failure["ended_at"] - struck < (STALL_S + 15 if fault == "sleep" else 10)
    assert ended.code == ended.outcome["exit_code"] == CODES.get(fault, 7)
    assert re.search(pattern, ended.outcome["cause"])


@pytest.mark.parametrize(
    ("fault", "code", "launcher", "np"),
    [("DataError@50:1", 3, "horovodrun", 2), ("CheckpointError@evaluation:2", 4, "mpirun", 3)],
)
def test_the_code_is_the_causes_own_on_any_number_of_ranks(attempt, fault, code, launcher, np):
    """And rank 0, which did not fail itself, writes the page with the same code where its main thread can."""
    ended = attempt(faults=fault, launcher=launcher, np=np)
    assert ended.outcome["exit_code"] == code
    assert {failure["exit_code"] for failure in ended.failures.values()} == {code}
    assert sorted(ended.failures) == list(range(np))
    assert re.search(rf"rank {np - 1} left in .*: {fault.split('@')[0]}: planted", ended.outcome["cause"])
    assert ended.took_s < 60
    if launcher == "mpirun":
        assert ended.code == code


def test_an_unreadable_item_ends_a_supervised_job_for_good(start, tmp_path):
    settings = [
        "data={name: 'tests.programs.own:data', params: {how: raises}}",
        "network.name=mlp",
        f"output={tmp_path}",
    ]
    settings += ["batch={size: 8, shards: 2}", "train={epochs: 1, iterations: null}"]
    words = [word for setting in settings for word in ("--set", setting)]
    command = job_of(["launch/train.py", *words], 2, "mpirun")
    done = start("launch/supervise.py", "--pause", "0", "--", *command, exit_code=3)
    assert done.stderr.count("supervise:") == 1
    assert re.search(r"ended: exit code 3: data.name: .* train: reading item \d+ raised", done.stderr)


def test_mpirun_ends_all_ranks_itself_when_one_is_killed(attempt, tmp_path):
    """The launcher leaves the others no time to say anything: a job without an outcome, which may be started again."""
    ended = attempt(*LIMITS, faults="kill@50:1", launcher="mpirun")
    assert ended.code != 0
    assert ended.took_s < 20
    assert ended.outcome is None or ended.outcome["exit_code"] == 7
    assert not still_running(tmp_path)


def test_rank_0_may_be_the_one(attempt):
    ended = attempt(*LIMITS, faults="kill@50:0", np=2)
    assert ended.outcome["exit_code"] == 7
    assert re.search(r"rank 0 \(pid \d+ on .*\) was killed", ended.outcome["cause"])
    assert set(ended.failures) == {1}


@pytest.mark.thorough
def test_where_gloo_gives_up_first_the_silent_rank_is_named(attempt):
    ended = attempt(faults="stop@50:1", HOROVOD_GLOO_TIMEOUT_SECONDS="6")
    assert ended.outcome["exit_code"] == 7
    assert re.search(r"rank 1 \(pid \d+ on .*\) has been silent for \d+ s, last in iter", ended.outcome["cause"])


@pytest.mark.parametrize("fault", ["sleep", "raise"])
def test_one_process_that_is_stuck_or_fails(attempt, fault):
    ended = attempt(*LIMITS, faults=f"{fault}@50:0", np=None)
    if fault == "sleep":
        assert (ended.code, ended.outcome["exit_code"]) == (7, 7)
        assert "without progress in iteration 50" in ended.outcome["cause"]
        assert "strike" in ended.failures[0]["stacks"]
    else:
        assert (ended.code, ended.outcome["exit_code"]) == (1, 1)
        assert "RuntimeError: something of the user's own" in ended.text


def test_a_rank_lost_outranks_a_signal(attempt):
    """SIGTERM on rank 0 while rank 1 dies: the wish to stop could not be agreed on."""
    ended = attempt("checkpoint.every=60it", "evaluation.every=60it", faults="kill@50:1,term@50:0")
    assert ended.outcome["exit_code"] == 7
    assert not list(ended.folder.glob("checkpoints/iteration-*"))


def test_the_outcome_of_a_good_end_and_of_one_refused(attempt):
    ended = attempt("train.iterations=40", np=2, exit_code=0)
    assert (ended.outcome["exit_code"], ended.failures) == (0, {})
    again = attempt("train.iterations=40", np=2)
    assert "already holds a run" in again.text
    assert again.outcome == ended.outcome  # of another run: nothing was touched
