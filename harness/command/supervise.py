"""Starts a job again that was killed, lost a rank or was preempted; and leaves nothing of it running.

It stands above the launcher, which hides exit codes, kills ranks seconds after a signal, and may be killed itself: the
wish to stop goes to the ranks directly, how an attempt ended is read from `outcome.json`, and orphaned ranks come to
this process (as their subreaper) and are ended by it. Should it be killed itself, a reaper below it ends the job. Once
a job has said which run it trains, this process keeps that run until it ends, through its pauses too.
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

from harness.command.reaped import ReapedJob
from harness.command.reaper import SET_CHILD_SUBREAPER
from harness.errors import ConfigError, LostRankError, StoppedOnRequestError
from harness.files import read_regular
from harness.folder import OUTCOME
from harness.folder.outcome import JOB_FOLDER, OutcomeFiles, read_outcome
from harness.folder.supervisor import introduce_supervisor, lock_of_supervisor, told_folder
from harness.guard.startup import START_LIMIT_S
from harness.locks import FileLock, HeldError
from harness.processes import kill

_POLL_S = 0.05
_LONGEST_PID = 32  # bytes
_LONGEST_PAUSE_S = 300.0
_LINGER_S = 5.0  # for ranks whose launcher has ended, to end as well
_AGAIN = (LostRankError.exit_code, StoppedOnRequestError.exit_code)
_OF_SIGNALS = range(128 + 1, 128 + signal.NSIG)  # as a shell tells of what was killed; beyond them is MPICH's 255


class _End(NamedTuple):
    """How an attempt ended: the job's exit code, `None` if nobody knows it; and whether to start it again."""

    code: int | None
    cause: str
    again: bool


