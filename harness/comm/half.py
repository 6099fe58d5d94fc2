"""Numbers in 16 bits (IEEE binary16), as gradients travel with `compression: fp16`; knows neither MPI nor MXNet.

What a shard leaves is rounded once, before it is added to anything; sums are float32; the sum over all shards is
rounded once more. Both happen at the same places of the tree whoever adds, so the bits depend on no number of workers.

Rounding is written as additions and multiplications of float32, which every device does alike, and codes as operations
on integers: NumPy's and MXNet's own conversions go number by number, and take four times as long where many are small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LARGEST = 65504.0  # of 16 bits
_MEAN = 10  # a mean gradient of 1 travels as 2^10, or a little less
_GRID = 0.75  # float32 has a distance of 2^-24 just below it, which is that of the smallest numbers of 16 bits
_SPLIT = 8193.0  # 2^13 + 1: of the 24 bits of float32 leaves 11 (T. J. Dekker, 1971)
_BEYOND = 112  # times 2^112, 65536 is infinite in float32 and what is smaller is not
_ON_HOST, _ON_DEVICE = 1 << 15, 1 << 20  # numbers rounded at a time: as many as the cache holds; few calls

_MAGNITUDE, _SIGN = np.int32(0x7FFFFFFF), np.int32(-(1 << 31))
_EXPONENT_BIAS = np.int32(112 << 10)  # between float32 and 16 bits, as they are stored in 16 bits
_HALF = np.int32(0x3F000000)  # 0.5
# NumPy's minimum of an array and a number takes three times as long as that of two arrays.
_SMALLEST_NORMAL, _INFINITE = (np.full(_ON_HOST, code, np.int32) for code in (1 << 10, 0x7C00))
_ZEROS = np.zeros(_ON_HOST, np.float32)


@dataclass(frozen=True)
class HalfPrecision:
    """Which numbers of an update's sums travel in 16 bits, and how they are scaled.

    Attributes:
        count: how many, from the beginning.
        exponent: they are multiplied by 2 to the power of this before they are rounded, and divided by it afterwards.
    """

    count: int
    exponent: int

    @classmethod
    def of(cls, count: int, num_samples: int) -> HalfPrecision:
        """For sums over a global batch: their mean is multiplied by more than 512, and at most 1024.

        >>> HalfPrecision.of(100, num_samples=256)
        HalfPrecision(count=100, exponent=2)
        """
        return cls(count, _MEAN - (num_samples - 1).bit_length())

    @property
    def largest(self) -> float:
        """The largest sum that can be sent; anything larger becomes infinite.

        >>> HalfPrecision.of(100, num_samples=256).largest / 256
        63.96875
        """
        return LARGEST / 2.0**self.exponent


class HalfRounder:
    """Rounds float32 arrays to what 16 bits can hold, in place; keeps its memory, so that no update allocates."""

    def __init__(self) -> None:
        """Make room when it is first needed."""
        self._room: Any = None
        self._factors: dict[int, list[Any]] = {}

    def __call__(self, array: Any, half: HalfPrecision, host: Array | None = None) -> None:
        """Round the beginning of an array to numbers of 11 bits, and these to multiples of 2^-24, as scaled.

        What is beyond the largest number becomes infinite.

        Args:
            array: one-dimensional, of NumPy, or of MXNet on any device; then this may return before it is done.
            half: how many numbers, and their scale.
            host: the same memory for NumPy, where there is one; then this waits for the array, and does it.
        """
        if host is not None:
            array.wait_to_read()
            array = host
        size = min(_ON_HOST if isinstance(array, np.ndarray) else _ON_DEVICE, half.count)
        if not size:
            return
        if self._room is None or self._room.size < size:
            self._room = array[:size].copy()
        scale, up, down = self._scales(half.exponent)
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(0, half.count, size):
                values = array[begin : min(begin + size, half.count)]
                room = self._room[: values.size]
                values *= scale
                room[:] = values
                room *= _SPLIT
                values -= room
                values += room
                values += _GRID
                values -= _GRID
                values *= up
                values *= down

    def _scales(self, exponent: int) -> list[Any]:
        """Arrays of one number on the device: MXNet's operators do not read every number exactly."""
        if exponent not in self._factors:
            made = []
            for power in (exponent, _BEYOND, -_BEYOND - exponent):
                factor = self._room[:1].copy()
                factor[:] = np.array([2.0**power], np.float32)
                made.append(factor)
            self._factors[exponent] = made
        return self._factors[exponent]


