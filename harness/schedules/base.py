"""The base of all schedules: a pure function from the iteration to a number, which knows where its pieces end.

Knows no particular schedule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from typing_extensions import override

Iterations = npt.NDArray[np.int64]
Rates = npt.NDArray[np.float64]

ScheduleLike = Callable[[int], float]
"""Anything that maps an iteration to a learning rate and always gives the same answer."""


@dataclass(frozen=True)
class Schedule(ABC):
    """A learning rate for every iteration: immutable, compared by value, hashable, picklable and without state.

    Iterations count from 1: `schedule(t)` is what update t applies. `schedule(0)` is the value before training.
    The argument is an int >= 0; it is not checked, because a call should take a microsecond.
    """

    @abstractmethod
    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""

    def values(self, t: Iterations) -> Rates:
        """`schedule(t)` of many iterations at once, `(n,)`, with exactly the same bits.

        So it adds, multiplies, divides and takes roots as the call does, and uses no other function of NumPy, whose
        results differ from one processor to the next.
        """
        return np.fromiter(map(self, t.tolist()), np.float64, t.size)

    @property
    def total_length(self) -> int | None:
        """The first iteration from which the value never changes again; None if there is none, or none is known.

        (A parameter named `length` is the length of one phase, which is why this is not.)
        """
        return None

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The iterations b, `0 < b < until`, at which a new piece of the formula begins, in order.

        Ends of phases, peaks, drops, the first iterations of cycles. Where the value jumps, b is the first iteration
        with the new one and b - 1 the last with the old. A peak between two iterations counts as the later one.
        """
        return ()

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The same one by one, for a schedule that may have too many of them for memory."""
        return iter(self.breakpoints(until))


@dataclass(frozen=True)
class Composite(Schedule):
    """A schedule made of others: it tells its breakpoints one by one, as they do."""

    @override
    def breakpoints(self, until: int) -> tuple[int, ...]:
        return tuple(self.iter_breakpoints(until))

    @abstractmethod
    @override
    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The breakpoints of its parts, each at the iteration where this schedule comes to it, one by one."""


def values_of(schedule: ScheduleLike, t: Iterations) -> Rates:
    """The `values` of a schedule, or of any callable, which is called for each."""
    if isinstance(schedule, Schedule):
        return schedule.values(t)
    return np.fromiter(map(schedule, t.tolist()), np.float64, t.size)


def length_of(schedule: ScheduleLike) -> int | None:
    """The `total_length` of a schedule; None for any other callable."""
    return schedule.total_length if isinstance(schedule, Schedule) else None


def breakpoints_of(schedule: ScheduleLike, until: int) -> tuple[int, ...]:
    """The `breakpoints` of a schedule; none for any other callable."""
    return schedule.breakpoints(until) if isinstance(schedule, Schedule) else ()


def iter_breakpoints_of(schedule: ScheduleLike, until: int) -> Iterator[int]:
    """`breakpoints_of`, one by one."""
    return schedule.iter_breakpoints(until) if isinstance(schedule, Schedule) else iter(())


def has_few_breakpoints(schedule: ScheduleLike, until: int, most: int) -> bool:
    """Whether a schedule has at most so many breakpoints; no more of them are looked for."""
    return next(islice(iter_breakpoints_of(schedule, until), most, None), None) is None


def in_order(until: int, positions: Iterable[int]) -> Iterator[int]:
    """Those of rising positions that are breakpoints before `until`, each once."""
    last = 0
    for position in positions:
        if position >= until:
            return
        if position > last:
            yield position
            last = position


def inside(until: int, *positions: int) -> tuple[int, ...]:
    """Those of the positions that are breakpoints before `until`: `0 < b < until`, each once, in order."""
    return tuple(sorted({position for position in positions if 0 < position < until}))


def mix(start: float, finish: float, fraction: float) -> float:
    """The number that lies `fraction` of the way from `start` to `finish`, `0 <= fraction <= 1`.

    It starts from the nearer end, so that both ends come out exact and rounding never leaves the interval.

    >>> mix(0.1, 0.3, 0.0), mix(0.1, 0.3, 1.0)
    (0.1, 0.3)
    """
    if fraction <= 0.5:
        return start + (finish - start) * fraction
    return finish - (finish - start) * (1.0 - fraction)


def mix_many(start: float, finish: float, fraction: Rates) -> Rates:
    """`mix` of many fractions."""
    near_start = start + (finish - start) * fraction
    near_finish = finish - (finish - start) * (1.0 - fraction)
    return np.where(fraction <= 0.5, near_start, near_finish)


def constant(value: float) -> Callable[[Iterations], Rates]:
    """A piece of `piecewise` that is the same everywhere."""
    return lambda t: np.full(t.shape, value)


def piecewise(t: Iterations, starts: Sequence[int], pieces: Sequence[Callable[[Iterations], Rates]]) -> Rates:
    """Values of a formula in pieces.

    Args:
        t: the iterations.
        starts: where each piece but the first begins, in order.
        pieces: map iterations to values.
    """
    first, last = (bisect_right(starts, int(end)) for end in (t.min(), t.max())) if t.size else (0, 0)
    if first == last:
        return pieces[first](t)
    values = np.empty(t.shape)
    piece_of = np.searchsorted(starts, t, side="right")
    for index in range(first, last + 1):
        inside_piece = piece_of == index
        values[inside_piece] = pieces[index](t[inside_piece])
    return values
