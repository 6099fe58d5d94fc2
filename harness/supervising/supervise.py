"""The supervisor: restarts a job that was killed, lost a rank or was preempted, and leaves none of it running.

It stands above the launcher, which hides exit codes, kills ranks seconds after a signal, and may be killed itself. So
stop requests go to the ranks directly, `outcome.json` says how an attempt ended, and orphaned ranks become children of
this process (it is their subreaper), which ends them. If this process is killed, a reaper below it ends the job. When a
job has reported which run it trains, the supervisor holds that run until it ends, through its pauses too.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from harness.errors import ConfigError, LostRankError, StoppedOnRequestError
from harness.files import read_regular
from harness.folder import OUTCOME
from harness.folder.outcome import JOB_FOLDER, OutcomeFiles, read_outcome
from harness.folder.supervisor import supervised_folder, supervisor_lock, write_token
from harness.locks import FileLock, HeldError
from harness.parsing import whole_number
from harness.processes import kill
from harness.supervising.reaper import SET_CHILD_SUBREAPER
from harness.supervising.supervised_job import SupervisedJob

_POLL_S = 0.05
_MAX_PID_BYTES = 32
_MAX_PAUSE_S = 300.0
_LINGER_S = 5.0  # for ranks to end after their launcher has
_SAME_REQUEST_S = 1.0  # a terminal and a launcher both pass on the same Ctrl-C
_RESTARTED = (LostRankError.exit_code, StoppedOnRequestError.exit_code)
_SIGNAL_CODES = range(128 + 1, 128 + signal.NSIG)  # a shell's codes for killed processes; MPICH's 255 is not one


class AttemptEnd(NamedTuple):
    """How an attempt ended.

    Attributes:
        code: the job's exit code; `None` if nobody knows it.
        cause: in words.
        may_restart: whether another attempt could end otherwise.
    """

    code: int | None
    cause: str
    may_restart: bool


class Supervisor:
    """Runs one command until it is done, cannot be done, or was tried often enough."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        at_most: int,
        pause_s: float,
        grace_s: float,
        start_s: float,
    ) -> None:
        """Nothing is started yet.

        Args:
            command: the launcher and what it launches; `--resume auto` is added when it is restarted.
            at_most: how often it is restarted.
            pause_s: before the first restart; twice as long before every further one, five minutes at most.
            grace_s: how long ranks may take to save and end after a stop request, before they are killed; and how long
                a launcher may take to end after the job has (it would wait for ever for an unreachable host).
            start_s: in which the first rank of an attempt must have started.
        """
        self._command = list(command)
        self._at_most = at_most
        self._pause_s = pause_s
        self._grace_s = grace_s
        self._start_s = start_s
        self._stop_signal: str | None = None  # the name of the first one
        self._stop_s = 0.0
        self._kill_now = False  # after the second signal
        self._token = secrets.token_hex(16)
        self._locks: dict[Path, FileLock] = {}
        self._has_started = False  # whether a rank of any attempt has

    def run(self) -> int:
        """Start, watch, restart.

        Returns:
            The exit code of the last attempt's outcome; 1 if it left none, 2 if the command cannot be started; the
            launcher's, if it ended by itself before any rank of any attempt had started.
        """
        ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, self._handle_signal)
        try:
            return self._run_attempts()
        except ConfigError as error:
            _say(str(error))
            return error.exit_code
        finally:
            for lock in self._locks.values():
                lock.release(remove=True)

    def _run_attempts(self) -> int:
        code: int | None = None
        for attempt in range(self._at_most + 1):
            if attempt and not self._pause(attempt):
                return StoppedOnRequestError.exit_code
            end = self._run_attempt(is_restart=attempt > 0)
            code = end.code
            if self._stop_signal or not end.may_restart:
                _say(f"ended: {end.cause}")
                break
            left = self._at_most - attempt
            _say(f"{end.cause}; " + (f"restarting ({left} left)" if left else "that was the last attempt"))
        return 1 if code is None else code

    def _run_attempt(self, is_restart: bool) -> AttemptEnd:
        """One attempt, until nothing of it is running."""
        command = restart_command(self._command) if is_restart else self._command
        try:
            place = tempfile.TemporaryDirectory(prefix="harness-job-", ignore_cleanup_errors=True)
            write_token(Path(place.name), self._token)
        except OSError as error:
            raise ConfigError(
                f"cannot make a folder for the job ({error}); set TMPDIR to a folder with free space"
            ) from None
        with place as folder:
            job = Path(folder)
            with SupervisedJob(command, job, {**os.environ, JOB_FOLDER: folder}) as process:
                self._wait(process, job)
                self._end_leftovers(process, job)
            self._lock_run(job)
            self._has_started = self._has_started or _has_started(job)
            return self._end_of(job, process.poll())

    def _end_of(self, job: Path, launcher: int | None) -> AttemptEnd:
        """How an attempt has ended, by its outcome, or else by its launcher's exit code.

        If a launcher ends by itself before any rank has ever started, its command has a mistake, which a restart would
        repeat. If it was killed, or if ranks had started, the command was right.
        """
        outcome = read_outcome(job)
        if outcome is not None:
            code = outcome.exit_code
            return AttemptEnd(code, f"exit code {code}: {outcome.cause}", code in _RESTARTED)
        has_ended_by_itself = launcher is not None and launcher >= 0 and launcher not in _SIGNAL_CODES
        if launcher is not None and has_ended_by_itself and not self._has_started and not self._stop_signal:
            return AttemptEnd(launcher, _explain_no_start(self._command, launcher), may_restart=False)
        found = "unreadable outcome" if (job / OUTCOME).exists() else "no outcome"
        cause = f"{found}: killed, or never started (its launcher ended with {launcher})"
        return AttemptEnd(None, cause, may_restart=True)

    def _wait(self, process: SupervisedJob, job: Path) -> None:
        """Wait for the launcher, and act on stop requests and time limits meanwhile."""
        is_passed_on, began_s = False, time.monotonic()
        while process.poll() is None:
            self._lock_run(job)
            stopping_s = time.monotonic() - self._stop_s if self._stop_signal else 0.0
            if self._kill_now or max(stopping_s, _ended_s(job)) > self._grace_s:
                kill(process.members())
            elif self._stop_signal and not is_passed_on:
                is_passed_on = _request_stop(process, job)  # again, until a rank has started that can be asked
            if time.monotonic() - began_s > self._start_s and not _has_started(job):
                text = f"no rank has started within {self._start_s:g} s, so its launcher was ended"
                OutcomeFiles(0, "", {JOB_FOLDER: str(job)}).write(LostRankError.exit_code, text)
                kill(process.members())
            time.sleep(_POLL_S)

    def _end_leftovers(self, process: SupervisedJob, job: Path) -> None:
        """End the processes that the launcher has left behind: ask ranks that are still at work, then kill."""
        deadline_s = time.monotonic() + _LINGER_S
        while process.members() and time.monotonic() < deadline_s and not self._kill_now:
            time.sleep(_POLL_S)
        if process.members() and read_outcome(job) is None and _request_stop(process, job):
            deadline_s = time.monotonic() + self._grace_s
            while process.members() and time.monotonic() < deadline_s and not self._kill_now:
                time.sleep(_POLL_S)
        while members := process.members():
            kill(members)
            _reap()
            time.sleep(_POLL_S)
        _reap()

    def _lock_run(self, job: Path) -> None:
        """Keep other supervisors, and whoever starts a job by hand, from the run that this job has reported."""
        folder = supervised_folder(job)
        if folder is None or folder in self._locks or not folder.is_dir():
            return
        lock = supervisor_lock(folder)
        with suppress(OSError, HeldError):  # somebody looks at it right now; this method is called again
            lock.acquire("supervisor process", self._token)
            self._locks[folder] = lock

    def _pause(self, attempt: int) -> bool:
        """Wait before the next attempt; whether there is to be one."""
        end_s = time.monotonic() + min(_MAX_PAUSE_S, self._pause_s * 2 ** (attempt - 1))
        while time.monotonic() < end_s and not self._stop_signal:
            time.sleep(_POLL_S)
        return not self._stop_signal

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._stop_signal is None:
            self._stop_signal, self._stop_s = signal.Signals(number).name, now_s
            _say(f"{self._stop_signal}: asking the ranks to save and stop; signal again to kill them")
        elif now_s - self._stop_s > _SAME_REQUEST_S:
            self._kill_now = True


