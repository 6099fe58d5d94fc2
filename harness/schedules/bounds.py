"""The bounds of arguments, in one place: checked when a schedule is built, and when one is read from YAML.

Knows numbers and names, and nothing about what a schedule does with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.named import brief
from harness.parsing import as_number, is_count


class BoundError(ValueError):
    """An argument outside what is allowed.

    Attributes:
        owner: the name of the class that refused it.
        argument: the name of the argument.
        found: its value.
        allowed: what it may be, to follow the words "must be".
    """

    def __init__(self, owner: str, argument: str, found: object, allowed: str) -> None:
        """Keep the parts, for callers that know where the value was written."""
        super().__init__(owner, argument, found, allowed)
        self.owner, self.argument, self.found, self.allowed = owner, argument, found, allowed

    @property
    def reason(self) -> str:
        """The message without the names of class and argument."""
        return f"must be {self.allowed}, found {brief(self.found)}"

    def __str__(self) -> str:
        """The whole message."""
        return f"{self.owner}: {self.argument} {self.reason}"


@dataclass(frozen=True)
class Interval:
    """Finite numbers from `low` to `high`, without the ends that are open."""

    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is finite and inside."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        """In words, to follow "must be"."""
        low = f"{'>' if self.open_low else '>='} {self.low:g}"
        high = "" if math.isinf(self.high) else f" and {'<' if self.open_high else '<='} {self.high:g}"
        return f"a finite number {low}{high}"


SMALLEST, LARGEST = 1.1754943508222875e-38, 3.4028234663852886e38
"""The positive numbers that a float32, the type of parameters and learning rates, holds in full precision."""

BELOW_ONE = 1 - 2**-25
"""From here on numbers below 1 are 1 in float32."""

RATE = Interval()
POSITIVE = Interval(open_low=True)
SHRINK = Interval(high=1.0, open_low=True)
FRACTION = Interval(high=1.0, open_low=True, open_high=True)
NOISE = Interval(0.01, 1.0, open_high=True)


def keep_numbers(owner: object, allowed: Interval, *names: str) -> None:
    """Refuse attributes of a frozen dataclass that are outside `allowed`; keep the others as floats.

    Raises:
        BoundError: for the first attribute that is not a finite number, or is outside.
    """
    for name in names:
        found = getattr(owner, name)
        number = as_number(found)
        if number is None or not allowed.holds(number):
            raise BoundError(type(owner).__name__, name, found, str(allowed))
        object.__setattr__(owner, name, number)


def check_counts(owner: object, least: int, *names: str) -> None:
    """Refuse attributes that are not an int of at least `least`.

    Raises:
        BoundError: for the first such attribute.
    """
    for name in names:
        found = getattr(owner, name)
        if not is_count(found, least):
            raise BoundError(type(owner).__name__, name, found, f"an int >= {least}")


def keep_positions(owner: object, name: str, least_many: int) -> None:
    """Refuse an attribute that is not a list of iterations, each >= 1 and after the one before; keep it as a tuple.

    Raises:
        BoundError: if it is not such a list, or holds fewer than `least_many`.
    """
    found = getattr(owner, name)
    allowed = f"a list of at least {least_many} ints >= 1, each larger than the one before"
    if not isinstance(found, Sequence) or len(found) < least_many or not all(is_count(item) for item in found):
        raise BoundError(type(owner).__name__, name, found, allowed)
    if any(later <= earlier for earlier, later in pairwise(found)):
        raise BoundError(type(owner).__name__, name, found, allowed)
    object.__setattr__(owner, name, tuple(found))


def check_order(owner: object, low: str, high: str) -> None:
    """Refuse two numbers in the wrong order.

    Raises:
        BoundError: if attribute `low` is larger than attribute `high`.
    """
    found, limit = getattr(owner, low), getattr(owner, high)
    if found > limit:
        raise BoundError(type(owner).__name__, low, found, f"at most {high}, which is {limit!r}")
