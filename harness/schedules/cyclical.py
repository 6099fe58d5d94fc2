"""A schedule repeated in cycles that may grow or shrink, in length and in height.

The only thing it knows of the repeated schedule is that it can be built with a `cycle_length`; two policies have names
of their own.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from typing_extensions import override

from harness.parsing import as_number
from harness.schedules.adapters import as_schedule
from harness.schedules.base import Iterations, Rates, Schedule, ScheduleLike, in_order, iter_breakpoints_of, values_of
from harness.schedules.bounds import POSITIVE, RATE, SHRINK, BoundError, check_counts, keep_numbers
from harness.schedules.shapes import TriangularSchedule
from harness.schedules.ways import check_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DECAYING = ("all", "amplitude")
_LONGEST = 10**15  # cycles stop changing here, past the end of any run, so that a float holds every length exactly
_KEPT = 64  # inner schedules kept built; a run moves from one cycle to the next and needs one


class CycleTable:
    """Where cycles begin, when each is `ceil(length of the one before * decay)` long.

    Beginnings are found one by one, as far as needed, until two cycles are equally long: from there on all are, and a
    division tells the cycle. Before, all lengths differ, so n cycles cover at least n^2 / 2 iterations and a table that
    reaches iteration t has at most `sqrt(2 t)` entries (1.4 million for t = 10^12, 1400 for a million).
    """

    def __init__(self, first_length: int, decay: float) -> None:
        """Begin with one cycle."""
        self._decay = decay
        self._lock = threading.Lock()
        self._starts = [0]
        self._equal_length: int | None = None  # of the cycle at _starts[-1] and of all later ones
        self._next_length = first_length
        self._settle()

    def __len__(self) -> int:
        """How many beginnings have been found."""
        return len(self._starts)

    def find(self, t: int) -> tuple[int, int, int]:
        """The cycle of iteration t, from 0; the iterations since it began; its length."""
        if self._equal_length is None and t >= self._starts[-1]:
            with self._lock:
                self._reach(t)
        starts = self._starts
        if t >= starts[-1] and self._equal_length is not None:
            cycles, offset = divmod(t - starts[-1], self._equal_length)
            return len(starts) - 1 + cycles, offset, self._equal_length
        cycle = bisect_right(starts, t) - 1
        return cycle, t - starts[cycle], starts[cycle + 1] - starts[cycle]

    def find_many(self, t: Iterations) -> tuple[Iterations, Iterations, Iterations]:
        """`find` of many iterations."""
        last = int(t.max(initial=0))
        self.find(last)
        starts, equal_length = np.array(self._starts), self._equal_length
        cycle = np.searchsorted(starts, t, side="right") - 1
        offset = t - starts[cycle]
        lengths = np.append(np.diff(starts), equal_length or 0)
        if equal_length is not None:
            more = np.where(cycle == len(starts) - 1, offset // equal_length, 0)
            offset -= more * equal_length
            return cycle + more, offset, lengths[cycle]
        return cycle, offset, lengths[cycle]

    def _reach(self, t: int) -> None:
        while self._equal_length is None and self._starts[-1] <= t:
            self._starts.append(self._starts[-1] + self._next_length)
            self._next_length = self._after(self._next_length)
            self._settle()

    def _settle(self) -> None:
        if self._after(self._next_length) == self._next_length:
            self._equal_length = self._next_length

    def _after(self, length: int) -> int:
        return length if length >= _LONGEST else math.ceil(min(length * self._decay, _LONGEST))


class CycleParts(NamedTuple):
    """What a learning rate of a `CyclicalSchedule` is made of: `floor + (schedule(offset) - floor) height`.

    Attributes:
        cycle: its number, from 0.
        offset: the iterations since it began.
        length: of the cycle.
        schedule: of a cycle of this length.
        height: what is left of the height above the floor.
    """

    cycle: int
    offset: int
    length: int
    schedule: ScheduleLike
    height: float


@dataclass(frozen=True, init=False)
class CyclicalSchedule(Schedule):
    """A schedule repeated: cycle k is `ceil(length of cycle k - 1 * cycle_length_decay)` long.

    Its height above `floor_lr` is multiplied by `cycle_magnitude_decay^k iteration_magnitude_decay^t`: the values are
    `floor_lr + (value - floor_lr) factor`. With the default floor of 0 that is `value factor`, so that the lowest value
    of a cycle shrinks too; with `decay="amplitude"` the floor is the repeated schedule's `min_lr`, which stays.

    The iteration that ends a cycle is 0 of the next. The product of lengths is taken in floating point: 50 * 1.1 is a
    little more than 55, and the cycle after one of 50 has 56.

    With `TriangularSchedule` it is the policy of Smith, "Cyclical Learning Rates for Training Neural Networks", 2015,
    arXiv 1506.01186; with `CosineAnnealingSchedule` and `cycle_length_decay=2` the warm restarts of Loshchilov and
    Hutter, "SGDR", 2016, arXiv 1608.03983, whose T_mult is this decay. A decay of 1/2 a cycle above a floor is Smith's
    policy "triangular2", one of a little below 1 an iteration his "exp_range" (`triangular2` and `exp_range` here):

    >>> from harness.schedules.shapes import CosineAnnealingSchedule, TriangularSchedule
    >>> cycles = CyclicalSchedule(TriangularSchedule, 4, cycle_magnitude_decay=0.5, floor_lr=1, min_lr=1, max_lr=3)
    >>> [cycles(t) for t in range(9)]
    [1.0, 2.0, 3.0, 2.0, 1.0, 1.5, 2.0, 1.5, 1.0]
    >>> schedule = CyclicalSchedule(CosineAnnealingSchedule, 10, cycle_length_decay=2, min_lr=0, max_lr=1)
    >>> schedule(0), schedule(10), schedule(30), schedule(70), round(schedule(50), 9)
    (1.0, 1.0, 1.0, 1.0, 0.5)

    Args:
        schedule_class: a class, or any callable, that takes `cycle_length` and `kwargs` and gives a schedule.
        cycle_length: iterations of the first cycle, at least 1.
        cycle_length_decay: what one length is multiplied by to give the next, above 0.
        cycle_magnitude_decay: what the values of one cycle are multiplied by for the next, above 0, at most 1.
        floor_lr: what the magnitudes decay towards, at least 0.
        iteration_magnitude_decay: what they are multiplied by from one iteration to the next, above 0, at most 1.
        decay: what decays: `"all"` that is above `floor_lr`, or the `"amplitude"` above the `min_lr` in `kwargs`.
        **kwargs: the other arguments of `schedule_class`; hashable, if the schedule is to be.

    Raises:
        BoundError: if an argument is outside these bounds, or is one that `schedule_class` refuses.
    """

    schedule_class: Callable[..., ScheduleLike]
    cycle_length: int
    cycle_length_decay: float
    cycle_magnitude_decay: float
    floor_lr: float
    iteration_magnitude_decay: float
    decay: str
    kwargs: tuple[tuple[str, Any], ...]
    floor: float = field(repr=False, compare=False)
    _table: CycleTable = field(repr=False, compare=False)
    _built: dict[int, ScheduleLike] = field(repr=False, compare=False)

    def __init__(
        self,
        schedule_class: Callable[..., ScheduleLike],
        cycle_length: int,
        cycle_length_decay: float = 1,
        cycle_magnitude_decay: float = 1,
        floor_lr: float = 0,
        iteration_magnitude_decay: float = 1,
        decay: str = "all",
        **kwargs: Any,
    ) -> None:
        """Check the bounds, including those of the first cycle's schedule."""
        keep = partial(object.__setattr__, self)
        keep("schedule_class", schedule_class)
        keep("cycle_length", cycle_length)
        keep("cycle_length_decay", cycle_length_decay)
        keep("cycle_magnitude_decay", cycle_magnitude_decay)
        keep("floor_lr", floor_lr)
        keep("iteration_magnitude_decay", iteration_magnitude_decay)
        keep("decay", decay)
        keep("kwargs", tuple(sorted(kwargs.items())))
        if not callable(schedule_class):
            allowed = "a class or a callable that takes cycle_length and gives a schedule"
            raise BoundError(type(self).__name__, "schedule_class", schedule_class, allowed)
        check_counts(self, 1, "cycle_length")
        keep_numbers(self, POSITIVE, "cycle_length_decay")
        keep_numbers(self, RATE, "floor_lr")
        check_choice(self, "decay", DECAYING)
        keep("floor", self._lowest() if decay == "amplitude" else self.floor_lr)
        keep_numbers(self, SHRINK, "cycle_magnitude_decay", "iteration_magnitude_decay")
        keep("_table", CycleTable(self.cycle_length, self.cycle_length_decay))
        keep("_built", {})
        try:
            self._inner(cycle_length)
        except TypeError as error:
            allowed = f"one that takes cycle_length and {sorted(kwargs)} and gives a schedule ({error})"
            raise BoundError(type(self).__name__, "schedule_class", schedule_class, allowed) from error

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        cycle, offset, length = self._table.find(t)
        inner = self._built.get(length) or self._inner(length)
        return self.floor + (inner(offset) - self.floor) * self._height(cycle, t)

    def parts(self, t: int) -> CycleParts:
        """What the learning rate of iteration `t >= 0` is made of."""
        cycle, offset, length = self._table.find(t)
        return CycleParts(cycle, offset, length, self._built.get(length) or self._inner(length), self._height(cycle, t))

    def _height(self, cycle: int, t: int) -> float:
        height = self.cycle_magnitude_decay**cycle
        return height if self.iteration_magnitude_decay == 1.0 else height * self.iteration_magnitude_decay**t

    @override
    def values(self, t: Iterations) -> Rates:
        if not t.size:
            return np.empty(0)
        cycle, offset, length = self._table.find_many(t)
        first = int(cycle.min())
        heights = np.array([self.cycle_magnitude_decay**number for number in range(first, int(cycle.max()) + 1)])
        values = np.empty(t.shape)
        for found in np.unique(length).tolist():
            inner = self._built.get(found) or self._inner(found)
            alike = length == found
            values[alike] = values_of(inner, offset[alike])
        factor = heights.take(cycle - first)
        if self.iteration_magnitude_decay != 1.0:
            factor = factor * np.fromiter(map(pow, repeat(self.iteration_magnitude_decay), t.tolist()), float, t.size)
        raised: Rates = self.floor + (values - self.floor) * factor
        return raised

    def _lowest(self) -> float:
        """The lowest rate of the first cycle, which a decay of the amplitude leaves."""
        owner, lowest = type(self).__name__, as_number(dict(self.kwargs).get("min_lr"))
        if lowest is None:
            raise BoundError(owner, "decay", self.decay, "all for a schedule without min_lr; set floor_lr instead")
        if self.floor_lr:
            raise BoundError(owner, "floor_lr", self.floor_lr, "left out with decay: amplitude, whose floor is min_lr")
        return lowest

    def _inner(self, length: int) -> ScheduleLike:
        inner = as_schedule(self.schedule_class(cycle_length=length, **dict(self.kwargs)))
        if len(self._built) >= _KEPT:
            self._built.clear()
        self._built[length] = inner
        return inner

    def __reduce__(self) -> tuple[Callable[..., CyclicalSchedule], tuple[object, ...]]:
        """Pickle and copy by building again, without what is cached."""
        rebuild = partial(type(self), **dict(self.kwargs))
        decays = (self.cycle_length_decay, self.cycle_magnitude_decay, self.floor_lr, self.iteration_magnitude_decay)
        return rebuild, (self.schedule_class, self.cycle_length, *decays, self.decay)

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The first iteration of each cycle and the schedule's own within it."""
        return tuple(self.iter_breakpoints(until))

    @override
    def iter_breakpoints(self, until: int) -> Iterator[int]:
        return in_order(until, self._positions(until))

    def _positions(self, until: int) -> Iterator[int]:
        start = 0
        while start < until:
            length = self._table.find(start)[2]
            inner = self._built.get(length) or self._inner(length)
            yield start
            for position in iter_breakpoints_of(inner, length):
                yield start + position
            start += length


