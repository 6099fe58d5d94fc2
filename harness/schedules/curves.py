"""Cosine and power, of one number and of many, with the same bits.

The cosine, and powers that are whole numbers, are made of additions and multiplications alone, so that any processor
and any C library give the same bits; `math.cos` and NumPy's cosine differ in the last bits. Other powers are the C
library's.
"""

from __future__ import annotations

import math
from itertools import repeat
from typing import TypeVar

import numpy as np

from harness.schedules.base import Rates

Numbers = TypeVar("Numbers", float, Rates)
# of sin(pi u / 2)^2 = (1 - cos(pi u)) / 2 as a series in u^2, largest power first; 1e-19 is left out at u = 1/2
_SINE_SQUARED = [(-1) ** (k + 1) * math.pi ** (2 * k) / (2 * math.factorial(2 * k)) for k in range(12, 0, -1)]
_MOST_FACTORS = 8  # up to here a power is multiplied out


def _sine_squared(u: Numbers) -> Numbers:
    """`sin(pi u / 2)^2` for `0 <= u <= 1/2`."""
    square = u * u
    total: Numbers = square * _SINE_SQUARED[0]
    for coefficient in _SINE_SQUARED[1:]:
        total = square * (total + coefficient)
    return total


def half_wave(part: float) -> float:
    """`(1 + cos(pi part)) / 2` for `0 <= part <= 1`."""
    return 1.0 - _sine_squared(part) if part <= 0.5 else _sine_squared(1.0 - part)


def half_waves(part: Rates) -> Rates:
    """`half_wave` of many."""
    early = part <= 0.5
    height = _sine_squared(np.where(early, part, 1.0 - part))
    return np.where(early, 1.0 - height, height)


def rising_wave(part: float) -> float:
    """`(1 - cos(pi part)) / 2` for `0 <= part <= 1`."""
    return _sine_squared(part) if part <= 0.5 else 1.0 - _sine_squared(1.0 - part)


def rising_waves(part: Rates) -> Rates:
    """`rising_wave` of many."""
    early = part <= 0.5
    height = _sine_squared(np.where(early, part, 1.0 - part))
    return np.where(early, height, 1.0 - height)


def peak_of(length: int, fraction: float) -> float:
    """Where a cycle turns: `length fraction`, as a whole number where it is one up to rounding.

    >>> 100 * 0.07, peak_of(100, 0.07)
    (7.000000000000001, 7.0)
    """
    peak = length * fraction
    whole = round(peak)
    return float(whole) if 0 < whole < length and math.isclose(peak, whole, rel_tol=1e-15) else peak


def power(base: float, exponent: float) -> float:
    """`base^exponent` for `0 <= base <= 1`."""
    return _multiplied(base, int(exponent)) if _is_count(exponent) else math.pow(base, exponent)


def powers(base: Rates, exponent: float) -> Rates:
    """`power` of many."""
    if _is_count(exponent):
        return _multiplied(base, int(exponent))
    return np.fromiter(map(math.pow, base.tolist(), repeat(exponent)), np.float64, base.size)


def _is_count(exponent: float) -> bool:
    return exponent <= _MOST_FACTORS and float(exponent).is_integer()


def _multiplied(base: Numbers, times: int) -> Numbers:
    product = base
    for _ in range(times - 1):
        product = product * base
    return product
