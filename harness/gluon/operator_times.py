"""When MXNet computed which operator: its profiler, started and stopped around some updates.

What it really does in 1.9.1: its threads note an operator when it is done, by the system's clock in microseconds, and
C++ writes the notes to a file, as Chrome's trace events. By default it also counts memory and calls of the C API, in
threads that write while others still note, and it cannot be configured a second time then; here both are off, and the
file is written once, when nothing is pending. The second file of a process begins with a comma too many. Operators of
a compiled network that are executed together have one note, with all their names or only `ImperativeBulk`, and neither
its settings nor the engine's change that; in a network that is not compiled each has its own.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx

_ONLY = {
    "profile_symbolic": True,
    "profile_imperative": True,
    "profile_memory": False,
    "profile_api": False,
    "aggregate_stats": False,
    "continuous_dump": False,
}
_NO_WORK = {"DeleteVariable", "WaitForVar"}  # of the engine, and no operators
_FIRST_COMMA = re.compile(r"\[\s*,")


class Operator(NamedTuple):
    """An operator, or several that were executed together.

    Attributes:
        name: as MXNet says it.
        begin_ns: when it began, by the clock of `time.perf_counter_ns`.
        duration_ns: how long it took.
        thread: of MXNet, numbered from 0.
    """

    name: str
    begin_ns: int
    duration_ns: int
    thread: int


class OperatorTimes:
    """Notes operators between `start` and `stop`; there is one profiler in a process."""

    def __init__(self) -> None:
        """Nothing is noted yet."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._offset_ns = 0

    def start(self) -> None:
        """Note every operator from now on."""
        mx.nd.waitall()
        self._folder = tempfile.TemporaryDirectory(prefix="harness-profile-")
        mx.profiler.set_config(filename=str(self._file), **_ONLY)
        self._offset_ns = _system_clock_ahead_ns()
        mx.profiler.set_state("run")

    def stop(self) -> tuple[list[Operator], str | None]:
        """The operators since `start`, by their beginning, and why there are none if MXNet's file is not readable."""
        if self._folder is None:
            return [], None
        mx.nd.waitall()
        mx.profiler.set_state("stop")
        with self._folder:
            try:
                mx.profiler.dump(False)
                found = read_operators(self._file.read_text(encoding="utf-8", errors="replace"), self._offset_ns)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, mx.base.MXNetError) as error:
                return [], f"MXNet's profile cannot be read ({type(error).__name__}: {str(error)[:200]})"
            finally:
                self._folder = None
        return found, None

    @property
    def _file(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "mxnet.json"


def _system_clock_ahead_ns(tries: int = 20) -> int:
    """By how much the system's clock is ahead of `time.perf_counter_ns`; of several tries the least disturbed."""
    found = []
    for _ in range(tries):
        before_ns, system_ns, after_ns = time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()
        found.append((after_ns - before_ns, system_ns - (before_ns + after_ns) // 2))
    return min(found)[1]


def wait_for_device() -> None:
    """Wait until everything that was asked of MXNet is computed."""
    mx.nd.waitall()


def read_operators(text: str, offset_ns: int) -> list[Operator]:
    """The operators in a file of MXNet's profiler, by their beginning.

    Args:
        text: the file; perhaps with a comma before the first event.
        offset_ns: by how much the clock of the file is ahead of the one that is wanted.

    Raises:
        ValueError: if it is not JSON; `KeyError`, `TypeError` or `AttributeError` if something is missing.
    """
    begun: dict[tuple[Any, str], list[int]] = {}
    threads: dict[Any, int] = {}
    found = []
    for event in json.loads(_FIRST_COMMA.sub("[", text, count=1))["traceEvents"]:
        if event.get("cat") != "operator" or event["name"] in _NO_WORK:
            continue
        key, at_ns = (event["tid"], event["name"]), int(event["ts"]) * 1000 - offset_ns
        if event["ph"] == "B":
            begun.setdefault(key, []).append(at_ns)
        elif event["ph"] == "E" and begun.get(key):
            begin_ns = begun[key].pop()
            thread = threads.setdefault(event["tid"], len(threads))
            found.append(Operator(event["name"], begin_ns, at_ns - begin_ns, thread))
    return sorted(found, key=lambda one: one.begin_ns)
