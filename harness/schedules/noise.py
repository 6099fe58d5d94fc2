"""A schedule with noise on it that is a function of the seed and the iteration alone.

The numbers are those that timm draws with a generator of PyTorch for each iteration, without either of them.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from typing_extensions import override

from harness.schedules.base import Iterations, Rates, in_order, iter_breakpoints_of, length_of, values_of
from harness.schedules.bounds import NOISE, BoundError, check_counts, keep_numbers
from harness.schedules.modifiers import Around
from harness.schedules.ways import check_choice

DISTRIBUTIONS = ("normal", "uniform")


class _Twister:
    """A Mersenne Twister (MT19937), seeded anew for every iteration; to make one takes as long as ten seeds."""

    def __init__(self) -> None:
        self._generator = np.random.RandomState(0)
        self._lock = threading.Lock()

    def words(self, seed: int, count: int) -> Iterator[int]:
        """The first words of 32 bits after a seed."""
        with self._lock:
            self._generator.seed(seed)
            return iter(self._generator.randint(0, 2**32, count, np.uint32).tolist())

    def __reduce__(self) -> tuple[type[_Twister], tuple[()]]:
        return _Twister, ()


@dataclass(frozen=True)
class NoisySchedule(Around):
    """`schedule(t) (1 + n)`, with a number n of iteration t between -`noise` and `noise`.

    n is drawn from the uniform distribution, or from the standard normal one until it is inside, by a Mersenne Twister
    that is seeded with `seed + t`: so every rank draws the same, and a resumed run what the unbroken one did. These are
    the numbers of timm's schedulers (`noise_range_t`, `noise_pct`, `noise_type`, `noise_seed`; Wightman, "PyTorch Image
    Models", 2019, https://github.com/huggingface/pytorch-image-models).

    >>> schedule = NoisySchedule(lambda t: 1.0, noise=0.5, start_idx=2, length=2)
    >>> [round(schedule(t), 3) for t in range(5)]
    [1.0, 1.0, 1.059, 1.031, 1.0]

    Args:
        schedule: what is changed.
        noise: the largest change as a part of the learning rate, at least 0.01 and below 1.
        distribution: `"normal"` or `"uniform"`.
        seed: of the noise, from 0 to 2^31 - 1.
        start_idx: the first iteration with noise, at least 0.
        length: iterations with noise, at least 1; `None` for all that follow.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    noise: float = 0.67
    distribution: str = "normal"
    seed: int = 42
    start_idx: int = 0
    length: int | None = None
    _twister: _Twister = field(init=False, repr=False, compare=False, default_factory=_Twister)

    def __post_init__(self) -> None:
        """Check the bounds."""
        super().__post_init__()
        keep_numbers(self, NOISE, "noise")
        check_choice(self, "distribution", DISTRIBUTIONS)
        check_counts(self, 0, "seed", "start_idx")
        if self.seed >= 2**31:
            raise BoundError(type(self).__name__, "seed", self.seed, "an int >= 0 and < 2^31")
        if self.length is not None:
            check_counts(self, 1, "length")

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`."""
        lr = float(self.schedule(t))
        return lr + lr * self._drawn(t) if self._is_noisy(t) else lr

    @override
    def values(self, t: Iterations) -> Rates:
        values = values_of(self.schedule, t)
        drawn = (self._drawn(one) if self._is_noisy(one) else math.nan for one in t.tolist())
        noise = np.fromiter(drawn, np.float64, t.size)
        return np.where(np.isnan(noise), values, values + values * noise)

    @property
    def total_length(self) -> int | None:
        """Where noise and schedule have both ended; None if one of them does not."""
        own = length_of(self.schedule)
        return None if own is None or self.length is None else max(own, self.start_idx + self.length)

    @override
    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The schedule's own, and the two ends of the noise."""
        ends = [self.start_idx] + ([] if self.length is None else [self.start_idx + self.length])
        return in_order(until, heapq.merge(ends, iter_breakpoints_of(self.schedule, until)))

    def _is_noisy(self, t: int) -> bool:
        return t >= self.start_idx and (self.length is None or t < self.start_idx + self.length)

    def _drawn(self, t: int) -> float:
        """The number of iteration t, of which PyTorch keeps what a float32 holds."""
        seed = (self.seed + t) % 2**32
        if self.distribution == "uniform":
            word = next(self._twister.words(seed, 1))
            return 2.0 * ((word % 2**24) * 2.0**-24 - 0.5) * self.noise
        count = 4 if self.noise > 0.5 else 64
        while True:
            for number in _normals(self._twister.words(seed, count)):
                if abs(number) < self.noise:
                    return number
            count *= 4  # from the first word on: rare, and a schedule keeps nothing between two calls


def _normals(words: Iterator[int]) -> Iterator[float]:
    """Standard normal numbers, two at a time, by the method of Box and Muller, each rounded to a float32."""
    for high in words:
        turn = (((high << 32) | next(words)) % 2**53) * 2.0**-53
        far = (((next(words) << 32) | next(words)) % 2**53) * 2.0**-53
        radius, angle = math.sqrt(-2.0 * math.log1p(-far)), 2.0 * math.pi * turn
        yield float(np.float32(radius * math.cos(angle)))
        yield float(np.float32(radius * math.sin(angle)))
