"""Stopped on purpose, a run saves and ends with 75; gone on with, it ends with the bits of the unbroken one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.checkpoint import list_checkpoints, newest_valid
from tests.conftest import THOROUGH, job_of
from tests.guard.conftest import SETTINGS, still_running

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
NUM_KILLS = 20 if THOROUGH else 2
SIGNALS = [(1, 1), (100, 0), *([(77, 0), (50, 1), (99, 1)] if THOROUGH else [])]  # iteration and rank


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def essence(folder):
    return [
        {key: value for key, value in line.items() if key not in ("time", "images_per_s")} for line in lines(folder)
    ]


@pytest.fixture(scope="module")
def straight(start, tmp_path_factory):
    """The unbroken run: its digest and its metrics."""
    folder = tmp_path_factory.mktemp("straight")
    words = [word for setting in (*SETTINGS, f"output={folder}") for word in ("--set", setting)]
    done = start("launch/train.py", *words, "--emulate-np", "2")
    return done.stdout.split("digest ")[1].strip(), essence(folder / "digits")


@pytest.mark.parametrize(("t", "rank"), SIGNALS)
def test_a_signal_to_one_rank_stops_all_after_saving(attempt, straight, t, rank):
    ended = attempt(faults=f"term@{t}:{rank}", options=("--resume", "auto"))
    if t < 100:
        assert ended.outcome["exit_code"] == 75
        request = f"stopped on request (SIGTERM to rank {rank}): saved after iteration {t + 1}"
        assert ended.outcome["cause"].startswith(request)
        assert request in ended.text, "rank 0 prints it, whichever rank received the signal"
        stopped = newest_valid(list_checkpoints(ended.folder / "checkpoints")).newest
        assert stopped.name == f"iteration-{t + 1:09d}"
        ended = attempt(options=("--resume", "auto"), exit_code=0)
    assert ended.outcome["exit_code"] == 0  # the last update is made before a signal during it is heard of
    digest, metrics = straight
    assert ended.digest == digest
    assert essence(ended.folder) == metrics


def test_a_signal_under_mpirun_and_going_on_under_horovodrun(attempt, straight):
    ended = attempt(faults="term@77:1", options=("--resume", "auto"), launcher="mpirun")
    assert ended.outcome["exit_code"] == 75
    ended = attempt(options=("--resume", "auto"), exit_code=0)
    assert ended.digest == straight[0]


def test_during_an_evaluation_on_one_process(attempt, straight):
    ended = attempt(faults="term@evaluation:0", np=None, options=("--emulate-np", "2", "--resume", "auto"))
    assert (ended.code, ended.outcome["exit_code"]) == (75, 75)
    if not (ended.folder / "checkpoints/iteration-000000030").is_dir():
        assert (ended.folder / "checkpoints/iteration-000000031").is_dir()
    ended = attempt(np=None, options=("--emulate-np", "2", "--resume", "auto"), exit_code=0)
    assert (ended.digest, essence(ended.folder)) == straight


def test_a_long_evaluation_is_left_for_the_run_that_goes_on(attempt):
    settings = ("evaluation={every: 20it, metrics: [accuracy]}", "batch={size: 2, shards: 2}", "train={iterations: 40}")
    whole = attempt(*settings, exit_code=0)
    whole.folder.rename(whole.folder.with_name("whole"))
    ended = attempt(*settings, faults="term@evaluation:1", options=("--resume", "auto"))
    assert ended.outcome["exit_code"] == 75
    newest = newest_valid(list_checkpoints(ended.folder / "checkpoints")).newest
    assert json.loads((newest / "manifest.json").read_text())["state"]["evaluation_due"]
    assert newest.name == "iteration-000000020"
    again = attempt(*settings, options=("--resume", "auto"), exit_code=0)
    assert again.digest == whole.digest
    assert essence(again.folder) == essence(whole.folder.with_name("whole"))
    bests = [folder / "checkpoints/best.json" for folder in (again.folder, again.folder.with_name("whole"))]
    assert bests[0].read_text() == bests[1].read_text()


def test_during_the_finder(attempt):
    settings = (
        "lr.base=auto",
        "batch.shards=4",
        "finder={lr_start: 1e-4, lr_multiplier: 1.3}",
        "train={iterations: 40}",
    )
    ended = attempt(*settings, faults="term@finder:1")
    assert ended.outcome["exit_code"] == 75
    assert "stopped on request (SIGTERM to rank 1): the learning-rate finder restored" in ended.outcome["cause"]
    again = attempt(*settings, options=("--resume", "auto"), exit_code=0)
    assert again.outcome["exit_code"] == 0


def test_during_a_checkpoint_write(attempt):
    """The write of set 60 takes longer than the iterations to the signal: it is finished, and one more is written."""
    ended = attempt(faults="slow@59:0,term@64:0")
    assert ended.outcome["exit_code"] == 75
    found = newest_valid(list_checkpoints(ended.folder / "checkpoints"))
    assert (found.newest.name, found.rejected) == ("iteration-000000065", [])
    assert {path.name for path in ended.folder.glob("checkpoints/*")} >= {"iteration-000000060", "iteration-000000065"}
    assert not list(ended.folder.glob("checkpoints/.*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_every_signal_and_a_second_one(fork_server, tmp_path, number):
    """The first is heard of after the update; a second one stops at once, even in the middle of one."""
    words = [word for setting in (*SETTINGS, f"output={tmp_path}") for word in ("--set", setting)]
    job = subprocess.Popen(
        job_of(["tests/programs/faulty_train.py", "sleep@50:0", *words], None, fresh=THOROUGH),
        cwd=ROOT,
        env={**os.environ, **fork_server.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in job.stdout:
        if "STRIKE" in line:
            break
    job.send_signal(number)
    time.sleep(1.5)  # within a second it would be the same request
    assert job.poll() is None
    job.send_signal(number)
    text, _ = job.communicate(timeout=120)
    assert job.returncode == 128 + number
    assert f"{number.name} a second time: stopped at once" in text


class Supervised:
    """A job under the supervisor."""

    def __init__(self, server, tmp_path, *settings, faults="slow@1:0,slow@1:1", at_most=60, fresh=THOROUGH):
        self.folder = tmp_path / "digits"
        self.output = tmp_path
        words = [word for s in (*SETTINGS, *settings, f"output={tmp_path}") for word in ("--set", s)]
        words = [faults, *words, "--set", "checkpoint.every=20it"]
        supervisor = (sys.executable, "launch/supervise.py", "--pause", "0", "--at-most", str(at_most), "--")
        command = [*supervisor, *job_of(["tests/programs/faulty_train.py", *words], 2, fresh=fresh)]
        self.log = (tmp_path / "log").open("w+")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **server.environ},
        )

    def members(self):
        """The launcher first, then the ranks."""
        found = [pid for pid in still_running(self.output) if pid != self.process.pid]
        return sorted(found, key=lambda pid: b"horovodrun" not in Path(f"/proc/{pid}/cmdline").read_bytes())

    def end(self, timeout_s=400):
        try:
            self.process.wait(timeout=timeout_s)
        finally:
            self.process.kill()
            for pid in still_running(self.output):
                os.kill(pid, signal.SIGKILL)
            self.log.seek(0)
            self.text = self.log.read()
            self.log.close()
        return self.process.returncode


def test_killed_at_random_under_the_supervisor(fork_server, tmp_path, straight):
    generator = random.Random(5)
    job = Supervised(fork_server, tmp_path)
    kills = 0
    while kills < NUM_KILLS and job.process.poll() is None:
        time.sleep(generator.uniform(1.5, 4.5))
        try:
            members = job.members()
            what = generator.choice(("rank", "launcher", "all"))
            which = {"rank": members[1:], "launcher": members[:1], "all": members}[what]
            for pid in generator.sample(which, 1) if what != "all" and which else which:
                os.kill(pid, signal.SIGKILL)
                kills += what != "all"
            kills += what == "all"
        except (ProcessLookupError, FileNotFoundError):
            continue
    assert job.end() == 0, job.text[-3000:]
    assert kills == NUM_KILLS
    assert job.text.rpartition("digest ")[2].split()[0] == straight[0]
    assert not still_running(tmp_path)


def test_the_supervisor_passes_on_the_wish_to_stop(fork_server, tmp_path):
    job = Supervised(fork_server, tmp_path, fresh=True)  # it finds the ranks among the job's processes
    while not (job.folder / "metrics.jsonl").exists():
        time.sleep(0.1)
    job.process.send_signal(signal.SIGTERM)
    assert job.end() == 75, job.text[-3000:]
    assert "asking the ranks to save and stop" in job.text
    assert newest_valid(list_checkpoints(job.folder / "checkpoints")).newest is not None
    assert not still_running(tmp_path)


def test_the_supervisor_reaps_what_was_stopped(fork_server, tmp_path):
    job = Supervised(fork_server, tmp_path, "guard.stall_after_s=5", at_most=0, faults="stop@20:1", fresh=True)
    assert job.end() == 7
    assert not still_running(tmp_path)


def test_a_launcher_that_outlives_its_job_is_ended(start):
    """As mpirun does that waits for a host which is cut off: the rank has told how the job ended, and is gone."""
    program = """if True:
        import json, os, pathlib, time
        told = {"exit_code": 8, "cause": "no usable rate"}
        pathlib.Path(os.environ["HARNESS_JOB"], "outcome.json").write_text(json.dumps(told))
        time.sleep(600)
    """
    done = start("launch/supervise.py", "--grace", "0.5", "--", sys.executable, "-c", program, exit_code=8)
    assert "ended: exit code 8: no usable rate" in done.stderr


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--set", "lr.shedule=1"], 2),
        (["--set", "data.name=absent"], 3),
        (["--resume", "absent"], 4),
        (["--st", "a"], 2),
    ],
)
def test_the_supervisor_starts_nothing_again_that_cannot_go_well(start, tmp_path, more, code):
    command = job_of(["launch/train.py", "--set", f"output={tmp_path}", *more], None)
    done = start("launch/supervise.py", "--pause", "0", "--", *command, exit_code=code)
    assert done.stderr.count("supervise:") == 1
    assert f"ended: exit code {code}" in done.stderr


def test_the_command_of_a_start_that_goes_on():
    from harness.supervising.supervise import restart_command

    assert restart_command(["a", "--overwrite", "b"]) == ["a", "b", "--resume", "auto"]
    assert restart_command(["a", "--resume", "PATH"]) == ["a", "--resume", "PATH", "--resume", "auto"]
