"""Threads that work through calls in order, and that nobody has to wait for when a process ends.

`ThreadPoolExecutor` waits at exit for each of its threads, for ever if one hangs in a system call.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

TICK_S = 0.25  # between two looks at what takes long
_LATE_S = 1.0  # a look that comes so much late: the process was stopped, or its machine suspended

_Call = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Threads:
    """A number of threads that take calls from one queue, first come, first served.

    They end when this object is closed or is no longer there.

    Args:
        count: of threads, at least 1; they start with the first call.
        name: of the threads.
    """

    def __init__(self, count: int, name: str) -> None:
        """Start none."""
        self.count = count
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._end = weakref.finalize(self, _end, self._calls, self._threads)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in one of the threads.

        Raises:
            RuntimeError: if they have been closed.
        """
        future: Future[T] = Future()
        with self._lock:
            if not self._end.alive:
                raise RuntimeError(f"{self._name}: closed")
            if not self._threads:
                self._threads += [
                    threading.Thread(target=_work, args=(self._calls,), name=f"{self._name}-{number}", daemon=True)
                    for number in range(self.count)
                ]
                for thread in self._threads:
                    thread.start()
            self._calls.put((future, function, arguments))
        return future

    def close(self, timeout_s: float | None = None) -> None:
        """Leave out calls that have not begun, and wait for those that have; calling this again does nothing.

        Args:
            timeout_s: to wait for all of them together.
        """
        with self._lock:
            self._end()
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(None if until_s is None else max(0.0, until_s - time.monotonic()))


def _work(calls: SimpleQueue[_Call | None]) -> None:
    """What a thread does; it knows the queue alone, so that `Threads` can go."""
    while (call := calls.get()) is not None:
        future, function, arguments = call
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)
        del call, future, function, arguments  # nothing is kept while the thread waits


def _end(calls: SimpleQueue[_Call | None], threads: list[threading.Thread]) -> None:
    with suppress(Empty):
        while (call := calls.get_nowait()) is not None:
            call[0].cancel()
    for _ in threads:
        calls.put(None)


class RunningClock:
    """Seconds in which this process ran: the time that it was stopped (`SIGSTOP`, Slurm's `suspend`) is left out.

    That is noticed by a look that comes late, so whoever waits looks once in `TICK_S`.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        self._seen_s = self._begun_s = time.monotonic()

    def begin(self) -> float:
        """The seconds now; nobody has looked for any time."""
        self._seen_s = time.monotonic()
        return self.look()

    def look(self) -> float:
        """The seconds now."""
        now_s = time.monotonic()
        if now_s - self._seen_s > TICK_S + _LATE_S:
            self._begun_s += now_s - self._seen_s - TICK_S
        self._seen_s = now_s
        return now_s - self._begun_s
