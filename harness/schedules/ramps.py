"""From one learning rate to another, along a line or half a wave of a cosine: once, or up and down.

They know nothing of each other, of epochs or of YAML.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from typing_extensions import override

from harness.schedules.base import Iterations, Rates, Schedule, constant, inside, mix, mix_many, piecewise
from harness.schedules.bounds import FRACTION, RATE, BoundError, check_counts, keep_numbers
from harness.schedules.curves import peak_of
from harness.schedules.ways import RISES, Way, check_choice, check_ends, check_way

Phase = tuple[float, float, float, float]
"""A part of a cycle: where it begins and ends, in iterations, and its learning rates there."""

STARTS = ("before_training", "first_update")
PHASES = ("two", "three")


@dataclass(frozen=True)
class RampSchedule(Schedule):
    """`start_lr + (end_lr - start_lr) r(t / length)`, then `end_lr` for ever; it may rise or fall.

    r is `u` (linear), `(1 - cos(pi u)) / 2` (cosine: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with
    Warm Restarts", 2016, arXiv 1608.03983, here in both directions) or `u^pwr` (poly); an exponential ramp is
    `start_lr (end_lr / start_lr)^u`.

    >>> [round(RampSchedule(start_lr=1, end_lr=3, length=4, shape="cosine")(t), 4) for t in range(6)]
    [1.0, 1.2929, 2.0, 2.7071, 3.0, 3.0]
    >>> [RampSchedule(start_lr=1, end_lr=16, length=4, shape="exponential")(t) for t in range(6)]
    [1.0, 2.0, 4.0, 8.0, 16.0, 16.0]

    Args:
        start_lr: the learning rate at 0, at least 0; above 0 if the shape is `"exponential"`.
        end_lr: the learning rate from `length` on, likewise.
        length: iterations, at least 1.
        shape: `"linear"`, `"cosine"`, `"exponential"` or `"poly"`.
        pwr: the power of `"poly"`, above 0; by default 2.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    start_lr: float
    end_lr: float
    length: int
    shape: str = "linear"
    pwr: float | None = None
    _way: Way = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_numbers(self, RATE, "start_lr", "end_lr")
        check_counts(self, 1, "length")
        check_way(self)
        check_ends(self, "start_lr", "end_lr")
        object.__setattr__(self, "_way", Way(self.start_lr, self.end_lr, self.shape, self.pwr))

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        return self.end_lr if t >= self.length else self._way.at(t / self.length)

    @override
    def values(self, t: Iterations) -> Rates:
        return piecewise(t, [self.length], [lambda t: self._way.many(t / self.length), constant(self.end_lr)])

    @property
    def total_length(self) -> int:
        """`length`."""
        return self.length

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The end."""
        return inside(until, self.length)


@dataclass(frozen=True)
class OneCycleSchedule(Schedule):
    """From `start_lr` to `max_lr` and back in two equal lines, then a line to `finish_lr`, which stays.

    With `shape="cosine"` each of the three is half a wave of a cosine.

    The cycle takes `cycle_length` iterations and turns at its half, the cool-down `cooldown_length`. Without a
    cool-down `start_lr` stays. Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2017, arXiv 1708.07120. Momentum is cycled the other way round, and for it `start_lr` may be the
    larger of the two: `OneCycleSchedule(0.95, 0.85, cycle_length)`.

    >>> schedule = OneCycleSchedule(1, 3, cycle_length=4, cooldown_length=2, finish_lr=0)
    >>> [schedule(t) for t in range(8)]
    [1.0, 2.0, 3.0, 2.0, 1.0, 0.5, 0.0, 0.0]

    Args:
        start_lr: the learning rate at both ends of the cycle, at least 0.
        max_lr: the learning rate where it turns, at least 0.
        cycle_length: iterations of the cycle, at least 1.
        cooldown_length: iterations of the cool-down, at least 0.
        finish_lr: the learning rate at the end, at least 0; given if and only if there is a cool-down.
        shape: `"linear"` or `"cosine"`.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    start_lr: float
    max_lr: float
    cycle_length: int
    cooldown_length: int = 0
    finish_lr: float | None = None
    shape: str = "linear"

    def __post_init__(self) -> None:
        """Check the bounds."""
        keep_numbers(self, RATE, "start_lr", "max_lr")
        check_counts(self, 1, "cycle_length")
        check_counts(self, 0, "cooldown_length")
        check_choice(self, "shape", tuple(RISES))
        if self.finish_lr is not None:
            keep_numbers(self, RATE, "finish_lr")
        if self.cooldown_length > 0 and self.finish_lr is None:
            raise BoundError(type(self).__name__, "finish_lr", None, "given with a cooldown_length > 0")
        if self.cooldown_length == 0 and self.finish_lr is not None:
            raise BoundError(type(self).__name__, "finish_lr", self.finish_lr, "left out without a cooldown_length > 0")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        into_cooldown = t - self.cycle_length
        if into_cooldown < 0:
            part = 2 * min(t, -into_cooldown) / self.cycle_length
            return mix(self.start_lr, self.max_lr, RISES[self.shape][0](part))
        if self.finish_lr is None:
            return self.start_lr
        if into_cooldown >= self.cooldown_length:
            return self.finish_lr
        return mix(self.start_lr, self.finish_lr, RISES[self.shape][0](into_cooldown / self.cooldown_length))

    @override
    def values(self, t: Iterations) -> Rates:
        length, finish_lr, rises = self.cycle_length, self.finish_lr, RISES[self.shape][1]

        def cycle(t: Iterations) -> Rates:
            return mix_many(self.start_lr, self.max_lr, rises(2 * np.minimum(t, length - t) / length))

        def cooldown(t: Iterations) -> Rates:
            return mix_many(self.start_lr, finish_lr or 0.0, rises((t - length) / self.cooldown_length))

        if finish_lr is None:
            return piecewise(t, [length], [cycle, constant(self.start_lr)])
        return piecewise(t, [length, self.total_length], [cycle, cooldown, constant(finish_lr)])

    @property
    def total_length(self) -> int:
        """`cycle_length + cooldown_length`."""
        return self.cycle_length + self.cooldown_length

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The peak, the end of the cycle, the end of the cool-down."""
        return inside(until, (self.cycle_length + 1) // 2, self.cycle_length, self.total_length)


@dataclass(frozen=True)
class RiseAndFallSchedule(Schedule):
    """From `start_lr` up to `max_lr` at `p = cycle_length inc_fraction`, down to `end_lr` at `cycle_length`.

    In three phases it first goes back to `start_lr`, as fast as it rose, and from there to `end_lr`. After the end
    `end_lr` stays. Each way is a line or half a wave of a cosine. `p` need not be whole.

    `starts` says which iteration has `start_lr`: 0, the value `before_training`, so that p iterations rise; or 1, the
    `first_update`, which is how PyTorch's OneCycleLR counts. Its step s, counted from 0, is iteration `t = s + 1`: with
    `total_steps = cycle_length`, `pct_start = inc_fraction`, `start_lr = max_lr / div_factor` and
    `end_lr = start_lr / final_div_factor` the two are the same (`anneal_strategy="linear"` and `three_phase=True` too).
    After Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2017,
    arXiv 1708.07120. Momentum goes the other way round, and for it `start_lr` may be the largest.

    >>> schedule = RiseAndFallSchedule(start_lr=0, max_lr=4, end_lr=1, cycle_length=10, inc_fraction=0.4)
    >>> [round(schedule(t), 4) for t in (0, 2, 4, 7, 10, 11)]
    [0.0, 2.0, 4.0, 2.5, 1.0, 1.0]

    Args:
        start_lr: the learning rate at the start, at least 0.
        max_lr: the learning rate where it turns, at least 0.
        end_lr: the learning rate at the end, at least 0.
        cycle_length: iterations, at least 1.
        inc_fraction: the part of them that rises, between 0 and 1, neither included; in three phases at most 0.5.
        shape: `"linear"` or `"cosine"`.
        starts: `"before_training"` or `"first_update"`.
        phases: `"two"` or `"three"`.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    start_lr: float
    max_lr: float
    end_lr: float
    cycle_length: int
    inc_fraction: float = 0.3
    shape: str = "cosine"
    starts: str = "before_training"
    phases: str = "two"
    _ways: tuple[Phase, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the bounds and place the ways: where each begins and ends, and its learning rates there."""
        keep_numbers(self, RATE, "start_lr", "max_lr", "end_lr")
        check_counts(self, 1, "cycle_length")
        keep_numbers(self, FRACTION, "inc_fraction")
        check_choice(self, "shape", tuple(RISES))
        check_choice(self, "starts", STARTS)
        check_choice(self, "phases", PHASES)
        first, end = STARTS.index(self.starts), self.cycle_length
        peak = peak_of(end, self.inc_fraction)
        rise: Phase = (first, peak, self.start_lr, self.max_lr)
        if self.phases == "two":
            ways: tuple[Phase, ...] = (rise, (peak, end, self.max_lr, self.end_lr))
        else:
            if self.inc_fraction > 0.5:
                raise BoundError(type(self).__name__, "inc_fraction", self.inc_fraction, "at most 0.5 in three phases")
            back = 2 * peak - first
            ways = (rise, (peak, back, self.max_lr, self.start_lr), (back, end, self.start_lr, self.end_lr))
        object.__setattr__(self, "_ways", ways)

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        if t >= self.cycle_length:
            return self.end_lr
        begin, end, start, finish = next(way for way in self._ways if t <= way[1])
        return mix(start, finish, RISES[self.shape][0]((t - begin) / (end - begin))) if t > begin else start

    @override
    def values(self, t: Iterations) -> Rates:

        def along(way: Phase) -> Callable[[Iterations], Rates]:
            begin, end, start, finish = way

            def rates(t: Iterations) -> Rates:
                part = np.maximum(t - begin, 0.0) / max(end - begin, math.ulp(1.0))
                return mix_many(start, finish, RISES[self.shape][1](part))

            return rates

        after = [min(math.floor(end) + 1, self.cycle_length) for _, end, _, _ in self._ways[:-1]]
        starts = [*accumulate(after, max), self.cycle_length]
        return piecewise(t, starts, [*map(along, self._ways), constant(self.end_lr)])

    @property
    def total_length(self) -> int:
        """`cycle_length`."""
        return self.cycle_length

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The start, the peak, the end of the second of three phases, the end."""
        ends = (math.ceil(end) for _, end, _, _ in self._ways)
        return inside(until, STARTS.index(self.starts), *ends)
