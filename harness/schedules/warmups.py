"""Schedules that begin with a line: one that postpones what it warms up, and one that covers its beginning."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

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
    mix,
    mix_many,
    piecewise,
    values_of,
)
from harness.schedules.bounds import RATE, check_counts, keep_numbers


@dataclass(frozen=True)
class _WarmUp(Composite):
    """A line over `length` iterations to where the schedule then is, and the schedule, which began `_shift` later."""

    schedule: ScheduleLike
    start_lr: float
    length: int
    _shift: int = field(init=False, repr=False, compare=False)
    _target: float = field(init=False, repr=False, compare=False)

    def _aim(self, shift: int) -> None:
        """Check the bounds and ask where the line ends."""
        keep_schedule(self, "schedule")
        keep_numbers(self, RATE, "start_lr")
        check_counts(self, 1, "length")
        object.__setattr__(self, "_shift", shift)
        object.__setattr__(self, "_target", float(self.schedule(self.length - shift)))

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        if t <= self.length:
            return mix(self.start_lr, self._target, t / self.length)
        return self.schedule(t - self._shift)

    @override
    def values(self, t: Iterations) -> Rates:

        def line(t: Iterations) -> Rates:
            return mix_many(self.start_lr, self._target, t / self.length)

        return piecewise(t, [self.length + 1], [line, lambda t: values_of(self.schedule, t - self._shift)])

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The end of the line, and the schedule's own, later by what it was postponed."""
        after = (self._shift + position for position in iter_breakpoints_of(self.schedule, until - self._shift))
        return in_order(until, heapq.merge([self.length], after))


@dataclass(frozen=True)
class LinearWarmUp(_WarmUp):
    """A line from `start_lr` to the schedule's first value, then the schedule, `length` iterations later.

    For `t <= length` it is `start_lr + t (schedule(0) - start_lr) / length`, after that `schedule(t - length)`.
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, arXiv 1706.02677, section 2.2.

    >>> schedule = LinearWarmUp(lambda t: 8.0 - t, start_lr=0, length=4)
    >>> [schedule(t) for t in range(7)]
    [0.0, 2.0, 4.0, 6.0, 8.0, 7.0, 6.0]

    Args:
        schedule: what is warmed up.
        start_lr: the learning rate at 0, at least 0.
        length: iterations of the line, at least 1.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    def __post_init__(self) -> None:
        """Check the bounds and ask where the line ends."""
        self._aim(shift=self.length)

    @property
    def total_length(self) -> int | None:
        """The warm-up and the schedule's own; None if that has none."""
        after = length_of(self.schedule)
        return None if after is None else self.length + after


@dataclass(frozen=True)
class OverlapWarmUp(_WarmUp):
    """A line from `start_lr` to where the schedule is after `length` iterations, then the schedule itself.

    For `t <= length` it is `start_lr + t (schedule(length) - start_lr) / length`, after that `schedule(t)`: the line
    takes the place of the schedule's beginning, and nothing is postponed.

    >>> schedule = OverlapWarmUp(lambda t: 8.0 - t, start_lr=0, length=4)
    >>> [schedule(t) for t in range(7)]
    [0.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0]

    Its breakpoints are the end of the line and the schedule's own, those under the line included: the line may hide a
    drop that somebody who reads the plan looks for.

    Args:
        schedule: what is warmed up.
        start_lr: the learning rate at 0, at least 0.
        length: iterations of the line, at least 1.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    def __post_init__(self) -> None:
        """Check the bounds and ask where the line ends."""
        self._aim(shift=0)

    @property
    def total_length(self) -> int | None:
        """The later of the warm-up's end and the schedule's own; None if that has none."""
        own = length_of(self.schedule)
        return None if own is None else max(self.length, own)