def triangular2(min_lr: float, max_lr: float, cycle_length: int, inc_fraction: float = 0.5) -> CyclicalSchedule:
    """Triangles above `min_lr`, each half as high as the one before: Smith's policy "triangular2", arXiv 1506.01186.

    In cycle k it is `min_lr + (max_lr - min_lr) triangle / 2^k`; `CyclicalSchedule` has the other policies.

    >>> [triangular2(min_lr=1, max_lr=3, cycle_length=4)(t) for t in range(9)]
    [1.0, 2.0, 3.0, 2.0, 1.0, 1.5, 2.0, 1.5, 1.0]

    Args:
        min_lr: the learning rate between two triangles, from 0 to `max_lr`.
        max_lr: the learning rate at the first peak.
        cycle_length: iterations of a triangle, at least 1.
        inc_fraction: the part of it that rises, between 0 and 1, neither included.

    Raises:
        BoundError: if an argument is outside these bounds.
    """
    return CyclicalSchedule(
        TriangularSchedule,
        cycle_length,
        cycle_magnitude_decay=0.5,
        decay="amplitude",
        min_lr=min_lr,
        max_lr=max_lr,
        inc_fraction=inc_fraction,
    )


def exp_range(
    min_lr: float, max_lr: float, cycle_length: int, gamma: float, inc_fraction: float = 0.5
) -> CyclicalSchedule:
    """Triangles above `min_lr`, in iteration t `gamma^t` times as high: Smith's policy "exp_range", arXiv 1506.01186.

    It is `min_lr + (max_lr - min_lr) triangle gamma^t`.

    >>> [exp_range(min_lr=0, max_lr=8, cycle_length=4, gamma=0.5)(t) for t in range(6)]
    [0.0, 2.0, 2.0, 0.5, 0.0, 0.125]

    Args:
        min_lr: the learning rate between two triangles, from 0 to `max_lr`.
        max_lr: the learning rate at a peak that nothing has decayed.
        cycle_length: iterations of a triangle, at least 1.
        gamma: what the height is multiplied by from one iteration to the next, above 0 and at most 1.
        inc_fraction: the part of a triangle that rises, between 0 and 1, neither included.

    Raises:
        BoundError: if an argument is outside these bounds.
    """
    try:
        return CyclicalSchedule(
            TriangularSchedule,
            cycle_length,
            iteration_magnitude_decay=gamma,
            decay="amplitude",
            min_lr=min_lr,
            max_lr=max_lr,
            inc_fraction=inc_fraction,
        )
    except BoundError as error:
        if error.argument != "iteration_magnitude_decay":
            raise
        raise BoundError("exp_range", "gamma", error.found, error.allowed) from None
