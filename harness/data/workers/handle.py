"""One worker process, as the rank that has started it sees it: what it is asked, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from harness.causes import Cause
from harness.data.leaves import Array
from harness.data.threads import TICK_S, RunningClock
from harness.data.workers.channel import Channel, SharedMemory
from harness.data.workers.orders import WorkerOrders
from harness.errors import HarnessError

Accept = Callable[[int, list[Array]], None]

_END_S = 2.0
_TRACE_S = 0.5  # until a worker that takes too long has said where it is
_OF_LAUNCHERS = ("PMI", "OMPI_", "PMIX_", "HOROVOD_", "MPI_LOCAL", "HYDRA_", "HYDI_")
_PROGRAM = "harness.data.workers.process"


class Task(NamedTuple):
    """A few items.

    Attributes:
        number: in the order in which workers take tasks.
        split: that the items are of.
        indices: which.
        draws: epoch and seed in training.
        first: the row of the first.
    """

    number: int
    split: str
    indices: list[int]
    draws: list[int]
    first: int


class GoneError(Exception):
    """A worker has ended, or had to be ended."""


class WorkerHandle:
    """One process, used by one thread at a time.

    Attributes:
        has_begun: whether it has made its data set.

    Args:
        number: of the worker, from 0.
        count: of all workers.
        orders: what it reads.
    """

    def __init__(self, number: int, count: int, orders: WorkerOrders) -> None:
        """Start it; it makes its data set while this process goes on."""
        self.has_begun = False
        self._name = f"worker {number + 1} of {count}"
        self._limit_s = orders.timeout_s
        self._memory = SharedMemory()
        self._trace = os.memfd_create("harness-data-trace", os.MFD_CLOEXEC)
        own, other = socket.socketpair()
        own.settimeout(TICK_S)
        self._channel = Channel(own)
        lifeline, self._lifeline = os.pipe()
        files = (other.fileno(), lifeline, self._memory.file, self._trace)
        # the kernel may end it with this thread, if that is the one that lasts as long as this process
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", _PROGRAM, *map(str, files), str(parent)],
            stdin=subprocess.DEVNULL,
            pass_fds=files,
            env=_environment(),
        )
        other.close()
        os.close(lifeline)
        self._channel.send(orders.to_json())

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def begin(self, task: Task, source: str) -> Mapping[str, str]:
        """Wait until its data set is made; digests of the first items."""
        try:
            reply = self._wait(task, source, limit_s=None)
        except HarnessError:  # which it tells again when it is asked for items
            self.has_begun = True
            raise
        self.has_begun = True
        found: Mapping[str, str] = reply["splits"]
        return found

    def read(self, task: Task, source: str, accept: Accept) -> None:
        """Read the items of a task."""
        self._memory.position = 0
        try:
            self._channel.send({"split": task.split, "indices": task.indices, "draws": task.draws})
        except OSError:
            raise self._gone(task, source) from None
        reply = self._wait(task, source, limit_s=self._limit_s)
        for row, forms in enumerate(reply["items"], start=task.first):
            accept(row, [self._memory.read(form) for form in forms])

    def end(self) -> None:
        """Let it end."""
        with suppress(OSError):
            self._channel.end.shutdown(socket.SHUT_RDWR)
        os.close(self._lifeline)

    def reap(self) -> None:
        """Wait until it has ended, and let go of everything."""
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._channel.end.close()
        self._memory.close()
        os.close(self._trace)

    def _wait(self, task: Task, source: str, limit_s: float | None) -> Any:
        """The answer; an error of the item's becomes one here."""
        clock = RunningClock()
        position, since_s = self._memory.position, clock.begin()
        while True:
            try:
                reply = self._channel.receive()
                break
            except TimeoutError:
                now_s, reached = clock.look(), self._memory.position
                if reached != position:
                    position, since_s = reached, now_s
                elif limit_s is not None and now_s - since_s > limit_s:
                    raise self._stuck(task, source) from None
            except (EOFError, OSError):
                raise self._gone(task, source) from None
        if "error" in reply:
            raise Cause(reply["error"], reply["code"]).error()
        return reply

    def _gone(self, task: Task, source: str) -> GoneError:
        """What to say of a process that has ended."""
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:  # it has closed its end, and lives
            self._process.kill()
            code = self._process.wait()
        if code >= 0:
            what, advice = f"ended with exit code {code}", "the item's own code must not end the process"
        elif code == -signal.SIGKILL:
            what = "was killed (SIGKILL)"
            advice = "the kernel does that where memory runs out (dmesg); lower data.workers or data.prefetch"
        else:
            what = f"was ended by {signal.Signals(-code).name}"
            advice = "mend the item's own code, or what has sent the signal"
        return GoneError(f"{source}: {self._named} {what} while it read {self._item(task)}{self._place()}; {advice}")

    def _stuck(self, task: Task, source: str) -> GoneError:
        """What to say of a process that takes too long; it is ended."""
        item = self._item(task)
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)  # it says where it is
        time.sleep(_TRACE_S)
        place = self._place()
        self._process.kill()
        return GoneError(
            f"{source}: {self._named} has been reading {item} for data.timeout_s = {self._limit_s:g} s{place}, and was "
            "ended; mend what it waits for, or allow more seconds"
        )

    @property
    def _named(self) -> str:
        return f"{self._name} (process {self.pid})"

    def _item(self, task: Task) -> str:
        """The item that the worker reads, or was about to."""
        if not self.has_begun:
            return "the data"
        return f"item {task.indices[min(max(self._memory.position, 1), len(task.indices)) - 1]}"

    def _place(self) -> str:
        """Where its Python was, if it has said so."""
        size = os.fstat(self._trace).st_size
        text = os.pread(self._trace, size, 0).decode(errors="replace")
        found = re.search(r'File "(.+)", line (\d+)', text)
        return f" (at {found[1]}:{found[2]})" if found else ""


def _environment() -> dict[str, str]:
    """That of a worker: it finds the same modules, is no rank, and lets cores go where it waits for its threads."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_OF_LAUNCHERS)}
    folders = [path or os.getcwd() for path in sys.path]
    return {"OMP_WAIT_POLICY": "PASSIVE", **own, "PYTHONPATH": os.pathsep.join(folders)}
