"""Schedules of constant pieces: they stay and drop, without curves.

They know nothing of each other, of epochs or of YAML.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from harness.schedules.base import Iterations, Rates, Schedule, inside
from harness.schedules.bounds import RATE, SHRINK, check_counts, check_order, keep_numbers, keep_positions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """`lr`, always.

    Args:
        lr: the learning rate, at least 0.

    Raises:
        BoundError: if `lr` is negative or not a finite number.
    """

    lr: float

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_numbers(self, RATE, "lr")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return self.lr

    @override
    def values(self, t: Iterations) -> Rates:
        return np.full(t.shape, self.lr)

    @property
    def total_length(self) -> int:
        """0."""
        return 0


@dataclass(frozen=True)
class FactorSchedule(Schedule):
    """`max(stop_factor_lr, base_lr factor^n)`, where n counts the multiples of `step` before t: `n = ceil(t/step) - 1`.

    The drop comes after the iteration that `step` divides, as in MXNet's FactorScheduler:

    >>> schedule = FactorSchedule(base_lr=1, step=250, factor=0.5)
    >>> schedule(250), schedule(251)
    (1.0, 0.5)

    Args:
        base_lr: the learning rate up to iteration `step`.
        step: iterations between two drops, at least 1.
        factor: what a drop multiplies by, above 0 and at most 1.
        stop_factor_lr: the floor, from 0 to `base_lr`.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    base_lr: float
    step: int
    factor: float
    stop_factor_lr: float = 1e-8
    _settled: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the bounds and find the last drop."""
        keep_numbers(self, RATE, "base_lr", "stop_factor_lr")
        check_counts(self, 1, "step")
        keep_numbers(self, SHRINK, "factor")
        check_order(self, "stop_factor_lr", "base_lr")
        object.__setattr__(self, "_settled", self._first_at_floor())

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return self._after((t - 1) // self.step if t else 0)

    @override
    def values(self, t: Iterations) -> Rates:
        drops = np.maximum(t - 1, 0) // self.step
        if not t.size or drops.max() - drops.min() > t.size:
            return super().values(t)
        fewest = int(drops.min())
        levels = np.array([self._after(number) for number in range(fewest, int(drops.max()) + 1)])
        return levels.take(drops - fewest)

    def _after(self, drops: int) -> float:
        return max(self.stop_factor_lr, self.base_lr * self.factor**drops)

    def _first_at_floor(self) -> int | None:
        if self.factor == 1.0 or self.base_lr == self.stop_factor_lr:
            return 0
        if self.stop_factor_lr == 0.0:
            return None
        drops = math.ceil(math.log(self.stop_factor_lr / self.base_lr) / math.log(self.factor))
        while drops > 1 and self.base_lr * self.factor ** (drops - 1) <= self.stop_factor_lr:
            drops -= 1
        while self.base_lr * self.factor**drops > self.stop_factor_lr:
            drops += 1
        return drops * self.step + 1

    @property
    def total_length(self) -> int | None:
        """The first iteration at the floor; None without a floor, 0 if nothing ever drops."""
        return self._settled

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The first iteration after each drop: `step + 1`, `2 step + 1`, ... down to the floor."""
        return tuple(self.iter_breakpoints(until))

    @override
    def iter_breakpoints(self, until: int) -> Iterator[int]:
        last = until - 1 if self._settled is None else min(self._settled, until - 1)
        return iter(range(self.step + 1, last + 1, self.step))


@dataclass(frozen=True)
class MultiFactorSchedule(Schedule):
    """`base_lr factor^n`, where n counts the entries of `step` that are smaller than t.

    The drop comes after the iteration that is listed, as in MXNet's MultiFactorScheduler:

    >>> schedule = MultiFactorSchedule(base_lr=1, step=[3, 5], factor=0.5)
    >>> [schedule(t) for t in range(2, 8)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]

    Args:
        base_lr: the learning rate up to iteration `step[0]`.
        step: the last iteration before each drop; at least 1, increasing.
        factor: what a drop multiplies by, above 0 and at most 1.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    base_lr: float
    step: Sequence[int]
    factor: float

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_numbers(self, RATE, "base_lr")
        keep_positions(self, "step", 1)
        keep_numbers(self, SHRINK, "factor")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return self.base_lr * self.factor ** bisect_left(self.step, t)

    @override
    def values(self, t: Iterations) -> Rates:
        levels = np.array([self.base_lr * self.factor**drops for drops in range(len(self.step) + 1)])
        return levels.take(np.searchsorted(self.step, t))

    @property
    def total_length(self) -> int:
        """The iteration after the last in the list."""
        return self.step[-1] + 1

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The first iteration after each drop."""
        return inside(until, *(step + 1 for step in self.step))
