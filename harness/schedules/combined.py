"""Several schedules at the same time: their product, the highest of them, the lowest of them.

All begin together and count the same iterations; `SequentialSchedule` is for one after another.
"""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import ClassVar

import numpy as np
from typing_extensions import override

from harness.schedules.adapters import keep_schedules
from harness.schedules.base import (
    Composite,
    Iterations,
    Rates,
    ScheduleLike,
    in_order,
    iter_breakpoints_of,
    length_of,
    values_of,
)


@dataclass(frozen=True)
class Combined(Composite):
    """Base of schedules that ask several others at the same iteration.

    Args:
        schedules: at least two.
    """

    schedules: Sequence[ScheduleLike]

    def __post_init__(self) -> None:
        """Take whatever can be a schedule."""
        keep_schedules(self, "schedules", 2)

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """Those of all schedules."""
        return in_order(until, heapq.merge(*(iter_breakpoints_of(one, until) for one in self.schedules)))


@dataclass(frozen=True)
class MultipliedSchedule(Combined):
    """`schedules[0](t) schedules[1](t) ...`: a learning rate and factors of it, multiplied from the left.

    What PyTorch's ChainedScheduler makes of schedulers that multiply.

    >>> schedule = MultipliedSchedule([lambda t: 8.0 - t, lambda t: 0.5**t])
    >>> [schedule(t) for t in range(4)]
    [8.0, 3.5, 1.5, 0.625]

    Args:
        schedules: at least two.

    Raises:
        BoundError: if it is anything else.
    """

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return reduce(lambda product, one: product * one(t), self.schedules[1:], float(self.schedules[0](t)))

    @override
    def values(self, t: Iterations) -> Rates:
        first, *others = (values_of(one, t) for one in self.schedules)
        return reduce(np.multiply, others, first)

    @property
    def total_length(self) -> int | None:
        """The latest of the schedules' own; None if one has none."""
        lengths = [length_of(one) for one in self.schedules]
        known = [length for length in lengths if length is not None]
        return max(known) if len(known) == len(lengths) else None


@dataclass(frozen=True)
class _Extreme(Combined):
    """The schedule that is highest, or lowest; of equal ones the first."""

    _of_arrays: ClassVar[np.ufunc]  # `_leader` for many iterations: np.maximum or np.minimum

    @abstractmethod
    def _leader(self, values: Sequence[float]) -> int:
        """Which of the schedules' values holds."""

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        values = [float(one(t)) for one in self.schedules]
        return values[self._leader(values)]

    @override
    def values(self, t: Iterations) -> Rates:
        return reduce(self._of_arrays, (values_of(one, t) for one in self.schedules))

    @property
    def total_length(self) -> int | None:
        """When the one that holds in the end has come to its own, and to hold; None if one of all has none."""
        lengths = [length_of(one) for one in self.schedules]
        known = [length for length in lengths if length is not None]
        if len(known) < len(lengths):
            return None
        latest = max(known)
        taken_over = list(self._changes(latest + 1))
        return max([*taken_over[-1:], known[self._index(latest)]])

    @override
    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """Those of all schedules, and where another one comes to hold between two of them."""
        return in_order(until, heapq.merge(super().iter_breakpoints(until), self._changes(until)))

    def _index(self, t: int) -> int:
        return self._leader([float(one(t)) for one in self.schedules])

    def _changes(self, until: int) -> Iterator[int]:
        """The iterations at which another schedule holds than in the one before.

        Between two breakpoints each rises or falls throughout. What holds in both ends is taken to hold all the way, so
        that two of the same direction that cross twice go unseen.
        """
        start = 0
        for end in chain(super().iter_breakpoints(until), [until]):
            yield from self._between(start, end - 1)
            if end < until and self._index(end - 1) != self._index(end):
                yield end
            start = end

    def _between(self, first: int, last: int) -> Iterator[int]:
        if first >= last or self._index(first) == self._index(last):
            return
        if first + 1 == last:
            yield last
            return
        middle = (first + last) // 2
        yield from self._between(first, middle)
        yield from self._between(middle, last)


@dataclass(frozen=True)
class MaximumSchedule(_Extreme):
    """The highest of several schedules: one of them may be a floor.

    >>> schedule = MaximumSchedule([lambda t: 8.0 - t, lambda t: 6.0])
    >>> [schedule(t) for t in range(4)]
    [8.0, 7.0, 6.0, 6.0]

    Args:
        schedules: at least two.

    Raises:
        BoundError: if it is anything else.
    """

    _of_arrays: ClassVar[np.ufunc] = np.maximum

    @override
    def _leader(self, values: Sequence[float]) -> int:
        return values.index(max(values))


@dataclass(frozen=True)
class MinimumSchedule(_Extreme):
    """The lowest of several schedules: one of them may be a ceiling.

    The schedule of the Transformer is the lower of a line and an inverse square root: Vaswani et al., "Attention Is All
    You Need", 2017, arXiv 1706.03762, section 5.3.

    >>> schedule = MinimumSchedule([lambda t: 2.0 * t, lambda t: 6.0])
    >>> [schedule(t) for t in range(5)]
    [0.0, 2.0, 4.0, 6.0, 6.0]

    Args:
        schedules: at least two.

    Raises:
        BoundError: if it is anything else.
    """

    _of_arrays: ClassVar[np.ufunc] = np.minimum

    @override
    def _leader(self, values: Sequence[float]) -> int:
        return values.index(min(values))
