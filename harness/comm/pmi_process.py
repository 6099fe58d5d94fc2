"""Rank 0's child process that serves PMI-1 (`pmi_server.py`): started early, told what to serve, and reaped."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from harness.comm.pmi import PmiJob

_PROGRAM = Path(__file__).with_name("pmi_server.py")
_END_S = 5.0


class PmiProcess:
    """The running server; it ends when its ranks have."""

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        """Start it; it takes over the listeners, and waits for `serve`.

        Raises:
            OSError: if no process can be started.
        """
        read_orders, self._orders = os.pipe()
        numbers = [listener.fileno() for listener in listeners]
        try:
            # None of the launcher's pipes, which it reads until all copies are closed; a session of its own, so that
            # Ctrl-C in a terminal reaches the ranks alone.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM), *map(str, [read_orders, *numbers])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(read_orders, *numbers),
                start_new_session=True,
            )
        except OSError:
            os.close(self._orders)
            raise
        finally:
            os.close(read_orders)
            for listener in listeners:
                listener.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def serve(self, job: PmiJob, peers: Collection[str]) -> None:
        """Let it accept the ranks of a job, from these addresses."""
        order = {
            "name": job.name,
            "ids": job.ids,
            "mapping": job.mapping,
            "peers": sorted(peers),
            "parent": os.getpid(),
        }
        with suppress(BrokenPipeError):  # it was killed; ranks will not be connected, and the guard says so
            os.write(self._orders, json.dumps(order).encode() + b"\n")

    def close(self) -> None:
        """End it, and wait until it has; only if no rank has connected, for MPICH needs it until the process ends."""
        os.close(self._orders)
        try:
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
