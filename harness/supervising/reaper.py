"""Stands between a supervisor and its job: a program of its own, which ends the job when the supervisor is killed.

`python -I reaper.py ORDERS REPORTS`, two open pipes. It reads the command from ORDERS, starts it, and reports how it
ended on REPORTS. All processes of the job stay below this one, their subreaper, whatever session they are in. If ORDERS
is closed without a goodbye, nobody is left to watch over the job, and all of it is killed.

The command line names neither the supervisor nor the job, so whoever kills those by name does not kill the reaper. It
imports nothing of the harness but `processes.py`, by its path: importing the package takes as long as a short job.
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
GOODBYE = b"done\n"
_POLL_S = 0.05
_MAX_KILL_S = 60.0  # a process that waits for a dead disk cannot be killed


def _load_processes() -> Any:
    spec = importlib.util.spec_from_file_location("processes", Path(__file__).parents[1] / "processes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Start the command, reap its processes, and kill those that are left when the supervisor is gone."""
    orders, reports = int(sys.argv[1]), int(sys.argv[2])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, _ignore)  # not SIG_IGN, which the job would inherit
    with os.fdopen(orders, "rb", buffering=0) as waiting:
        order = json.loads(_read_line(waiting))
        try:
            # if this process is killed as well, the kernel ends the launcher
            job = subprocess.Popen(
                order["command"],
                start_new_session=True,
                preexec_fn=lambda: libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
            )
        except (OSError, ValueError) as error:
            _report(reports, {"failed": getattr(error, "strerror", None) or str(error)})
            return 0
        message = b""
        while not _is_over(waiting):
            _reap(job.pid, reports)
        with suppress(OSError):
            message = waiting.read(len(GOODBYE)) or b""
    if message != GOODBYE:
        processes = _load_processes()
        left = _end(processes, job.pid, reports)
        print(f"supervise: the supervisor was killed: ended its job, {left} processes", file=sys.stderr, flush=True)
        shutil.rmtree(order["job"], ignore_errors=True)
    return 0


def _ignore(number: int, frame: object) -> None:
    """The supervisor handles signals."""


def _read_line(file: Any) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = file.read(65536)
        if not piece:
            raise SystemExit(1)  # the supervisor was killed before it had sent the command
        line += piece
    return line


def _is_over(file: Any) -> bool:
    return bool(select.select([file], [], [], _POLL_S)[0])


def _reap(launcher: int, reports: int) -> None:
    """Collect the exit codes of children and orphans, and report the launcher's."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == launcher:
                _report(reports, {"ended": os.waitstatus_to_exitcode(ended[1])})


def _report(reports: int, content: dict[str, object]) -> None:
    with suppress(OSError):
        os.write(reports, json.dumps(content).encode() + b"\n")


def _end(processes: Any, launcher: int, reports: int) -> int:
    """Kill everything below this process; how many processes that were."""
    killed: set[int] = set()
    deadline = time.monotonic() + _MAX_KILL_S
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
