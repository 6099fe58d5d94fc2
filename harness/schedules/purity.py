"""Checks that a user's schedule is a function of the iteration alone, by evaluating it again.

Ranks compute their learning rates from the iteration, and so does a run that is resumed. A schedule that counts its
calls, draws random numbers, or reads the clock or the environment would give them different ones, unnoticed.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from harness.errors import ConfigError
from harness.named import cut
from harness.schedules.base import Schedule, ScheduleLike
from harness.schedules.custom import OwnSchedule, build_custom

_PASS_S = 1.0  # for one pass over the recorded iterations; a slow schedule is evaluated at fewer of them
_FEWEST = 8
_OTHER_SEED = 20_011
_LATER_S = 7_654_321.5  # about 88 days, to another month, hour, minute and second
_KEPT = ("PATH", "HOME", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")  # they say where, not what
_ADVICE = (
    "a schedule must be a function of the iteration alone, or ranks and resumed runs would differ: seed your own "
    "generator in the function, keep no count between calls, and pass anything that depends on time or environment as "
    "a parameter"
)


def own_schedules(schedule: ScheduleLike | None) -> list[OwnSchedule]:
    """The user's own schedules anywhere in a composition."""
    if isinstance(schedule, OwnSchedule):
        return [schedule]
    if not isinstance(schedule, Schedule):
        return []
    parts = [getattr(schedule, one.name) for one in dataclasses.fields(schedule)]
    inner = [item for part in parts for item in (part if isinstance(part, tuple) else (part,))]
    return [own for item in inner if callable(item) for own in own_schedules(item)]


def impurity(own: OwnSchedule) -> str | None:
    """The problem with a schedule that gives other values when it is asked again; `None` if there is none.

    The recorded iterations are asked once more, backwards; then in a random order of a newly built schedule (of the
    same object, where a program gave it), with other seeds of Python's and NumPy's generators, at another time and
    without the environment's variables. All of those are restored afterwards.
    """
    recorded = sorted(own.asked)
    most = max(_FEWEST, int(_PASS_S / max(own.seconds_an_iteration, 1e-9)))
    step = -(-len(recorded) // most)
    iterations = recorded if step <= 1 else sorted({*recorded[::step], *recorded[-1:]})
    own.stop_recording()
    backwards = list(reversed(iterations))
    shuffled = random.Random(1).sample(iterations, len(iterations))
    return _compare(own, own, backwards, "when it is evaluated again") or _compare_anew(own, shuffled)


def _compare_anew(own: OwnSchedule, iterations: list[int]) -> str | None:
    if own.arguments is None:  # an object of the program
        where = "when it is asked with other seeds, at another time, in an empty environment"
        with _elsewhere(), _later_in(getattr(own.function, "__globals__", {})):
            return _compare(own, own, iterations, where)
    where = "when it is built again with other seeds, at another time, in an empty environment"
    with _elsewhere(), _later_in(vars(sys.modules[own.name.partition(":")[0]])):
        try:
            again = build_custom(own.name, own.arguments)
        except ValueError as error:
            return f"{own.name!r} cannot be called {where} ({cut(str(error), 200)}); {_ADVICE}"
        again.stop_recording()
        return _compare(own, again, iterations, where)


def _compare(own: OwnSchedule, again: OwnSchedule, iterations: list[int], where: str) -> str | None:
    for t in iterations:
        first = own.asked[t]
        try:
            second = again(t)
        except ConfigError as error:
            return f"{error}, {where}; the first time it gave {first!r}; {_ADVICE}"
        if second != first:
            return f"{own.name!r} gave {first!r} at its iteration {t}, and {second!r} {where}; {_ADVICE}"
    return None


@contextmanager
def _later_in(names: dict[str, Any]) -> Iterator[None]:
    """Another time and another process, for everything that a module calls by its own names; invisible to others."""
    others = {id(module): _moved(module) for module in (time, datetime, os)}
    for module in (time, datetime, os):
        moved = vars(others[id(module)])
        changed = {id(value): moved[key] for key, value in vars(module).items() if moved[key] is not value}
        others |= changed
    before = {key: value for key, value in names.items() if id(value) in others}
    names.update({key: others[id(value)] for key, value in before.items()})
    try:
        yield
    finally:
        names.update(before)


def _moved(module: ModuleType) -> ModuleType:
    """A copy of `time`, `datetime` or `os` in which it is later, or the process another."""
    copy = ModuleType(module.__name__)
    vars(copy).update(vars(module))
    if module is time:
        for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
            vars(copy)[name] = _later(getattr(time, name), _LATER_S)
            vars(copy)[f"{name}_ns"] = _later(getattr(time, f"{name}_ns"), int(_LATER_S * 1e9))
        for name in ("localtime", "gmtime", "ctime"):
            vars(copy)[name] = _at(getattr(time, name))
    elif module is datetime:
        vars(copy).update(datetime=_LaterDatetime, date=_LaterDate)
    else:
        vars(copy).update(getpid=_later(os.getpid, 1), getppid=_later(os.getppid, 1))
    return copy


def _later(function: Callable[[], Any], more: float) -> Callable[[], Any]:
    return lambda: function() + more


def _at(function: Callable[[float], Any]) -> Callable[..., Any]:
    return lambda s=None: function(time.time() + _LATER_S if s is None else s)


class _LaterDatetime(datetime.datetime):
    """Of the present it gives what comes later."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _LaterDatetime:
        return super().now(tz) + datetime.timedelta(seconds=_LATER_S)

    @classmethod
    def utcnow(cls) -> _LaterDatetime:
        return super().utcnow() + datetime.timedelta(seconds=_LATER_S)

    @classmethod
    def today(cls) -> _LaterDatetime:
        return cls.now()


class _LaterDate(datetime.date):
    """Of the present it gives what comes later."""

    @classmethod
    def today(cls) -> _LaterDate:
        return super().today() + datetime.timedelta(seconds=_LATER_S)


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Other generators, another time and no environment for Python code in this process; restored afterwards."""
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        random.seed(_OTHER_SEED)
        np.random.seed(_OTHER_SEED)
        variables = vars(os.environ)["_data"]  # of Python alone: the C library's stay, which other threads may read
        stack.callback(variables.update, dict(variables))
        kept = {key: value for key, value in variables.items() if os.fsdecode(key) in _KEPT}
        variables.clear()
        variables.update(kept)
        now, now_ns = time.time, time.time_ns
        stack.callback(setattr, time, "time", now)
        stack.callback(setattr, time, "time_ns", now_ns)
        for name, later in (("time", lambda: now() + _LATER_S), ("time_ns", lambda: now_ns() + int(_LATER_S * 1e9))):
            setattr(time, name, later)
        yield
