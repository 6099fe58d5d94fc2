"""The range test's arithmetic: which learning rate comes when, and when to stop. Pure; knows no network.

L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class Stop(StrEnum):
    """Why a sweep ended."""

    UNSTABLE = "the running mean of the loss rose above its limit"
    NOT_FINITE = "loss, gradient or running statistics were not finite"
    LAST_LR = "the last learning rate was reached"
    LAST_ITERATION = "the largest number of iterations was reached"


@dataclass(frozen=True)
class Sweep:
    """The learning rates of a sweep.

    Either geometric, `lr_start * lr_multiplier**k` up to `lr_end`; or `num_iterations` of them from `lr_start` to
    `lr_end`, evenly spaced in log LR (`exponential`) or in LR (`linear`).

    >>> [round(Sweep(lr_start=0.1, lr_end=0.4, lr_multiplier=2).lr(k), 6) for k in range(3)]
    [0.1, 0.2, 0.4]

    Attributes:
        lr_start: the first learning rate, above 0.
        lr_end: no learning rate is above it.
        lr_multiplier: what each is multiplied by to give the next, above 1; `None` with `num_iterations`.
        num_iterations: how many there are, at least 2; `None` with `lr_multiplier`.
        spacing: `exponential` or `linear`, with `num_iterations`.
        max_iterations: the sweep ends after so many, whatever its learning rates.
    """

    lr_start: float = 1e-6
    lr_end: float = 10.0
    lr_multiplier: float | None = 1.1
    num_iterations: int | None = None
    spacing: str = "exponential"
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        """Refuse settings that do not give a sweep."""
        for name, value in (("lr_start", self.lr_start), ("lr_end", self.lr_end)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}: {value:g} is not a valid learning rate; give a finite number above 0")
        if self.lr_end <= self.lr_start:
            raise ValueError(f"lr_end: {self.lr_end:g} is not above lr_start, {self.lr_start:g}")
        if (self.lr_multiplier is None) == (self.num_iterations is None):
            raise ValueError("lr_multiplier and num_iterations: give exactly one of them")
        if self.lr_multiplier is not None and not 1 < self.lr_multiplier < math.inf:
            raise ValueError(
                f"lr_multiplier: {self.lr_multiplier:g} does not raise the learning rate; give one above 1"
            )
        if self.num_iterations is not None and self.num_iterations < 2:
            raise ValueError(f"num_iterations: {self.num_iterations} is too few for a sweep; give at least 2")
        if self.spacing not in ("exponential", "linear"):
            raise ValueError(f"spacing: {self.spacing!r} is unknown; known: exponential, linear")
        if self.spacing == "linear" and self.num_iterations is None:
            raise ValueError(
                "spacing: linear needs num_iterations, because a multiplier is exponential; give num_iterations"
            )
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations: {self.max_iterations} is too few; give at least 1")

    def __len__(self) -> int:
        """The number of learning rates, limited by `max_iterations`."""
        return min(self._whole, self.max_iterations)

    @property
    def bound(self) -> Stop:
        """What ends a sweep that nothing else ended."""
        return Stop.LAST_ITERATION if self._whole > self.max_iterations else Stop.LAST_LR

    def lr(self, k: int) -> float:
        """The learning rate of step `k`, from 0."""
        if self.lr_multiplier is not None:
            return float(self.lr_start * self.lr_multiplier**k)
        part = k / ((self.num_iterations or 2) - 1)
        if self.spacing == "linear":
            return self.lr_start + part * (self.lr_end - self.lr_start)
        return float(self.lr_start * (self.lr_end / self.lr_start) ** part)

    def faster(self) -> Sweep:
        """The same range in half as many iterations; for exponential spacing.

        >>> Sweep(lr_start=1.0, lr_end=16.0, lr_multiplier=2.0).faster().lr_multiplier
        4.0
        """
        if self.lr_multiplier is not None:
            return replace(self, lr_multiplier=self.lr_multiplier**2)
        return replace(self, num_iterations=max(2, ((self.num_iterations or 2) + 1) // 2))

    @property
    def _whole(self) -> int:
        if self.lr_multiplier is None:
            return self.num_iterations or 2
        steps = math.log(self.lr_end / self.lr_start) / math.log(self.lr_multiplier)
        return int(steps * (1 + 1e-12)) + 1


@dataclass(frozen=True)
class StopRule:
    """When a loss has become unstable.

    `m = (1 - smoothing) loss + smoothing m`, starting at the first loss; the sweep stops when `m` is above its limit
    and at least `min_iter` iterations are done. Without probes the limit is `growth * first loss`. With probes, which
    are losses at `lr_start` before the sweep, it is `b + max((growth - 1) |b|, 10 s)`, where `b` is their mean and `s`
    their standard deviation: the same limit for a large positive loss, and one that means something where the loss is
    near 0 or negative, as it may be in the middle of training.

    Attributes:
        smoothing: how much of the mean is kept, 0 to below 1.
        min_iter: iterations before which the sweep never stops for a high mean.
        growth: how much the loss may grow, above 1.
    """

    smoothing: float = 0.3
    min_iter: int = 20
    growth: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing: {self.smoothing:g} must be at least 0 and below 1")
        if self.min_iter < 0:
            raise ValueError(f"min_iter: {self.min_iter} must be at least 0")
        if not 1 < self.growth < math.inf:
            raise ValueError(f"growth: {self.growth:g} must be above 1")

    def limit(self, first: float, probes: Sequence[float] = ()) -> float:
        """What the running mean may not exceed."""
        if not probes:
            return self.growth * first
        mean = math.fsum(probes) / len(probes)
        spread = math.sqrt(math.fsum((loss - mean) ** 2 for loss in probes) / len(probes))
        return mean + max((self.growth - 1) * abs(mean), 10 * spread)

    def mean(self, previous: float | None, loss: float) -> float:
        """The running mean after one more loss; `previous` is `None` at the first."""
        return loss if previous is None else (1 - self.smoothing) * loss + self.smoothing * previous
