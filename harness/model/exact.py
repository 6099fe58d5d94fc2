"""Sums of floats without rounding, as whole numbers that can be added in any order.

A sum of float64 numbers is a whole multiple of 2**-1126. Its digits to the base 2**32 are a vector of whole numbers,
of which up to 2**21 can be added, digit by digit, before one exceeds 2**53. So what is added up this way does not
depend on how samples were divided into batches, or batches among ranks.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

_UNIT = 1126  # the smallest float64 is 2**-1074, and a mantissa is a whole number of 53 bits
NUM_DIGITS = 70  # of 32 bits: 2**1024 in units of 2**-1126, summed over 2**64 numbers
_PART = 1 << 20  # so many numbers of 32 bits add up to less than 2**53

Array = npt.NDArray[Any]


def exact_sum(values: Array) -> Array:
    """The digits `(NUM_DIGITS,)` of the exact sum of numbers, as float64; `exact_total` reads them.

    >>> ones = exact_sum(np.array([1e20, 1.0, -1e20]))
    >>> float(exact_total(ones + ones))
    2.0

    Args:
        values: of any shape; float64 holds each exactly.

    Raises:
        ValueError: if one is not finite.
    """
    numbers = np.asarray(values, np.float64).reshape(-1)
    if not np.isfinite(numbers).all():
        raise ValueError("found a number that is not finite")
    total = 0
    for start in range(0, numbers.size, _PART):
        fractions, exponents = np.frexp(numbers[start : start + _PART])
        mantissas = np.ldexp(fractions, 53).astype(np.int64)
        places = exponents + (_UNIT - 53)
        low = np.bincount(places, weights=mantissas & 0xFFFFFFFF)
        high = np.bincount(places, weights=mantissas >> 32)
        for place in np.flatnonzero((low != 0) | (high != 0)).tolist():
            total += (int(low[place]) + (int(high[place]) << 32)) << place
    digits = np.frombuffer(abs(total).to_bytes(4 * NUM_DIGITS, "little"), "<u4").astype(np.float64)
    return -digits if total < 0 else digits


def exact_products(one: Array, other: Array) -> Array:
    """Numbers that add up to the products of two arrays without rounding, each product as two of them.

    T. J. Dekker, A Floating-Point Technique for Extending the Available Precision, Numerische Mathematik 18 (1971).

    Args:
        one: float64, `(n,)`.
        other: float64, `(n,)`.

    Returns:
        `(2 n,)`, exact where no product exceeds 1e300 or, unless it is 0, falls below 1e-290.
    """
    product = one * other
    (a, b), (c, d) = _halves(one), _halves(other)
    return np.concatenate([product, ((a * c - product) + a * d + b * c) + b * d])


def _halves(values: Array) -> tuple[Array, Array]:
    """Two numbers of at most 26 bits each that add up to each value."""
    scaled = values * (2.0**27 + 1)
    high = scaled - (scaled - values)
    return high, values - high


def exact_total(digits: Array) -> Fraction:
    """The exact sum that digits stand for, those of one `exact_sum` or of several added up."""
    total = sum(int(digit) << (32 * place) for place, digit in enumerate(digits.tolist()))
    return Fraction(total, 1 << _UNIT)


def root_ratio(numerator: Fraction | int, one: Fraction | int, other: Fraction | int) -> float:
    """`numerator / sqrt(one * other)`, rounded at the end alone; 0 if a factor is 0.

    >>> root_ratio(-1, 2, 2), root_ratio(5, 0, 1)
    (-0.5, 0.0)
    """
    if one == 0 or other == 0:
        return 0.0
    root = math.sqrt(Fraction(numerator * numerator) / (one * other))
    return -root if numerator < 0 else root
