"""Stands between a supervisor and its job: a program of its own, which ends the job when the supervisor is killed.

`python -I reaper.py ORDERS REPORTS`, two open pipes. It reads the command from ORDERS, starts it, and says on REPORTS
how it ended. Whatever the job starts stays below this process, its subreaper, in whatever session it is. When ORDERS
ends without a farewell, nobody is left to watch over the job, and all of it is killed.

Its command line names neither the supervisor nor the job, so what ends those by name does not end this. Imports nothing
of the harness but `processes.py`, and that by its file: the package would take as long as a short job.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

SET_CHILD_SUBREAPER, _SET_PDEATHSIG = 36, 1  # of prctl(2)
FAREWELL = b"done\n"
_POLL_S = 0.05
_LONGEST_S = 60.0  # to kill what a dead disk keeps from dying


def _load_processes() -> Any:
    spec = importlib.util.spec_from_file_location("processes", Path(__file__).parents[1] / "processes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Start the command, reap, and kill what is left when the supervisor has gone."""
    orders, reports = int(sys.argv[1]), int(sys.argv[2])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, _nothing)  # and not SIG_IGN, which the job would inherit
    with os.fdopen(orders, "rb", buffering=0) as waiting:
        order = json.loads(_read_line(waiting))
        try:
            # should this process be killed as well, its launcher ends with it
            job = subprocess.Popen(
                order["command"],
                start_new_session=True,
                preexec_fn=lambda: libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
            )
        except (OSError, ValueError) as error:
            _report(reports, {"failed": getattr(error, "strerror", None) or str(error)})
            return 0
        said = b""
        while not _is_over(waiting):
            _reap(job.pid, reports)
        with suppress(OSError):
            said = waiting.read(len(FAREWELL)) or b""
    if said != FAREWELL:
        processes = _load_processes()
        left = _end(processes, job.pid, reports)
        print(f"supervise: the supervisor was killed: ended its job, {left} processes", file=sys.stderr, flush=True)
        shutil.rmtree(order["job"], ignore_errors=True)
    return 0


def _nothing(number: int, frame: object) -> None:
    """A signal is the supervisor's concern."""


def _read_line(file: Any) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = file.read(65536)
        if not piece:
            raise SystemExit(1)  # the supervisor was killed before it said what to start
        line += piece
    return line


def _is_over(file: Any) -> bool:
    return bool(select.select([file], [], [], _POLL_S)[0])


def _reap(launcher: int, reports: int) -> None:
    """Take the exit codes of children and orphans; the launcher's is reported."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == launcher:
                _report(reports, {"ended": os.waitstatus_to_exitcode(ended[1])})


def _report(reports: int, content: dict[str, Any]) -> None:
    with suppress(OSError):
        os.write(reports, json.dumps(content).encode() + b"\n")


def _end(processes: Any, launcher: int, reports: int) -> int:
    """Kill everything below this process; how many processes that were."""
    killed: set[int] = set()
    deadline = time.monotonic() + _LONGEST_S
    while (found := processes.descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        _reap(launcher, reports)
        time.sleep(_POLL_S)
    return len(killed)


if __name__ == "__main__":
    sys.exit(main())
