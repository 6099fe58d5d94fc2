"""Warm-up, a long stable phase, and a decay that can be put off until the end is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from typing_extensions import override

from harness.schedules.base import Iterations, Rates, Schedule, constant, inside, mix, mix_many, piecewise
from harness.schedules.bounds import RATE, BoundError, check_counts, check_order, keep_numbers
from harness.schedules.curves import half_wave, half_waves

DECAYS: dict[str, tuple[Callable[[float], float], Callable[[Rates], Rates]]] = {
    "linear": (lambda part: 1.0 - part, lambda part: 1.0 - part),
    "cosine": (half_wave, half_waves),
    "one_minus_sqrt": (lambda part: 1.0 - math.sqrt(part), lambda part: 1.0 - np.sqrt(part)),
}
"""The height that is left after a part of the decay, by name: from 1 at 0 to 0 at 1; and of many parts."""


@dataclass(frozen=True)
class WarmupStableDecaySchedule(Schedule):
    """A line from 0 to `peak_lr`, then `peak_lr`, then a decay to `final_lr`, then `final_lr` for ever.

    With u the part of the decay that is over, the decay is `final_lr + (peak_lr - final_lr) h(u)`, where h is `1 - u`
    (linear), `(1 + cos(pi u)) / 2` (cosine) or `1 - sqrt(u)` (one_minus_sqrt: Hägele et al., "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations", 2024, arXiv 2405.18392).

    >>> schedule = WarmupStableDecaySchedule(1, warmup_length=2, stable_length=3, decay_length=4)
    >>> [schedule(t) for t in range(11)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    Args:
        peak_lr: the learning rate of the stable phase.
        warmup_length: iterations of the warm-up, at least 0.
        stable_length: iterations of the stable phase, at least 0.
        decay_length: iterations of the decay, at least 1.
        final_lr: the learning rate at the end, from 0 to `peak_lr`.
        decay: `"linear"`, `"cosine"` or `"one_minus_sqrt"`.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    peak_lr: float
    warmup_length: int
    stable_length: int
    decay_length: int
    final_lr: float = 0
    decay: str = "linear"
    _decay_start: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the bounds and place the decay."""
        keep_numbers(self, RATE, "peak_lr", "final_lr")
        check_order(self, "final_lr", "peak_lr")
        check_counts(self, 0, "warmup_length", "stable_length")
        check_counts(self, 1, "decay_length")
        if not isinstance(self.decay, str) or self.decay not in DECAYS:
            raise BoundError(type(self).__name__, "decay", self.decay, f"one of {', '.join(DECAYS)}")
        object.__setattr__(self, "_decay_start", self.warmup_length + self.stable_length)

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        if t < self.warmup_length:
            return mix(0.0, self.peak_lr, t / self.warmup_length)
        into_decay = t - self._decay_start
        if into_decay <= 0:
            return self.peak_lr
        if into_decay >= self.decay_length:
            return self.final_lr
        return mix(self.final_lr, self.peak_lr, DECAYS[self.decay][0](into_decay / self.decay_length))

    @override
    def values(self, t: Iterations) -> Rates:

        def warmup(t: Iterations) -> Rates:
            return mix_many(0.0, self.peak_lr, t / self.warmup_length)

        def decay(t: Iterations) -> Rates:
            height = DECAYS[self.decay][1]((t - self._decay_start) / self.decay_length)
            return mix_many(self.final_lr, self.peak_lr, height)

        starts = [self.warmup_length, self._decay_start + 1, self._decay_start + self.decay_length]
        return piecewise(t, starts, [warmup, constant(self.peak_lr), decay, constant(self.final_lr)])

    @property
    def total_length(self) -> int:
        """The sum of the three lengths."""
        return self._decay_start + self.decay_length

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The ends of the three phases."""
        return inside(until, self.warmup_length, self._decay_start, self.total_length)
