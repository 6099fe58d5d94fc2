"""Schedules that end with a way down from wherever another schedule is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

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
    piecewise,
    values_of,
)
from harness.schedules.bounds import RATE, SHRINK, BoundError, check_counts, keep_numbers
from harness.schedules.ways import Way, check_way


@dataclass(frozen=True)
class _CoolDown(Composite):
    """The schedule up to iteration `_begin`, a way from there to `_end`, and the end of the way for ever."""

    schedule: ScheduleLike
    _begin: int = field(init=False, repr=False, compare=False)
    _end: int = field(init=False, repr=False, compare=False)
    _way: Way = field(init=False, repr=False, compare=False)

    def _top(self, start_idx: int) -> float:
        """Where the way begins."""
        keep_schedule(self, "schedule")
        check_counts(self, 0, "start_idx")
        check_counts(self, 1, "length")
        return float(self.schedule(start_idx))

    def _place(self, start_idx: int, length: int, way: Way) -> None:
        object.__setattr__(self, "_begin", start_idx)
        object.__setattr__(self, "_end", start_idx + length)
        object.__setattr__(self, "_way", way)

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        if t <= self._begin:
            return self.schedule(t)
        return self._way.finish if t >= self._end else self._way.at((t - self._begin) / (self._end - self._begin))

    @override
    def values(self, t: Iterations) -> Rates:

        def way(t: Iterations) -> Rates:
            return self._way.many((t - self._begin) / (self._end - self._begin))

        before, after = lambda t: values_of(self.schedule, t), constant(self._way.finish)
        return piecewise(t, [self._begin + 1, self._end], [before, way, after])

    @property
    def end_lr(self) -> float:
        """The learning rate at the end."""
        return self._way.finish

    @property
    def total_length(self) -> int:
        """`start_idx + length`."""
        return self._end

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The schedule's own before the way, and the two ends of the way."""
        before = iter_breakpoints_of(self.schedule, min(until, self._begin))
        return in_order(until, chain(before, [self._begin, self._end]))


@dataclass(frozen=True)
class CoolDown(_CoolDown):
    """The schedule up to `start_idx`, then a way over `length` iterations to its end, which stays.

    With top = schedule(start_idx) the end is `finish_lr`, or `finish_fraction top`; u being the part of the way that is
    over, the way is `top + (end - top) r(u)`, where r is `u` (linear), `(1 - cos(pi u)) / 2` (cosine) or `u^pwr` (poly:
    with a power of 1/2 it is the decay "1 - sqrt" of Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond
    Fixed Training Durations", 2024, arXiv 2405.18392), or `top (end / top)^u` (exponential).

    >>> schedule = CoolDown(lambda t: 8.0, start_idx=2, length=4, finish_fraction=0.5)
    >>> [schedule(t) for t in range(8)]
    [8.0, 8.0, 8.0, 7.0, 6.0, 5.0, 4.0, 4.0]

    Args:
        schedule: what is cooled down.
        start_idx: the last iteration of the schedule and the first of the way, at least 0.
        length: iterations of the way, at least 1.
        finish_lr: the learning rate at the end, at least 0; or give `finish_fraction`.
        finish_fraction: the end as a part of where the way begins, above 0 and at most 1.
        shape: `"linear"`, `"cosine"`, `"exponential"` or `"poly"`.
        pwr: the power of `"poly"`, above 0; by default 2.

    Raises:
        BoundError: if an argument is outside these bounds, or of the two ends not exactly one is given.
    """

    start_idx: int
    length: int
    finish_lr: float | None = None
    finish_fraction: float | None = None
    shape: str = "linear"
    pwr: float | None = None

    def __post_init__(self) -> None:
        """Check the bounds and ask where the way begins."""
        owner = type(self).__name__
        if self.finish_lr is None and self.finish_fraction is None:
            raise BoundError(owner, "finish_lr", None, "given, or finish_fraction")
        if self.finish_lr is not None and self.finish_fraction is not None:
            raise BoundError(owner, "finish_fraction", self.finish_fraction, "left out beside finish_lr")
        keep_numbers(self, RATE, *(["finish_lr"] if self.finish_lr is not None else []))
        keep_numbers(self, SHRINK, *(["finish_fraction"] if self.finish_fraction is not None else []))
        check_way(self)
        top = self._top(self.start_idx)
        end = (self.finish_fraction or 0.0) * top if self.finish_lr is None else self.finish_lr
        if self.shape == "exponential" and not (top > 0 and end > 0):
            allowed = f"above 0, and so must the schedule at iteration {self.start_idx} ({top:g}), with an exponential"
            raise BoundError(owner, "finish_lr", end, allowed)
        self._place(self.start_idx, self.length, Way(top, end, self.shape, self.pwr))


@dataclass(frozen=True)
class LinearCoolDown(_CoolDown):
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

    finish_lr: float
    start_idx: int
    length: int

    def __post_init__(self) -> None:
        """Check the bounds and ask where the line begins."""
        keep_numbers(self, RATE, "finish_lr")
        self._place(self.start_idx, self.length, Way(self._top(self.start_idx), self.finish_lr))
