"""Schedules that begin with a way up: one that postpones what it warms up, and one that covers its beginning."""

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
    constant,
    in_order,
    iter_breakpoints_of,
    length_of,
    piecewise,
    values_of,
)
from harness.schedules.bounds import POSITIVE, RATE, BoundError, check_counts, keep_numbers
from harness.schedules.ways import WAYS, Way, check_way

RISING = (*WAYS, "constant")
"""The shapes of a warm-up."""


@dataclass(frozen=True)
class _WarmUp(Composite):
    """A way of `length` iterations to where the schedule then is, and the schedule, which began `_shift` later."""

    schedule: ScheduleLike
    start_lr: float
    length: int
    shape: str = "linear"
    pwr: float | None = None
    _shift: int = field(init=False, repr=False, compare=False)
    _way: Way = field(init=False, repr=False, compare=False)

    def _aim(self, shift: int) -> None:
        """Check the bounds and ask where the way ends."""
        keep_schedule(self, "schedule")
        check_way(self, RISING)
        keep_numbers(self, POSITIVE if self.shape in ("exponential", "constant") else RATE, "start_lr")
        check_counts(self, 1, "length")
        target = float(self.schedule(self.length - shift))
        if self.shape == "exponential" and target == 0:
            allowed = "linear, cosine, poly or constant where the schedule is 0 when the warm-up ends"
            raise BoundError(type(self).__name__, "shape", self.shape, allowed)
        object.__setattr__(self, "_shift", shift)
        object.__setattr__(self, "_way", Way(self.start_lr, target, self.shape, self.pwr))

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        if t > self.length:
            return self.schedule(t - self._shift)
        return self.start_lr if self.shape == "constant" else self._way.at(t / self.length)

    @override
    def values(self, t: Iterations) -> Rates:
        way = constant(self.start_lr) if self.shape == "constant" else lambda t: self._way.many(t / self.length)
        return piecewise(t, [self.length + 1], [way, lambda t: values_of(self.schedule, t - self._shift)])

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The end of the way, and the schedule's own, later by what it was postponed."""
        end = self.length + (self.shape == "constant")
        after = (self._shift + position for position in iter_breakpoints_of(self.schedule, until - self._shift))
        return in_order(until, heapq.merge([end], after))


@dataclass(frozen=True)
class WarmUp(_WarmUp):
    """A way from `start_lr` to the schedule's first value, then the schedule, `length` iterations later.

    For `t <= length` it is `start_lr + (schedule(0) - start_lr) r(t / length)`, after that `schedule(t - length)`. r(u)
    is `u` (linear), `(1 - cos(pi u)) / 2` (cosine) or `u^pwr` (poly); an exponential way is
    `start_lr (schedule(0) / start_lr)^u`, and a constant one stays at `start_lr`.

    >>> schedule = WarmUp(lambda t: 16.0 - t, start_lr=1, length=4, shape="exponential")
    >>> [schedule(t) for t in range(7)]
    [1.0, 2.0, 4.0, 8.0, 16.0, 15.0, 14.0]

    Args:
        schedule: what is warmed up.
        start_lr: the learning rate at 0, at least 0; above 0 if the shape is `"exponential"` or `"constant"`.
        length: iterations of the warm-up, at least 1.
        shape: `"linear"`, `"cosine"`, `"exponential"`, `"poly"` or `"constant"`.
        pwr: the power of `"poly"`, above 0; by default 2.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    def __post_init__(self) -> None:
        """Check the bounds and ask where the way ends."""
        self._aim(shift=self.length)

    @property
    def total_length(self) -> int | None:
        """The warm-up and the schedule's own; None if that has none."""
        after = length_of(self.schedule)
        if after == 0 and self.shape == "constant":
            return self.length + 1
        return None if after is None else self.length + after


@dataclass(frozen=True)
class LinearWarmUp(WarmUp):
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

    shape: str = field(init=False, repr=False, default="linear")
    pwr: float | None = field(init=False, repr=False, default=None)


@dataclass(frozen=True)
class OverlapWarmUp(_WarmUp):
    """A way from `start_lr` to where the schedule is after `length` iterations, then the schedule itself.

    For `t <= length` it is `start_lr + (schedule(length) - start_lr) r(t / length)`, after that `schedule(t)`: the way
    takes the place of the schedule's beginning, and nothing is postponed. The shapes are those of `WarmUp`.

    >>> schedule = OverlapWarmUp(lambda t: 8.0 - t, start_lr=0, length=4)
    >>> [schedule(t) for t in range(7)]
    [0.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0]

    Its breakpoints are the end of the way and the schedule's own, those under the way included: it may hide a drop that
    somebody who reads the plan looks for.

    Args:
        schedule: what is warmed up.
        start_lr: the learning rate at 0, at least 0; above 0 if the shape is `"exponential"` or `"constant"`.
        length: iterations of the warm-up, at least 1.
        shape: `"linear"`, `"cosine"`, `"exponential"`, `"poly"` or `"constant"`.
        pwr: the power of `"poly"`, above 0; by default 2.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    def __post_init__(self) -> None:
        """Check the bounds and ask where the way ends."""
        self._aim(shift=0)

    @property
    def total_length(self) -> int | None:
        """The later of the warm-up's end and the schedule's own; None if that has none."""
        own = length_of(self.schedule)
        return None if own is None else max(self.length + (self.shape == "constant"), own)