class HalfForm:
    """The form of 16 bits in which rounded numbers travel; no call allocates after the first ones.

    Its integers are those of float32's own layout: a sign, 8 bits of exponent (5 in a code), 23 of fraction (10).
    """

    def __init__(self, exponent: int) -> None:
        """Make room.

        Args:
            exponent: of `HalfPrecision`.
        """
        self._exponent = exponent
        self._round = HalfRounder()
        self._scale, self._back = (np.float32(2.0**power) for power in (exponent, -_BEYOND - exponent))
        self._first, self._second, self._third = (np.empty(_ON_HOST, np.int32) for _ in range(3))
        self._sent, self._received = np.empty(0, np.uint16), np.empty(0, np.uint16)

    def settle(self, values: Array) -> None:
        """Round numbers in place to what can be packed; what is not finite becomes infinite."""
        self._round(values, HalfPrecision(values.size, self._exponent))
        with np.errstate(invalid="ignore"):
            is_finite = np.isfinite(values.sum())
        if not is_finite:  # the others would receive infinity for a NaN, and every rank has to say the same
            values[~np.isfinite(values)] = np.inf

    def packed(self, values: Array) -> Array:
        """The codes of rounded numbers, until the next call; what is not finite becomes infinite."""
        if self._sent.size < values.size:
            self._sent = np.empty(values.size, np.uint16)
        codes = self._sent[: values.size]
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(0, values.size, _ON_HOST):
                part = slice(begin, begin + _ON_HOST)
                self._encode(values[part], codes[part].view(np.int16))
        return codes

    def room(self, values: Array) -> Array:
        """Memory for the codes of as many numbers, until the next call."""
        if self._received.size < values.size:
            self._received = np.empty(values.size, np.uint16)
        return self._received[: values.size]

    def unpack(self, codes: Array, values: Array) -> None:
        """Write the numbers of codes."""
        with np.errstate(over="ignore"):
            for begin in range(0, values.size, _ON_HOST):
                part = slice(begin, begin + _ON_HOST)
                self._decode(codes[part].view(np.int16), values[part])

    def _encode(self, values: Array, codes: Array) -> None:
        code, small, sign = (room[: values.size] for room in (self._first, self._second, self._third))
        magnitude = code.view(np.float32)
        np.multiply(values, self._scale, out=magnitude)
        np.right_shift(code, np.int32(16), out=sign)
        sign &= np.int32(0x8000)
        code &= _MAGNITUDE
        # Below the smallest normal number a code counts multiples of 2^-24, as float32's fraction does from 0.5 on.
        np.add(magnitude, np.float32(0.5), out=small.view(np.float32))
        small -= _HALF
        np.minimum(small, _SMALLEST_NORMAL[: values.size], out=small)
        # From there on it is the beginning of float32's bits with another bias, which is less than `small` before.
        code >>= np.int32(13)
        code -= _EXPONENT_BIAS
        np.maximum(code, small, out=code)
        np.minimum(code, _INFINITE[: values.size], out=code)
        code |= sign
        np.copyto(codes, code, casting="unsafe")

    def _decode(self, codes: Array, values: Array) -> None:
        sign, below = self._first[: values.size], self._second[: values.size].view(np.float32)
        bits = values.view(np.int32)
        np.copyto(sign, codes)  # which extends the sign
        np.bitwise_and(sign, np.int32(0x7FFF), out=bits)
        bits <<= np.int32(13)
        bits += _EXPONENT_BIAS << np.int32(13)
        # This takes codes below the smallest normal number for 2^-15 (1 + f), which should be 2^-14 f.
        np.subtract(values, np.float32(2.0**-14), out=below)
        np.minimum(below, _ZEROS[: values.size], out=below)
        values += below
        sign &= _SIGN
        bits |= sign
        values *= np.float32(2.0**_BEYOND)  # an infinite code stands for 65536 until here
        values *= self._back
