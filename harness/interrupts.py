"""Ctrl-C from the first line of a program on: one line and an exit code, no traceback. Imports nothing slow.

A run that is asked to stop before its own handlers are installed has changed nothing: it ends at once, with the code
of a run that can be restarted (75). A tool unwinds, so that the processes it has started end too, with the code that
shells expect (130).
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn

from harness.parsing import whole_number

STOPPED = 75
INTERRUPTED = 128 + signal.SIGINT


class _StopAtOnce:
    """Handles a signal before anything is changed."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Print one line and end, even if the main thread is deep in an import."""
        text = stopped_before_start(signal.Signals(number).name)
        os.write(2, f"{text}\n".encode())
        _tell_supervisor(text)
        leave_job(STOPPED)


def _tell_supervisor(text: str) -> None:
    """Write the outcome for a supervisor; the module that usually does may not be imported yet."""
    job = os.environ.get("HARNESS_JOB", "")
    with suppress(OSError):
        if os.path.isdir(job):
            own = os.path.join(job, f".outcome.{os.getpid()}")
            with open(own, "w", encoding="ascii") as file:
                file.write(f'{{"attempt": "", "exit_code": {STOPPED}, "cause": "{text}"}}\n')
            os.replace(own, os.path.join(job, "outcome.json"))


def stopped_before_start(signal_name: str, rank: int | None = None) -> str:
    """The message of a run that is asked to stop before it has changed anything.

    Args:
        signal_name: such as `SIGTERM`.
        rank: that received it, if there are several.
    """
    who = "" if rank is None else f" to rank {rank}"
    return f"stopped on request ({signal_name}{who}) before the first update; nothing was changed"


def leave_job(exit_code: int) -> NoReturn:
    """End this process, and make MPICH's launcher end the others.

    If a process ends before it has called MPI_Init, that launcher waits for the others, whatever the exit code, unless
    it is asked to abort the job.

    Args:
        exit_code: of the process, and of the launcher.
    """
    launcher = os.environ.get("PMI_FD", "")
    with suppress(OSError):
        descriptor = whole_number(launcher)
        if descriptor is not None and stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            os.write(descriptor, f"cmd=abort exitcode={exit_code}\n".encode())
    os._exit(exit_code)


def stop_run_at_once() -> None:
    """Until a run installs its own handlers, SIGINT and SIGTERM end the process with one line and 75."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _StopAtOnce())


def end_of_run() -> None:
    """The run is over, so a signal ends the process without a message, unlike `stop_run_at_once` would."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if isinstance(signal.getsignal(number), _StopAtOnce):
            signal.signal(number, signal.SIG_DFL)


def end_tool_quietly() -> None:
    """From now on, Ctrl-C ends the program with one line and 130."""
    before = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _was_interrupted(error):
            before(kind, error, trace)
            return
        sys.stdout.flush()
        print(f"{os.path.basename(sys.argv[0])}: stopped by Ctrl-C", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)

    sys.excepthook = show


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether an error began as Ctrl-C; libraries turn it into an ImportError while they are imported."""
    for _ in range(50):
        if error is None or isinstance(error, KeyboardInterrupt):
            break
        error = error.__cause__ or error.__context__
    return isinstance(error, KeyboardInterrupt)
