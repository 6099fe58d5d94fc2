"""Schedules made of other schedules: one after another, multiplied by a number, raised.

Inner schedules are checked once, at construction. Any callable can be one, MXNet's schedulers included.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from harness.schedules.adapters import keep_schedule, keep_schedules
from harness.schedules.base import (
    Composite,
    Iterations,
    Rates,
    ScheduleLike,
    in_order,
    iter_breakpoints_of,
    length_of,
    piecewise,
    values_of,
)
from harness.schedules.bounds import POSITIVE, RATE, BoundError, keep_numbers, keep_positions


@dataclass(frozen=True)
class SequentialSchedule(Composite):
    """One schedule after another: number i begins at `boundaries[i - 1]`, which is its 0.

    Args:
        schedules: at least one.
        boundaries: where the second and each later one begins; at least 1, increasing, one fewer than the schedules.

    >>> schedule = SequentialSchedule([lambda t: 10.0 + t, lambda t: 20.0 + t], boundaries=[3])
    >>> [schedule(t) for t in range(6)]
    [10.0, 11.0, 12.0, 20.0, 21.0, 22.0]

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    schedules: Sequence[ScheduleLike]
    boundaries: Sequence[int]
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_schedules(self, "schedules", 1)
        keep_positions(self, "boundaries", 0)
        if len(self.boundaries) != len(self.schedules) - 1:
            allowed = f"{len(self.schedules) - 1} long, one fewer than the schedules"
            raise BoundError(type(self).__name__, "boundaries", self.boundaries, allowed)
        object.__setattr__(self, "_starts", (0, *self.boundaries))

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        index = bisect_right(self.boundaries, t)
        return self.schedules[index](t - self._starts[index])

    @override
    def values(self, t: Iterations) -> Rates:

        def part(index: int) -> Callable[[Iterations], Rates]:
            return lambda t: values_of(self.schedules[index], t - self._starts[index])

        return piecewise(t, self.boundaries, [part(index) for index in range(len(self.schedules))])

    @property
    def total_length(self) -> int | None:
        """The last boundary and the last schedule's own; None if that has none."""
        last = length_of(self.schedules[-1])
        return None if last is None else self._starts[-1] + last

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The boundaries and each schedule's own while it runs."""
        return in_order(until, self._positions(until))

    def _positions(self, until: int) -> Iterator[int]:
        for schedule, start, end in zip(self.schedules, self._starts, (*self.boundaries, until), strict=True):
            yield start
            for position in iter_breakpoints_of(schedule, min(end, until) - start):
                yield start + position


@dataclass(frozen=True)
class Around(Composite):
    """Base of schedules that give one other's values changed, each at the same time: its pieces are their pieces.

    Args:
        schedule: the other one.
    """

    schedule: ScheduleLike

    def __post_init__(self) -> None:
        """Take whatever can be a schedule."""
        keep_schedule(self, "schedule")

    @property
    def total_length(self) -> int | None:
        """The schedule's own."""
        return length_of(self.schedule)

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The schedule's own."""
        return iter_breakpoints_of(self.schedule, until)


@dataclass(frozen=True)
class ScaledSchedule(Around):
    """`factor schedule(t)`.

    Args:
        schedule: what is multiplied.
        factor: what it is multiplied by, above 0.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    factor: float

    def __post_init__(self) -> None:
        """Check the bounds."""
        super().__post_init__()
        keep_numbers(self, POSITIVE, "factor")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return self.factor * self.schedule(t)

    @override
    def values(self, t: Iterations) -> Rates:
        return self.factor * values_of(self.schedule, t)


@dataclass(frozen=True)
class RaisedSchedule(Around):
    """`floor_lr + schedule(t)`: a schedule on top of a floor, which nothing inside it can scale or shrink.

    Args:
        schedule: what is raised.
        floor_lr: what is added to it, at least 0.

    >>> [RaisedSchedule(lambda t: 4.0 / 2**t, floor_lr=1)(t) for t in range(4)]
    [5.0, 3.0, 2.0, 1.5]

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    floor_lr: float

    def __post_init__(self) -> None:
        """Check the bounds."""
        super().__post_init__()
        keep_numbers(self, RATE, "floor_lr")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return self.floor_lr + self.schedule(t)

    @override
    def values(self, t: Iterations) -> Rates:
        return self.floor_lr + values_of(self.schedule, t)


@dataclass(frozen=True)
class WithoutBreakpoints(Around):
    """`schedule(t)`, without its breakpoints: for one that has more of them than anybody could mark.

    Args:
        schedule: what is asked.
    """

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return self.schedule(t)

    @override
    def values(self, t: Iterations) -> Rates:
        return values_of(self.schedule, t)

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """None."""
        return iter(())
