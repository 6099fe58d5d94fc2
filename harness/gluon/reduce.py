"""The fixed order in which shards are summed, and the control vector that travels with every sum.

Shards are folded in halves: shard s with s + S/2, the results with S/4, and so on. A rank of `np` holds the shards
rank, rank + np, ...; folding its own in the same halves leaves exactly the tree that the ranks go on with between
them, so the bits of a sum depend on S alone and not on how many ranks played the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np


class Control(NamedTuple):
    """What every rank says of an update, summed over shards (float64): the base of every shared decision.

    Attributes:
        loss_sum: sum of the samples' losses.
        num_samples: samples in the global batch.
        num_shards: shards that were not empty.
        save: whether rank 0 asks for a set to be written.
        failure: whether rank 0 could not write one.
        stop: how many ranks were asked to stop.
    """

    loss_sum: float
    num_samples: float
    num_shards: float
    save: float
    failure: float
    stop: float


def visiting_order(count: int) -> list[int]:
    """The order in which a rank plays its `count` shards, such that a binary counter folds them in halves.

    >>> visiting_order(8)
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    if count & (count - 1):
        return list(range(count))  # not a power of two: no tree to keep, but still one fixed order
    order = [0]
    while len(order) < count:
        half = len(order)
        order = [shard for first in order for shard in (first, first + half)]
    return order


class Fold:
    """Sums the arrays of several shards pairwise and in place, like a binary counter; log2(shards) copies are kept.

    For each shard: `make_room()`, overwrite the arrays with the shard's values, `push()`; at the end `finish()`.
    """

    def __init__(self, arrays: Sequence[Any]) -> None:
        """Prepare to fold `mx.nd.NDArray`s that every shard overwrites; their sum ends up in them."""
        self._arrays = arrays
        # the partial sums of 1, 2, 4, ... shards that wait for their other half
        self._digits: list[list[Any] | None] = []
        self._carry = 0  # the digit that the arrays themselves stand for
        self._spare: list[list[Any]] = []

    def make_room(self) -> None:
        """Store the partial sum that the arrays hold, so that the next shard may overwrite them."""
        if not self._digits:
            return
        if not self._spare:
            self._spare.append([mx.nd.empty(array.shape, array.context, array.dtype) for array in self._arrays])
        kept = self._spare.pop()
        for array, target in zip(self._arrays, kept, strict=True):
            array.copyto(target)
        self._digits[self._carry] = kept

    def push(self) -> None:
        """Take in the shard whose values the arrays hold now."""
        digit = 0
        while digit < len(self._digits) and self._digits[digit] is not None:
            self._merge(digit)
            digit += 1
        if digit == len(self._digits):
            self._digits.append(None)
        self._carry = digit

    def finish(self) -> None:
        """Leave the sum of everything pushed in the arrays."""
        for digit in range(len(self._digits)):
            self._merge(digit)
        self._digits.clear()

    def _merge(self, digit: int) -> None:
        other = self._digits[digit]
        if other is None:
            return
        for array, term in zip(self._arrays, other, strict=True):
            mx.nd.elemwise_add(array, term, out=array)
        self._digits[digit] = None
        self._spare.append(other)


class Measured(NamedTuple):
    """What an update has to be judged by, read from the device.

    Attributes:
        control: the summed control vector.
        gradient_norm: Euclidean norm of the gradient's sum over samples.
        statistics_finite: whether all running statistics are finite.
    """

    control: Control
    gradient_norm: float
    statistics_finite: bool


class Gauge:
    """Measures reduced arrays on the device, so that reading the result is the only thing that waits.

    A NaN does not always reach the loss (oneDNN's ReLU turns it into 0), while it stays in weights and running
    statistics for good; so the gradient and the statistics are looked at too. Their dot products with themselves are
    the cheapest pass over them: a hundredth of the time of MXNet's own `multi_all_finite`.
    """

    def __init__(self, gradients: Sequence[Any], statistics: Sequence[Any], control: Any) -> None:
        """Bind the arrays that hold the sums."""
        self._num_gradients = len(gradients)
        self._flat = [array.reshape(-1) for array in (*gradients, *statistics)]  # views
        self._control = control

    def take(self) -> tuple[Any, Any]:
        """Measure what the arrays hold now; returns at once, with device arrays for `read`."""
        return self._control.copy(), mx.nd.concat(*[mx.nd.dot(array, array) for array in self._flat], dim=0)

    def read(self, taken: tuple[Any, Any]) -> Measured:
        """The numbers; waits until they are there."""
        control, squares = taken[0].asnumpy(), taken[1].asnumpy().astype(np.float64)
        gradient, statistics = squares[: self._num_gradients], squares[self._num_gradients :]
        return Measured(Control(*control.tolist()), float(np.sqrt(gradient.sum())), bool(np.isfinite(statistics).all()))
