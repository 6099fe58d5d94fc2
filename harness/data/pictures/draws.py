"""Random numbers of a sample: 64 of 32 bits, a pure function of (seed, epoch, sample), and what is made of them.

Nothing here calls the C library's mathematics, whose last bit depends on its version: powers, sines and normal numbers
are made of additions and multiplications, which IEEE 754 defines to the bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from harness.data.arrays import Indices
from harness.data.augment import Bits, mixed_bits

NUM_WORDS = 32  # of 64 bits, for each sample
_UNIT = 2.0**-32
_LOG_2 = 0.6931471805599453
_TAU = 6.283185307179586
_TERMS = 20  # of a series; for arguments below 1 the next is less than 2**-60


def sample_words(seed: int, epoch: int, indices: Indices) -> Bits:
    """`NUM_WORDS` random words of 64 bits for each sample, `(n, NUM_WORDS)`: SplitMix64 as a counter-based generator.

    Args:
        seed: the run's.
        epoch: from 1.
        indices: of the samples, `(n,)`.
    """
    digest = hashlib.blake2b(f"pictures/{seed}/{epoch}".encode(), digest_size=8).digest()
    counters = indices.astype(np.uint64)[:, None] * np.uint64(NUM_WORDS) + np.arange(NUM_WORDS, dtype=np.uint64)
    return mixed_bits(counters, int.from_bytes(digest, "little"))


class Draws:
    """The random numbers of one sample, each of 32 bits.

    Args:
        words: of the sample, `(NUM_WORDS,)`; number 2 i is the upper half of word i, and 2 i + 1 the lower.
    """

    def __init__(self, words: Bits) -> None:
        """Take them."""
        self._words: Sequence[int] = words.tolist()

    def integer(self, number: int) -> int:
        """Number `number`, of 32 bits."""
        word = self._words[number >> 1]
        return word & 0xFFFFFFFF if number & 1 else word >> 32

    def below(self, number: int, limit: int) -> int:
        """A whole number from 0 to `limit` - 1."""
        return self.integer(number) * limit >> 32

    def uniform(self, number: int, low: float = 0.0, high: float = 1.0) -> float:
        """A number from `low` up to `high`."""
        return low + (high - low) * (self.integer(number) * _UNIT)

    def normal(self, number: int) -> float:
        """A nearly normal number, made of six of the numbers: the sum of twelve uniform ones of 16 bits, less 6.

        Its mean is 0, its variance 1, and it is never beyond 6 (the Irwin-Hall distribution).
        """
        total = 0
        for one in range(number, number + 6):
            both = self.integer(one)
            total += (both >> 16) + (both & 0xFFFF)
        return (total + 6) / 65536.0 - 6.0


def power_of_2(exponent: float) -> float:
    """2 to this power."""
    whole = math.floor(exponent)
    part, term, total = (exponent - whole) * _LOG_2, 1.0, 1.0
    for number in range(1, _TERMS):
        term *= part / number
        total += term
    return math.ldexp(total, whole)


def log_2(value: float) -> float:
    """The logarithm to the base 2, rounded to 40 bits, where C libraries agree."""
    return round(math.log2(value) * 2.0**40) / 2.0**40


def cosine_and_sine(turns: float) -> tuple[float, float]:
    """Of an angle, in turns, from -1/2 to 1/2."""
    angle = turns * _TAU
    term, cosine, sine = 1.0, 1.0, 0.0
    for number in range(1, 2 * _TERMS):
        term *= angle / number
        if number % 2:
            sine += -term if number % 4 == 3 else term
        else:
            cosine += -term if number % 4 == 2 else term
    return cosine, sine
