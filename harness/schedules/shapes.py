"""The elementary curves: one formula each, nothing inside them.

They know nothing of each other, of epochs or of YAML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
from typing_extensions import override

from harness.schedules.base import Iterations, Rates, Schedule, constant, inside, mix, mix_many, piecewise
from harness.schedules.bounds import FRACTION, POSITIVE, RATE, check_counts, check_order, keep_numbers
from harness.schedules.curves import half_wave, half_waves, peak_of, power, powers


@dataclass(frozen=True)
class PolySchedule(Schedule):
    """`final_lr + (base_lr - final_lr) (1 - t/max_update)^pwr`, and `final_lr` from `max_update` on.

    >>> [PolySchedule(base_lr=1, max_update=4)(t) for t in (0, 1, 2, 4, 9)]
    [1.0, 0.5625, 0.25, 0.0, 0.0]

    Args:
        base_lr: the learning rate at 0.
        max_update: the iteration that reaches `final_lr`, at least 1.
        pwr: the power, above 0; 1 is a straight line.
        final_lr: the learning rate at the end, at least 0.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    base_lr: float
    max_update: int
    pwr: float = 2
    final_lr: float = 0

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_numbers(self, RATE, "base_lr", "final_lr")
        check_counts(self, 1, "max_update")
        keep_numbers(self, POSITIVE, "pwr")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        if t >= self.max_update:
            return self.final_lr
        return mix(self.final_lr, self.base_lr, power((self.max_update - t) / self.max_update, self.pwr))

    @override
    def values(self, t: Iterations) -> Rates:

        def falling(t: Iterations) -> Rates:
            return mix_many(self.final_lr, self.base_lr, powers((self.max_update - t) / self.max_update, self.pwr))

        return piecewise(t, [self.max_update], [falling, constant(self.final_lr)])

    @property
    def total_length(self) -> int:
        """`max_update`."""
        return self.max_update

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The end."""
        return inside(until, self.max_update)


@dataclass(frozen=True)
class CosineAnnealingSchedule(Schedule):
    """`min_lr + (max_lr - min_lr) (1 + cos(pi t / cycle_length)) / 2`, then `min_lr` for ever.

    Half a wave down. Repeated by `CyclicalSchedule` it is SGDR: Loshchilov and Hutter, "SGDR: Stochastic Gradient
    Descent with Warm Restarts", 2016, arXiv 1608.03983.

    >>> [round(CosineAnnealingSchedule(min_lr=1, max_lr=3, cycle_length=4)(t), 4) for t in range(6)]
    [3.0, 2.7071, 2.0, 1.2929, 1.0, 1.0]

    Args:
        min_lr: the learning rate at the end, from 0 to `max_lr`.
        max_lr: the learning rate at 0.
        cycle_length: iterations from `max_lr` to `min_lr`, at least 1.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    min_lr: float
    max_lr: float
    cycle_length: int

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_numbers(self, RATE, "min_lr", "max_lr")
        check_order(self, "min_lr", "max_lr")
        check_counts(self, 1, "cycle_length")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        if t >= self.cycle_length:
            return self.min_lr
        return mix(self.min_lr, self.max_lr, half_wave(t / self.cycle_length))

    @override
    def values(self, t: Iterations) -> Rates:

        def wave(t: Iterations) -> Rates:
            return mix_many(self.min_lr, self.max_lr, half_waves(t / self.cycle_length))

        return piecewise(t, [self.cycle_length], [wave, constant(self.min_lr)])

    @property
    def total_length(self) -> int:
        """`cycle_length`."""
        return self.cycle_length

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The end."""
        return inside(until, self.cycle_length)


@dataclass(frozen=True)
class TriangularSchedule(Schedule):
    """A line from `min_lr` up to `max_lr` at `p = cycle_length inc_fraction`, one down to `min_lr` at `cycle_length`.

    After that `min_lr` for ever. `p` need not be whole; if it is, up to rounding, iteration p gets exactly `max_lr`.
    With `inc_fraction=0.1` and `min_lr = max_lr / 32` it is the slanted triangle of Howard and Ruder, "Universal
    Language Model Fine-tuning for Text Classification", 2018, arXiv 1801.06146; repeated by `CyclicalSchedule` it is
    the triangular policy of Smith, "Cyclical Learning Rates for Training Neural Networks", 2015, arXiv 1506.01186.

    >>> [TriangularSchedule(min_lr=1, max_lr=2, cycle_length=8)(t) for t in (0, 1, 4, 6, 8, 9)]
    [1.0, 1.25, 2.0, 1.5, 1.0, 1.0]

    Args:
        min_lr: the learning rate at both ends, from 0 to `max_lr`.
        max_lr: the learning rate at the peak.
        cycle_length: iterations, at least 1.
        inc_fraction: the part of the cycle that rises, between 0 and 1, neither included.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    min_lr: float
    max_lr: float
    cycle_length: int
    inc_fraction: float = 0.5
    _peak: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the bounds and place the peak."""
        keep_numbers(self, RATE, "min_lr", "max_lr")
        check_order(self, "min_lr", "max_lr")
        check_counts(self, 1, "cycle_length")
        keep_numbers(self, FRACTION, "inc_fraction")
        object.__setattr__(self, "_peak", peak_of(self.cycle_length, self.inc_fraction))

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        if t >= self.cycle_length:
            return self.min_lr
        peak = self._peak
        height = t / peak if t <= peak else (self.cycle_length - t) / (self.cycle_length - peak)
        return mix(self.min_lr, self.max_lr, height)

    @override
    def values(self, t: Iterations) -> Rates:
        peak, length = self._peak, self.cycle_length

        def triangle(t: Iterations) -> Rates:
            return mix_many(self.min_lr, self.max_lr, np.where(t <= peak, t / peak, (length - t) / (length - peak)))

        return piecewise(t, [length], [triangle, constant(self.min_lr)])

    @property
    def total_length(self) -> int:
        """`cycle_length`."""
        return self.cycle_length

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The peak and the end."""
        return inside(until, math.ceil(self._peak), self.cycle_length)