class Supervisor:
    """Runs one command until it is done, cannot be, or was tried often enough."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        at_most: int,
        pause_s: float,
        grace_s: float,
        start_s: float = START_LIMIT_S,
    ) -> None:
        """Nothing is started yet.

        Args:
            command: the launcher and what it launches; `--resume auto` is added when it is started again.
            at_most: how often it is started again.
            pause_s: before the first start again; twice as long before every further one, five minutes at most.
            grace_s: how long ranks may take to save and end once they were asked to, before they are killed; and
                how long a launcher may take to end after the job has, which waits in vain for a host that is cut off.
            start_s: in which the first rank of an attempt must have started.
        """
        self._command = list(command)
        self._at_most = at_most
        self._pause_s = pause_s
        self._grace_s = grace_s
        self._start_s = start_s
        self._asked: str | None = None
        self._asked_s = 0.0
        self._at_once = False
        self._word = secrets.token_hex(16)
        self._kept: dict[Path, FileLock] = {}
        self._begun = False  # whether a rank of any attempt has started

    def run(self) -> int:
        """Start, watch, start again.

        Returns:
            The exit code of the last attempt's outcome; 1 if it left none, 2 if the command cannot be started; the
            launcher's, if it ended by itself before any rank of any attempt had come.
        """
        ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, self._take)
        try:
            return self._run()
        except ConfigError as error:
            _say(str(error))
            return error.exit_code
        finally:
            for lock in self._kept.values():
                lock.release(remove=True)

    def _run(self) -> int:
        code: int | None = None
        for attempt in range(self._at_most + 1):
            if attempt and not self._pause(attempt):
                return StoppedOnRequestError.exit_code
            end = self._attempt(again=attempt > 0)
            code = end.code
            if self._asked or not end.again:
                _say(f"ended: {end.cause}")
                break
            left = self._at_most - attempt
            _say(f"{end.cause}; " + (f"starting again ({left} left)" if left else "that was the last attempt"))
        return 1 if code is None else code

    def _attempt(self, again: bool) -> _End:
        """One attempt, to its very end."""
        command = again_command(self._command) if again else self._command
        try:
            place = tempfile.TemporaryDirectory(prefix="harness-job-", ignore_cleanup_errors=True)
            introduce_supervisor(Path(place.name), self._word)
        except OSError as error:
            raise ConfigError(f"no folder for the job can be made ({error}); set TMPDIR to one with room") from None
        with place as folder:
            job = Path(folder)
            with ReapedJob(command, job, {**os.environ, JOB_FOLDER: folder}) as process:
                self._wait(process, job)
                self._clear(process, job)
            self._keep(job)
            self._begun = self._begun or _has_begun(job)
            return self._end(job, process.poll())

    def _end(self, job: Path, launcher: int | None) -> _End:
        """How an attempt has ended, by its outcome, or else by its launcher's exit code.

        A launcher that ends by itself before any rank has ever come has a mistake in its command, which is still there
        after a start again; one that was killed, and ranks that had come, were well.
        """
        outcome = read_outcome(job)
        if outcome is not None:
            code = outcome.exit_code
            return _End(code, f"exit code {code}: {outcome.cause}", code in _AGAIN)
        if (
            not self._begun
            and not self._asked
            and launcher is not None
            and launcher >= 0
            and launcher not in _OF_SIGNALS
        ):
            return _End(launcher, _never_begun(self._command, launcher), again=False)
        left = "no outcome that can be read" if (job / OUTCOME).exists() else "no outcome"
        return _End(None, f"{left}: killed, or never begun (its launcher ended with {launcher})", again=True)

    def _wait(self, process: ReapedJob, job: Path) -> None:
        passed, begun_s = False, time.monotonic()
        while process.poll() is None:
            self._keep(job)
            asked_for_s = time.monotonic() - self._asked_s if self._asked else 0.0
            if self._at_once or max(asked_for_s, _ended_s(job)) > self._grace_s:
                kill(process.members())
            elif self._asked and not passed:
                passed = _ask(process, job)  # a job that has no ranks yet is asked when it has
            if time.monotonic() - begun_s > self._start_s and not _has_begun(job):
                text = f"no rank has started within {self._start_s:g} s, so its launcher was ended"
                OutcomeFiles(0, "", {JOB_FOLDER: str(job)}).write(LostRankError.exit_code, text)
                kill(process.members())
            time.sleep(_POLL_S)

    def _clear(self, process: ReapedJob, job: Path) -> None:
        """End what the launcher has left behind: ask, if the ranks are still at work, then kill."""
        deadline = time.monotonic() + _LINGER_S
        while process.members() and time.monotonic() < deadline and not self._at_once:
            time.sleep(_POLL_S)
        if process.members() and read_outcome(job) is None and _ask(process, job):
            deadline = time.monotonic() + self._grace_s
            while process.members() and time.monotonic() < deadline and not self._at_once:
                time.sleep(_POLL_S)
        while members := process.members():
            kill(members)
            _reap()
            time.sleep(_POLL_S)
        _reap()

    def _keep(self, job: Path) -> None:
        """Keep the run that the job has told of from other supervisors, and from whoever starts it by hand."""
        folder = told_folder(job)
        if folder is None or folder in self._kept or not folder.is_dir():
            return
        lock = lock_of_supervisor(folder)
        with suppress(OSError, HeldError):  # held for a moment by whoever looks; this is called again
            lock.acquire("supervisor process", self._word)
            self._kept[folder] = lock

    def _pause(self, attempt: int) -> bool:
        """Wait before the next attempt; whether there is to be one."""
        end = time.monotonic() + min(_LONGEST_PAUSE_S, self._pause_s * 2 ** (attempt - 1))
        while time.monotonic() < end and not self._asked:
            time.sleep(_POLL_S)
        return not self._asked

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked, self._asked_s = signal.Signals(number).name, now
            _say(f"{self._asked}: asking the ranks to save and stop; once more to kill them")
        elif now - self._asked_s > 1.0:
            self._at_once = True


def again_command(command: Sequence[str]) -> list[str]:
    """The command of a start that goes on: from the newest set, wherever the first start began, and not anew."""
    words = [word for word in command if word != "--overwrite"]
    return [*words, "--resume", "auto"]  # of two the last one counts


def _ask(process: ReapedJob, job: Path) -> bool:
    """Ask the ranks of this host to save and stop; whether there was any. One rank's wish is everybody's."""
    asked = False
    alive = set(process.members())
    for path in job.glob("rank-*.pid"):
        with suppress(OSError, ValueError):
            pid = int(read_regular(path, _LONGEST_PID))
            if pid in alive:
                os.kill(pid, signal.SIGTERM)
                asked = True
    return asked


def _has_begun(job: Path) -> bool:
    """Whether a rank has started, or the job has already ended."""
    return any(job.glob("rank-*.pid")) or (job / OUTCOME).exists()


def _never_begun(command: Sequence[str], launcher: int) -> str:
    """What to say of a command that has ended by itself before any rank had come."""
    ended = f"no rank has begun, and its launcher ended with {launcher} ({command[0]})"
    if launcher == 0:
        return f"{ended}: not a training job, so there is nothing to start again"
    return (
        f"{ended}: a start again would end in the same way. See what it said above; check the launcher's options, the "
        "program's path and the environment"
    )


def _ended_s(job: Path) -> float:
    """For how long there has been an outcome, by the clock of the files."""
    with suppress(OSError):
        return time.time() - (job / "outcome.json").stat().st_mtime
    return 0.0


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _say(text: str) -> None:
    print(f"supervise: {text}", file=sys.stderr, flush=True)
