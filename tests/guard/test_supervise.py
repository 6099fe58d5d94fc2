"""A supervisor that is killed, that is a run's second one, whose command cannot be started, or whose job lies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.folder.supervisor import supervised_folder, supervisor_lock
from harness.locks import holder_of
from harness.processes import descendants
from tests.conftest import THOROUGH, launched_by

ROOT = Path(__file__).parents[2]
SUPERVISE = [sys.executable, "launch/supervise.py", "--pause", "0"]
# ranks in sessions of their own, below launchers that have ended
ESCAPING = ["sh", "-c", 'setsid sh -c "setsid sleep 600 & sleep 601" & setsid sleep 602 & exec sleep 603']


class Supervised:
    """A supervisor of a job whose processes are known by a variable in their environment."""

    def __init__(self, tmp_path, *command, **environ):
        self.mark = f"OF_TEST={tmp_path}".encode()
        self.log = tmp_path / "log"
        self.jobs = tmp_path / "tmp"
        self.jobs.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*SUPERVISE, *command],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, "OF_TEST": str(tmp_path), "TMPDIR": str(self.jobs), **environ},
                start_new_session=True,
            )

    def members(self, *words):
        """The job's processes whose command line has some words; all but the supervisor if there are none."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    line = (entry / "cmdline").read_bytes().decode()
                    if self.mark in (entry / "environ").read_bytes().split(b"\0") and all(
                        word in line for word in words
                    ):
                        found.append(int(entry.name))
                except (OSError, UnicodeDecodeError):
                    continue
        return found

    def wait_for(self, count, *words):
        self._wait(lambda: len(self.members(*words)) >= count)

    def only(self, *words):
        """The one process with these words; for a moment a child that has not yet become its program has them too."""
        self._wait(lambda: len(self.members(*words)) == 1)
        return self.members(*words)[0]

    def _wait(self, holds):
        deadline = time.monotonic() + 120
        while not holds():
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)

    def wait_until_gone(self, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while self.members() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not self.members(), self.text

    @property
    def text(self):
        return self.log.read_text()


@pytest.fixture
def supervised(tmp_path):
    started = []

    def start(*command, **environ):
        started.append(Supervised(tmp_path, *command, **environ))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        for pid in one.members():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("command", [ESCAPING, [*launched_by("mpirun", 2), "sleep", "600"]], ids=["sessions", "mpirun"])
def test_a_supervisor_that_is_killed_takes_its_job_with_it(supervised, command):
    job = supervised("--", *command)
    job.wait_for(2, "sleep")
    job.process.kill()
    job.wait_until_gone()
    assert re.search(r"the supervisor was killed: ended its job, \d+ processes", job.text)
    assert not list(job.jobs.iterdir())


def test_nothing_else_ends_the_reaper_by_name(supervised):
    """`pkill -KILL -f supervise.py`, or the name of the program, must not end what ends the job."""
    job = supervised("--", sys.executable, "-c", "import time; time.sleep(600)", "launch/train.py")
    job.wait_for(1, "train.py")
    reaper = job.only("reaper.py")
    line = Path(f"/proc/{reaper}/cmdline").read_bytes()
    assert b"supervise.py" not in line
    assert b"train.py" not in line
    job.process.kill()
    job.wait_until_gone()


def test_a_supervisor_that_is_stopped_and_killed_cleans_up(supervised):
    job = supervised("--", *ESCAPING)
    job.wait_for(4, "sleep")
    job.process.send_signal(signal.SIGSTOP)
    job.process.kill()
    job.wait_until_gone()


def test_a_reaper_that_is_killed_leaves_the_job_to_the_supervisor(supervised):
    job = supervised("--at-most", "0", "--", *ESCAPING)
    job.wait_for(4, "sleep")
    reaper = job.only("reaper.py")
    os.kill(reaper, signal.SIGKILL)
    assert job.process.wait(timeout=120) == 1
    assert "no outcome: killed" in job.text
    assert not job.members()


def test_a_launcher_ends_with_both(supervised):
    job = supervised("--", "sleep", "600")
    job.wait_for(1, "sleep")
    reaper = job.only("reaper.py")
    job.process.send_signal(signal.SIGSTOP)
    os.kill(reaper, signal.SIGKILL)
    job.process.kill()
    job.wait_until_gone()


def test_a_second_supervisor_is_told_who_keeps_the_run(supervised, tmp_path):
    """The first one only waits before it starts its job again: nobody has the folder."""
    run = tmp_path / "runs" / "x"
    rank = [sys.executable, "tests/programs/short_rank.py", str(run)]
    first = supervised("--pause", "60", "--", *rank, "7,0,0")
    deadline = time.monotonic() + 120
    while "restarting" not in first.text and time.monotonic() < deadline:
        time.sleep(0.02)
    holder = holder_of(supervisor_lock(run).path)
    assert holder.owner.startswith(f"supervisor process {first.process.pid} on ")
    second = subprocess.run([*SUPERVISE, "--", *rank, "0"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    by_hand = subprocess.run([*rank, "0"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    for done in (second, by_hand):
        assert done.returncode == 2
        assert f"{run}: supervisor process {first.process.pid} on " in done.stderr
        assert "keeps this run and restarts it when necessary; wait until it has ended" in done.stderr
    assert second.stderr.count("supervise:") == 1
    assert (run / "starts").read_text() == "."
    first.process.kill()
    first.process.wait()
    assert subprocess.run([*rank, "7,0"], cwd=ROOT, timeout=240, check=True).returncode == 0


def test_a_supervisor_starts_its_own_run_again(supervised, tmp_path):
    run = tmp_path / "runs" / "x"
    job = supervised("--", sys.executable, "tests/programs/short_rank.py", str(run), "7,75,0")
    assert job.process.wait(timeout=240) == 0, job.text
    assert (run / "starts").read_text() == "..."
    assert not supervisor_lock(run).path.exists()


LIES = {
    "deep": "json = '[' * 100_000; path.write_text(json)",
    "text": """path.write_text('{"attempt": "a", "exit_code": "seven", "cause": "x"}')""",
    "digits": """path.write_text('{"attempt": "a", "exit_code": ' + '9' * 5000 + ', "cause": "x"}')""",
    "unknown": """path.write_text('{"attempt": "a", "exit_code": 200, "cause": "x"}')""",
    "list": "path.write_text('[7]')",
    "fifo": "os.mkfifo(path)",
    "device": "path.symlink_to('/dev/zero'); import time; time.sleep(0.5)",  # the supervisor sees it before the end
    "folder": "path.mkdir()",
    "huge": "path.open('wb').truncate(1 << 40)",
    "bytes": "path.write_bytes(bytes(range(256)))",
}


@pytest.mark.parametrize("lie", LIES if THOROUGH else ["text", "fifo", "device"])
def test_an_outcome_that_cannot_be_read_is_none(tmp_path, lie):
    program = f"import os, pathlib; path = pathlib.Path(os.environ['HARNESS_JOB'], 'outcome.json'); {LIES[lie]}"
    done = subprocess.run(
        [*SUPERVISE, "--at-most", "0", "--grace", "60", "--", sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "supervise: unreadable outcome: killed, or never started (its launcher ended with 0); that was the last attempt"
    ]


@pytest.mark.parametrize("name", ["run", "rank-0.pid", "supervisor"])
def test_other_files_of_a_job_may_lie_too(supervised, name):
    program = f"""if True:
        import os, pathlib, time
        path = pathlib.Path(os.environ["HARNESS_JOB"], {name!r})
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        time.sleep(600)
    """
    job = supervised("--grace", "1", "--", sys.executable, "-c", program)
    deadline = time.monotonic() + 120
    while not [path for path in job.jobs.glob(f"*/{name}") if path.is_fifo()] and time.monotonic() < deadline:
        time.sleep(0.02)
    job.process.terminate()
    assert job.process.wait(timeout=120) == 1
    assert "Traceback" not in job.text
    assert not job.members()


def test_a_folder_that_is_told_must_be_a_path(tmp_path):
    for content in (b"", b"a\0b", b"\xff", b"x" * 20_000):
        (tmp_path / "run").write_bytes(content)
        assert supervised_folder(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"\x7fELF", 0o755, "Exec format error"),
        (b"#!/absent\n", 0o755, "No such file"),
        (b"", 0o644, "no such program"),
    ],
)
def test_a_command_that_cannot_be_started_is_not_started_again(tmp_path, content, mode, said):
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(mode)
    done = subprocess.run([*SUPERVISE, "--", str(program)], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "restarting" not in done.stderr


def test_without_a_place_for_the_jobs_folder(tmp_path):
    """`TMPDIR` that is absent is passed over; one whose disk is full is not seen before it is written to."""
    program = "import tempfile\ndef fail(*_, **__): raise FileNotFoundError(2, 'No usable temporary directory')\n"
    program += "tempfile.TemporaryDirectory = fail\nimport runpy, sys\n"
    program += "sys.argv = ['supervise.py', '--', 'true']\nrunpy.run_path('launch/supervise.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "set TMPDIR to a folder with free space" in done.stderr


def test_no_process_of_a_finished_job_is_left():
    done = subprocess.run(
        [*SUPERVISE, "--at-most", "0", "--", "sh", "-c", "setsid sleep 0.3 & exit 5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "its launcher ended with 5" in done.stderr
    assert not [pid for pid in descendants(os.getpid()) if "reaper" in Path(f"/proc/{pid}/cmdline").read_text()]


def supervised_to_the_end(*command):
    return subprocess.run(
        [*SUPERVISE, "--at-most", "2", "--", *command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


NEVER_BEGUN = {
    "program": (["python", "launch/trian.py"], 2),
    "ranks": ([*launched_by("mpirun", 2), "python", "launch/trian.py"], 2),
    "launcher's option": ([*launched_by("mpirun", 2), "--bogus", "python", "launch/train.py"], 255),
    "import": ([sys.executable, "-c", "import nothing_here"], 1),
    "false": (["false"], 1),
    "shell": (["bash", "-c", "exit 3"], 3),
    "code of a lost rank": (["bash", "-c", "exit 7"], 7),
    "code of a stop": (["bash", "-c", "exit 75"], 75),
    "absent in a shell": (["bash", "-c", "no-such-launcher"], 127),
}


@pytest.mark.parametrize("case", NEVER_BEGUN)
def test_what_ends_by_itself_before_a_rank_has_begun_is_not_started_again(case):
    command, code = NEVER_BEGUN[case]
    done = supervised_to_the_end(*map(str, command))
    assert done.returncode == code, done.stderr
    assert done.stderr.count("supervise:") == 1
    assert f"ended: no rank has started, and its launcher ended with {code} ({command[0]})" in done.stderr
    assert "check the launcher's options" in done.stderr


@pytest.mark.parametrize("command", [["true"], [sys.executable, "launch/plan.py", "--help"]])
def test_what_is_no_training_job_ends_well(command):
    done = supervised_to_the_end(*command)
    assert done.returncode == 0
    assert done.stderr.count("supervise:") == 1
    assert "not a training job" in done.stderr


@pytest.mark.parametrize("end", ["kill -KILL $$", "exit 137", "exit 143"])
def test_what_was_killed_before_a_rank_has_begun_is_started_again(end):
    done = supervised_to_the_end("bash", "-c", end)
    assert done.returncode == 1
    assert done.stderr.count("restarting") == 2
    assert done.stderr.splitlines()[-1].endswith("that was the last attempt")


def test_what_ends_without_an_outcome_once_a_rank_has_come_is_started_again(tmp_path):
    """The second attempt does not get as far, as on a host that is still recovering."""
    program = f'[ -e {tmp_path}/second ] || echo $$ > "$HARNESS_JOB/rank-0.pid"; touch {tmp_path}/second; exit 9'
    done = supervised_to_the_end("bash", "-c", program)
    assert done.returncode == 1
    assert done.stderr.count("restarting") == 2
    assert done.stderr.splitlines()[-1].endswith("that was the last attempt")
