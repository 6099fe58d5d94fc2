"""Schedules that change at an iteration while their parts keep counting: what a run that was amended trains by."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from harness.schedules.bounds import POSITIVE, RATE, check_counts, keep_numbers


@dataclass(frozen=True)
class ScaledAfter(Composite):
    """The schedule up to iteration `last`, and after it `factor schedule(t)`, which does not fall below `floor`.

    A value that is below the floor already is left as it is. Several around each other are asked one after another and
    not each by the next, so that there may be thousands.

    >>> schedule = ScaledAfter(lambda t: 8.0 - t, factor=0.5, last=2)
    >>> [schedule(t) for t in range(5)]
    [8.0, 7.0, 6.0, 2.5, 2.0]
    >>> [ScaledAfter(lambda t: 8.0 - t, factor=0.5, last=2, floor=2.25)(t) for t in range(2, 8)]
    [6.0, 2.5, 2.25, 2.25, 2.0, 1.0]

    Args:
        schedule: what is multiplied.
        factor: what it is multiplied by, above 0.
        last: the last iteration that is not, at least 0.
        floor: at least 0.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    schedule: ScheduleLike
    factor: float
    last: int
    floor: float = 0.0
    _innermost: ScheduleLike = field(init=False, repr=False, compare=False)
    _cuts: tuple[tuple[int, float, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_schedule(self, "schedule")
        keep_numbers(self, POSITIVE, "factor")
        keep_numbers(self, RATE, "floor")
        check_counts(self, 0, "last")
        innermost = self.schedule
        cuts: tuple[tuple[int, float, float], ...] = ((self.last, self.factor, self.floor),)
        if isinstance(innermost, ScaledAfter):
            cuts = (*innermost._cuts, *cuts)
            innermost = innermost._innermost
        object.__setattr__(self, "_innermost", innermost)
        object.__setattr__(self, "_cuts", cuts)

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        lr = float(self._innermost(t))  # a float32 of somebody's own would be rounded again when it is multiplied
        for last, factor, floor in self._cuts:
            if t > last:
                lr = max(factor * lr, min(floor, lr))
        return lr

    @override
    def values(self, t: Iterations) -> Rates:
        values = values_of(self._innermost, t)
        for last, factor, floor in self._cuts:
            values = np.where(t > last, np.maximum(factor * values, np.minimum(floor, values)), values)
        return values

    @property
    def total_length(self) -> int | None:
        """The later of `last + 1` and the schedule's own; None if that has none."""
        own = length_of(self._innermost)
        return None if own is None else max(own, *(last + 1 for last, _, _ in self._cuts))

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The schedule's own, and `last + 1`."""
        lasts = sorted(last + 1 for last, _, _ in self._cuts)
        return in_order(until, heapq.merge(lasts, iter_breakpoints_of(self._innermost, until)))


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
