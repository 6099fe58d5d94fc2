"""Losses that are numerators and weights: their sums, of which the weights' is exact.

An update of a weighted loss is the sum of the gradients of the numerators over the sum of the weights, of all shards of
all ranks. A sum of weights travels in float32 with the gradients, as digits to the base 4096: whole numbers, of which
4096 can be added up exactly, in any order. So it is the same on any number of workers, beyond 2^24 as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mxnet as mx

from harness.data import described_shapes
from harness.errors import ConfigError

MOST_SHARDS = 4096
_BITS = 12
_LOWEST = -60  # the last digit counts multiples of 2^-60
_NUM_DIGITS = 9  # the first one, of multiples of 2^36, may exceed the base
NUM_VALUES = _NUM_DIGITS + 1  # digits, and how many shards have a weight below 0
NOTHING = (0.0,) * NUM_VALUES
_SCALES = [2.0 ** -(_LOWEST + _BITS * place) for place in reversed(range(_NUM_DIGITS))]


class Weighing:
    """What a shard's numerators and weights add up to, computed on their device by one call that waits for nothing."""

    def __init__(self, ctx: Any) -> None:
        """Prepare for arrays of any shape on a device."""
        weights, scales, bases = (mx.sym.var(name) for name in ("weights", "scales", "bases"))
        exact = mx.sym.cast(weights, "float64")
        scaled = mx.sym.floor(mx.sym.broadcast_mul(mx.sym.sum(exact), scales))
        digits = scaled - mx.sym.broadcast_mul(mx.sym.floor(scaled / float(1 << _BITS)), bases)
        is_below = mx.sym.sum(exact < 0) > 0
        self._call = mx.nd.CachedOp(mx.sym.cast(mx.sym.concat(digits, is_below, dim=0), "float32"))
        bases_of = [0.0] + [float(1 << _BITS)] * (_NUM_DIGITS - 1)  # the first digit is not cut
        self._constants = [mx.nd.array(one, ctx=ctx, dtype="float64") for one in (_SCALES, bases_of)]

    def __call__(self, weights: Any) -> Any:
        """The digits of the sum of weights, and whether one is below 0: `(NUM_VALUES,)`, float32."""
        return self._call(weights, *self._constants)


def weight_of(values: Sequence[float]) -> float:
    """The sum of weights that digits stand for, those of one shard or of several added up; NaN if one was not finite.

    >>> weight_of([0, 0, 0, 1, 0, 0, 0, 0, 0])
    1.0
    """
    if not all(map(math.isfinite, values)):
        return math.nan
    total = 0
    for digit in values:
        total = (total << _BITS) + int(digit)
    return total * 2.0**_LOWEST if abs(total) < 1 << 1000 else math.inf


def check_told(losses: Any) -> Any:
    """What a loss gives that is told totals.

    Raises:
        ConfigError: unless it is an array.
    """
    if not isinstance(losses, mx.nd.NDArray):
        raise ConfigError(
            f"network.loss: gave {described_shapes(losses)}; a loss that has weights(label) divides by the totals "
            "itself, and gives one array of any shape, whose sum over all shards is the loss"
        )
    return losses


def check_weighted(losses: Any) -> tuple[Any, Any]:
    """Numerators and weights of a loss.

    Raises:
        ConfigError: unless they are two arrays of one shape.
    """
    arrays = losses if isinstance(losses, tuple | list) else (losses,)
    if len(arrays) != 2 or len({getattr(one, "shape", None) for one in arrays}) > 1:
        raise ConfigError(
            f"network.loss: gave {described_shapes(losses)}; give (numerators, weights), two arrays of one shape, or "
            "one value a sample, (n,), and the same of both at every call"
        )
    return arrays[0], arrays[1]
