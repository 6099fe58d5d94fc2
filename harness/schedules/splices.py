"""Schedules that change at an iteration while their parts keep counting: what a run that was amended trains by."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from typing_extensions import override

from harness.schedules.adapters import keep_schedule
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
from harness.schedules.bounds import POSITIVE, check_counts, keep_numbers


@dataclass(frozen=True)
class ScaledAfter(Composite):
    """The schedule up to iteration `last`, and `factor schedule(t)` after it.

    >>> schedule = ScaledAfter(lambda t: 8.0 - t, factor=0.5, last=2)
    >>> [schedule(t) for t in range(5)]
    [8.0, 7.0, 6.0, 2.5, 2.0]

    Args:
        schedule: what is multiplied.
        factor: what it is multiplied by, above 0.
        last: the last iteration that is not, at least 0.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    schedule: ScheduleLike
    factor: float
    last: int

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_schedule(self, "schedule")
        keep_numbers(self, POSITIVE, "factor")
        check_counts(self, 0, "last")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        lr = float(self.schedule(t))  # a float32 of somebody's own would be rounded again when it is multiplied
        return self.factor * lr if t > self.last else lr

    @override
    def values(self, t: Iterations) -> Rates:
        values = values_of(self.schedule, t)
        return np.where(t > self.last, self.factor * values, values)

    @property
    def total_length(self) -> int | None:
        """The later of `last + 1` and the schedule's own; None if that has none."""
        own = length_of(self.schedule)
        return None if own is None else max(self.last + 1, own)

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The schedule's own, and `last + 1`."""
        return in_order(until, heapq.merge([self.last + 1], iter_breakpoints_of(self.schedule, until)))


@dataclass(frozen=True)
class Spliced(Composite):
    """One schedule up to iteration `last`, and another after it, which both count from iteration 0.

    (In a `SequentialSchedule` each part begins at its own 0.)

    >>> schedule = Spliced(lambda t: 8.0 - t, lambda t: 0.5 * t, last=2)
    >>> [schedule(t) for t in range(5)]
    [8.0, 7.0, 6.0, 1.5, 2.0]

    Args:
        before: the schedule up to iteration `last`.
        after: the schedule from iteration `last + 1` on.
        last: at least 0.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    before: ScheduleLike
    after: ScheduleLike
    last: int

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_schedule(self, "before")
        keep_schedule(self, "after")
        check_counts(self, 0, "last")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return self.before(t) if t <= self.last else self.after(t)

    @override
    def values(self, t: Iterations) -> Rates:
        pieces = [lambda t: values_of(self.before, t), lambda t: values_of(self.after, t)]
        return piecewise(t, [self.last + 1], pieces)

    @property
    def total_length(self) -> int | None:
        """The later of `last + 1` and what the second schedule has; None if that has none."""
        after = length_of(self.after)
        return None if after is None else max(self.last + 1, after)

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """Each schedule's own while it holds, and `last + 1`."""
        joint = self.last + 1
        before = iter_breakpoints_of(self.before, min(until, joint))
        after = (position for position in iter_breakpoints_of(self.after, until) if position > joint)
        return in_order(until, chain(before, [joint], after))
