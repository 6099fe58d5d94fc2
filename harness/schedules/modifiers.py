"""Schedules made of other schedules: behind one, one after another, multiplied, raised.

Inner schedules are checked once, at construction. Any callable can be one, MXNet's schedulers included.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from typing_extensions import override

from harness.schedules.adapters import as_schedule, keep_schedule
from harness.schedules.base import (
    Composite,
    Iterations,
    Rates,
    ScheduleLike,
    constant,
    in_order,
    iter_breakpoints_of,
    length_of,
    mix,
    mix_many,
    piecewise,
    values_of,
)
from harness.schedules.bounds import POSITIVE, RATE, BoundError, check_counts, keep_numbers, keep_positions


@dataclass(frozen=True)
class LinearCoolDown(Composite):
    """The schedule up to `start_idx`, a line from there to `finish_lr` over `length` iterations, then `finish_lr`.

    >>> schedule = LinearCoolDown(lambda t: 8.0, finish_lr=0, start_idx=2, length=4)
    >>> [schedule(t) for t in range(8)]
    [8.0, 8.0, 8.0, 6.0, 4.0, 2.0, 0.0, 0.0]

    Args:
        schedule: what is cooled down.
        finish_lr: the learning rate at the end, at least 0.
        start_idx: the last iteration of the schedule and the first of the line, at least 0.
        length: iterations of the line, at least 1.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    schedule: ScheduleLike
    finish_lr: float
    start_idx: int
    length: int
    _top: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the bounds and ask where the line begins."""
        keep_schedule(self, "schedule")
        keep_numbers(self, RATE, "finish_lr")
        check_counts(self, 0, "start_idx")
        check_counts(self, 1, "length")
        object.__setattr__(self, "_top", self.schedule(self.start_idx))

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        into_line = t - self.start_idx
        if into_line <= 0:
            return self.schedule(t)
        if into_line >= self.length:
            return self.finish_lr
        return mix(self._top, self.finish_lr, into_line / self.length)

    @override
    def values(self, t: Iterations) -> Rates:

        def line(t: Iterations) -> Rates:
            return mix_many(self._top, self.finish_lr, (t - self.start_idx) / self.length)

        starts = [self.start_idx + 1, self.start_idx + self.length]
        return piecewise(t, starts, [lambda t: values_of(self.schedule, t), line, constant(self.finish_lr)])

    @property
    def total_length(self) -> int:
        """`start_idx + length`."""
        return self.start_idx + self.length

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The schedule's own before the line, and the two ends of the line."""
        before = iter_breakpoints_of(self.schedule, min(until, self.start_idx))
        return in_order(until, chain(before, [self.start_idx, self.total_length]))


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
        owner, found = type(self).__name__, self.schedules
        if not isinstance(found, Sequence) or len(found) < 1:
            raise BoundError(owner, "schedules", found, "a list of at least one schedule")
        try:
            object.__setattr__(self, "schedules", tuple(as_schedule(schedule) for schedule in found))
        except TypeError as error:
            raise BoundError(owner, "schedules", found, f"a list of schedules, but {error}") from error
        keep_positions(self, "boundaries", 0)
        if len(self.boundaries) != len(found) - 1:
            allowed = f"{len(found) - 1} long, one fewer than the schedules"
            raise BoundError(owner, "boundaries", self.boundaries, allowed)
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
