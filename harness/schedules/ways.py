"""Ways from one learning rate to another: the shapes that ramps, cycles, warm-ups and cool-downs share.

They know no iterations: a way maps the part of the time that is over, 0 to 1, to a learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from harness.schedules.base import Rates, mix, mix_many
from harness.schedules.bounds import POSITIVE, BoundError, keep_numbers
from harness.schedules.curves import power, powers, rising_wave, rising_waves

RISES: dict[str, tuple[Callable[[float], float], Callable[[Rates], Rates]]] = {
    "linear": (lambda part: part, lambda part: part),
    "cosine": (rising_wave, rising_waves),
}
"""The part of the way that is covered after a part of the time, by name: from 0 at 0 to 1 at 1; and of many parts."""

WAYS = (*RISES, "exponential", "poly")
"""The shapes of a `Way`."""


@dataclass(frozen=True)
class Way:
    """From `start` to `finish`, up or down: `start + (finish - start) r(u)` after the part u of the time.

    r is `u` (linear), `(1 - cos(pi u)) / 2` (cosine) or `u^pwr` (poly); exponential is `start (finish / start)^u`. Both
    ends are exact.

    >>> [Way(1.0, 5.0, "poly", 2.0).at(part) for part in (0.0, 0.5, 1.0)], Way(1.0, 0.25, "exponential").at(0.5)
    ([1.0, 2.0, 5.0], 0.5)

    Attributes:
        start: where it begins.
        finish: where it ends.
        shape: one of `WAYS`.
        pwr: the power of `"poly"`; `None` for 2.
    """

    start: float
    finish: float
    shape: str = "linear"
    pwr: float | None = None

    def at(self, part: float) -> float:
        """The learning rate after `part` of the time, 0 to 1."""
        if self.shape == "exponential":
            return self.start * math.pow(self.finish / self.start, part) if part < 1.0 else self.finish
        covered = power(part, self.pwr or 2.0) if self.shape == "poly" else RISES[self.shape][0](part)
        return mix(self.start, self.finish, covered)

    def many(self, part: Rates) -> Rates:
        """`at` of many parts, `(n,)`, with the same bits."""
        if self.shape == "exponential":
            grown = map(math.pow, repeat(self.finish / self.start), part.tolist())
            on_the_way = self.start * np.fromiter(grown, np.float64, part.size)
            return np.where(part < 1.0, on_the_way, self.finish)
        covered = powers(part, self.pwr or 2.0) if self.shape == "poly" else RISES[self.shape][1](part)
        return mix_many(self.start, self.finish, covered)


def check_choice(owner: object, name: str, words: Sequence[str]) -> None:
    """Refuse an attribute that is not one of a few words.

    Raises:
        BoundError: naming the known ones.
    """
    found = getattr(owner, name)
    if not isinstance(found, str) or found not in words:
        raise BoundError(type(owner).__name__, name, found, f"one of {', '.join(words)}")


def check_way(owner: object, shapes: Sequence[str] = WAYS) -> None:
    """Refuse attributes `shape` and `pwr` that make no way.

    Raises:
        BoundError: if the shape is not known, or the power is not above 0 or has no effect.
    """
    check_choice(owner, "shape", shapes)
    pwr = getattr(owner, "pwr", None)
    if pwr is not None and getattr(owner, "shape", None) != "poly":
        raise BoundError(type(owner).__name__, "pwr", pwr, "left out without shape: poly")
    if pwr is not None:
        keep_numbers(owner, POSITIVE, "pwr")


def check_ends(owner: object, start: str, finish: str) -> None:
    """Refuse an exponential way from or to 0, by the names of both attributes.

    Raises:
        BoundError: for the end that is 0.
    """
    if getattr(owner, "shape", None) == "exponential":
        for name in (start, finish):
            if getattr(owner, name) == 0:
                raise BoundError(type(owner).__name__, name, 0.0, "above 0 with shape: exponential")