def restart_command(command: Sequence[str]) -> list[str]:
    """The command of a restart: it resumes from the newest checkpoint, and does not start over."""
    words = [word for word in command if word != "--overwrite"]
    return [*words, "--resume", "auto"]  # if there are two, the last one counts


def _request_stop(process: SupervisedJob, job: Path) -> bool:
    """Ask the ranks of this host to save and stop; whether there was one. One rank passes it on to all."""
    has_asked = False
    alive = set(process.members())
    for path in job.glob("rank-*.pid"):
        with suppress(OSError, UnicodeDecodeError):
            pid = whole_number(read_regular(path, _MAX_PID_BYTES).decode("ascii").strip())
            if pid in alive:
                os.kill(pid, signal.SIGTERM)
                has_asked = True
    return has_asked


def _has_started(job: Path) -> bool:
    """Whether a rank has started, or the job has already ended."""
    return any(job.glob("rank-*.pid")) or (job / OUTCOME).exists()


def _explain_no_start(command: Sequence[str], launcher: int) -> str:
    """What to say of a command that has ended by itself before any rank had started."""
    ended = f"no rank has started, and its launcher ended with {launcher} ({command[0]})"
    if launcher == 0:
        return f"{ended}: not a training job, so there is nothing to restart"
    return (
        f"{ended}: a restart would end in the same way. See its messages above; check the launcher's options, the "
        "program's path and the environment"
    )


def _ended_s(job: Path) -> float:
    """For how long there has been an outcome, by the file system's clock; a link may lead to what is far older."""
    with suppress(OSError):
        return time.time() - (job / OUTCOME).lstat().st_mtime
    return 0.0


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _say(text: str) -> None:
    print(f"supervise: {text}", file=sys.stderr, flush=True)
