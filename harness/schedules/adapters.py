"""Between our schedules, plain callables and MXNet's schedulers, in both directions.

MXNet is never imported: its schedulers are recognised by their attributes.
"""

from __future__ import annotations

import copy
import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.schedules.base import Schedule, ScheduleLike
from harness.schedules.bounds import BoundError

if TYPE_CHECKING:
    from collections.abc import Callable

_ACCEPTED = "a schedule, a callable from the iteration to a number, or an object of mx.lr_scheduler"


def as_schedule(obj: object) -> ScheduleLike:
    """Anything that can serve as a schedule, as one.

    Args:
        obj: a schedule or a pure callable, which pass through; or one of MXNet's schedulers (a callable with
            `base_lr`), which goes through `from_mx`. What `as_mx` made is unpacked.

    Raises:
        TypeError: for anything else, a class among them.
    """
    if isinstance(obj, Schedule):
        return obj
    if isinstance(obj, _ForMXNet):
        return obj.schedule
    if isinstance(obj, type):
        raise TypeError(f"{obj.__name__} is a class; give an instance: {_ACCEPTED}")
    if not callable(obj):
        raise TypeError(f"{obj!r} is not {_ACCEPTED}")
    return from_mx(obj) if hasattr(obj, "base_lr") else obj


def keep_schedule(owner: object, name: str) -> None:
    """Turn an attribute of a frozen dataclass into a schedule.

    Raises:
        BoundError: if it cannot be one.
    """
    found = getattr(owner, name)
    try:
        object.__setattr__(owner, name, as_schedule(found))
    except TypeError as error:
        raise BoundError(type(owner).__name__, name, found, _ACCEPTED) from error


def keep_schedules(owner: object, name: str, least_many: int) -> None:
    """Turn an attribute of a frozen dataclass into a tuple of schedules.

    Raises:
        BoundError: if it is not a list of what can be one, or holds fewer than `least_many`.
    """
    found = getattr(owner, name)
    if not isinstance(found, Sequence) or len(found) < least_many:
        allowed = "a list of at least one schedule" if least_many == 1 else f"a list of at least {least_many} schedules"
        raise BoundError(type(owner).__name__, name, found, allowed)
    try:
        object.__setattr__(owner, name, tuple(as_schedule(schedule) for schedule in found))
    except TypeError as error:
        raise BoundError(type(owner).__name__, name, found, f"a list of schedules, but {error}") from error


def from_mx(scheduler: object) -> Schedule:
    """A pure schedule that gives what MXNet's scheduler would, asked 1, 2, 3, ... t in turn.

    MXNet's schedulers remember: `FactorScheduler` asked 1000 and then 10 answers for 1000, and `CosineScheduler` asked
    only past its end answers its *first* value. Here a private copy is asked for the iterations in order, once, and the
    answers are kept in a table, so that any order of questions gives the answers of training; 0 is answered by a copy
    that was asked nothing else. The scheduler that is passed is never called, and later changes to it have no effect.

    Args:
        scheduler: an object of mx.lr_scheduler, or one like it. What it has already been asked counts.

    Returns:
        A schedule that takes 8 bytes for each iteration up to the largest one asked. It is equal only to itself.

    Raises:
        TypeError: if it is not a callable with `base_lr`.
    """
    if isinstance(scheduler, type) or not callable(scheduler) or not hasattr(scheduler, "base_lr"):
        raise TypeError(f"{scheduler!r} is not an object of mx.lr_scheduler: it needs base_lr and to be callable")
    return _Replay(copy.deepcopy(scheduler))


@dataclass(frozen=True, eq=False)
class _Replay(Schedule):
    pristine: ScheduleLike
    _player: ScheduleLike = field(init=False, repr=False)
    _answers: array[float] = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False)

    def __post_init__(self) -> None:
        at_zero = float(copy.deepcopy(self.pristine)(0))
        object.__setattr__(self, "_player", copy.deepcopy(self.pristine))
        object.__setattr__(self, "_answers", array("d", [at_zero]))
        object.__setattr__(self, "_lock", threading.Lock())

    def __call__(self, t: int) -> float:
        if t >= len(self._answers):
            with self._lock:
                for iteration in range(len(self._answers), t + 1):
                    self._answers.append(float(self._player(iteration)))
        return self._answers[t]

    def __reduce__(self) -> tuple[Callable[[object], Schedule], tuple[ScheduleLike]]:
        return from_mx, (self.pristine,)


def as_mx(schedule: object) -> _ForMXNet:
    """A schedule as the `lr_scheduler=` of any `mx.optimizer`.

    Optimizers that are given `learning_rate=`, and Adam, LAMB and RMSProp always, assign `base_lr`; the assignment
    has no effect. (MXNet prints that the rate "has been overwritten"; it has not.)

    Args:
        schedule: whatever `as_schedule` accepts.

    Returns:
        A callable with `base_lr`, to be pickled and copied as the schedule can be.

    Raises:
        TypeError: if `as_schedule` does not accept it.
    """
    return _ForMXNet(as_schedule(schedule))


class _ForMXNet:
    def __init__(self, schedule: ScheduleLike) -> None:
        self.schedule = schedule
        self.base_lr = schedule(0)

    def __call__(self, num_update: int) -> float:
        return self.schedule(num_update)

    def __repr__(self) -> str:
        return f"as_mx({self.schedule!r})"