@dataclass(frozen=True)
class ExponentialSchedule(Schedule):
    """`start_lr (finish_lr / start_lr)^(t / length)`, then `finish_lr` for ever: a straight line on a log scale.

    >>> schedule = ExponentialSchedule(start_lr=1, finish_lr=0.01, length=2)
    >>> [schedule(t) for t in range(4)]
    [1.0, 0.1, 0.01, 0.01]

    Args:
        start_lr: the learning rate at 0, above 0.
        finish_lr: the learning rate from `length` on, above 0.
        length: iterations, at least 1.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    start_lr: float
    finish_lr: float
    length: int

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_numbers(self, POSITIVE, "start_lr", "finish_lr")
        check_counts(self, 1, "length")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        if t >= self.length:
            return self.finish_lr
        return self.start_lr * math.pow(self.finish_lr / self.start_lr, t / self.length)

    @override
    def values(self, t: Iterations) -> Rates:
        ratio = self.finish_lr / self.start_lr

        def line(t: Iterations) -> Rates:
            powers = map(math.pow, repeat(ratio), (t / self.length).tolist())
            return self.start_lr * np.fromiter(powers, np.float64, t.size)

        return piecewise(t, [self.length], [line, constant(self.finish_lr)])

    @property
    def total_length(self) -> int:
        """`length`."""
        return self.length

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The end."""
        return inside(until, self.length)


@dataclass(frozen=True)
class InverseSqrtSchedule(Schedule):
    """`base_lr` up to iteration `timescale`, then `base_lr sqrt(timescale / t)`.

    The decay of Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762, section 5.3. Their warm-up is a
    line from 0 over the first `timescale` iterations of this very schedule (it does not shift it).

    >>> [InverseSqrtSchedule(base_lr=1, timescale=100)(t) for t in (0, 100, 400, 10000)]
    [1.0, 1.0, 0.5, 0.1]

    Args:
        base_lr: the learning rate before the decay, at least 0.
        timescale: the iteration at which the decay begins, at least 1.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    base_lr: float
    timescale: int

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_numbers(self, RATE, "base_lr")
        check_counts(self, 1, "timescale")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return self.base_lr if t <= self.timescale else self.base_lr * math.sqrt(self.timescale / t)

    @override
    def values(self, t: Iterations) -> Rates:

        def decay(t: Iterations) -> Rates:
            rates: Rates = self.base_lr * np.sqrt(self.timescale / t)
            return rates

        return piecewise(t, [self.timescale + 1], [constant(self.base_lr), decay])

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The beginning of the decay."""
        return inside(until, self.timescale)
