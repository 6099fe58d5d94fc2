"""Where an update's sums lie, in which order shards are added to them, and what they are judged by.

All gradients lie in one piece of memory, and so do all running statistics behind them: one addition, one message and
one measurement instead of one for each parameter.

Shards are folded in halves: shard s with s + S/2, the results with S/4, and so on. A rank of `np` holds the shards
rank, rank + np, ...; folding its own in the same halves leaves exactly the tree that the ranks go on with between
them, so the bits of a sum depend on S alone and not on how many ranks played the shards.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
import numpy.typing as npt

_PIECE = 1 << 20  # numbers that one dot product adds up in float32 before float64 takes over


class Control(NamedTuple):
    """What every rank says of an update, summed over shards (float64): the base of every shared decision.

    Attributes:
        loss_sum: sum of the samples' losses; in a world of one `(1,)` on the device, where nobody need wait for it.
        num_samples: samples in the global batch.
        num_shards: shards that were not empty.
        save: whether rank 0 asks for a set to be written.
        failure: whether rank 0 could not write one.
        stop: how many ranks were asked to stop.
    """

    loss_sum: Any
    num_samples: float
    num_shards: float
    save: float
    failure: float
    stop: float


class Buffer:
    """A one-dimensional array on a device, and the same memory seen from the host where the device is the CPU.

    Whoever looks at `host` has waited for `array` before; MXNet is not told of what is written there.
    """

    def __init__(self, size: int, ctx: Any, dtype: type[np.generic]) -> None:
        """Zeros."""
        self.array = mx.nd.zeros((size,), ctx=ctx, dtype=dtype)
        self.array.wait_to_read()
        self.host = _seen_from_host(self.array) if ctx.device_type == "cpu" else None

    def write(self, values: Sequence[float]) -> None:
        """Fill a small buffer that nothing pending uses."""
        if self.host is None:
            self.array[:] = mx.nd.array(values, ctx=self.array.context, dtype=self.array.dtype)
        else:
            self.host[:] = values

    def read(self) -> list[float]:
        """What a small buffer holds; waits for it."""
        if self.host is None:
            return list(self.array.asnumpy().tolist())
        self.array.wait_to_read()
        return list(self.host.tolist())


class Sums:
    """Memory for the gradients and the running statistics of a network, of which parameters see their parts.

    Attributes:
        buffer: all of it.
        gradients: the part with the gradients.
        statistics: the part with the running statistics; `None` where there are none.
    """

    def __init__(self, trainable: Mapping[str, Any], statistics: Sequence[Any], ctx: Any) -> None:
        """Move gradients and statistics into one buffer.

        Args:
            trainable: parameters with a gradient, by structural name.
            statistics: parameters that a training forward changes.
            ctx: their device.
        """
        sizes = [int(np.prod(parameter.shape)) for parameter in (*trainable.values(), *statistics)]
        self.buffer = Buffer(sum(sizes), ctx, np.float32)
        ends = np.cumsum(sizes).tolist()
        parts = [self.buffer.array[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        self._trainable = trainable
        self._views = []
        for parameter, part in zip(trainable.values(), parts, strict=False):
            view = part.reshape(parameter.shape)
            parameter._grad = [view]
            mx.autograd.mark_variables([parameter.data(ctx)], [view], parameter.grad_req)
            self._views.append(view)
        for parameter, part in zip(statistics, parts[len(trainable) :], strict=True):
            view = part.reshape(parameter.shape)
            parameter.data(ctx).copyto(view)
            parameter._data = [view]
        size = sum(sizes[: len(trainable)])
        self.gradients = self.buffer.array[:size]
        self.statistics = self.buffer.array[size:] if statistics else None

    def strangers(self) -> list[str]:
        """The parameters whose gradient is no longer the part of the buffer that they were given."""
        pairs = zip(self._trainable.items(), self._views, strict=True)
        return [name for (name, parameter), view in pairs if parameter._grad[0] is not view]


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
    """Measures sums on the device, so that reading the result is the only thing that waits.

    A NaN does not always reach the loss (oneDNN's ReLU turns it into 0), while it stays in weights and running
    statistics for good; so the gradient and the statistics are looked at too. Their dot products with themselves are
    the cheapest pass over them: a hundredth of the time of MXNet's own `multi_all_finite`.
    """

    def __init__(self, sums: Sums) -> None:
        """Bind the memory that holds the sums."""
        pieces = [sums.gradients[i : i + _PIECE] for i in range(0, sums.gradients.size, _PIECE)]
        self._num_gradients = len(pieces)
        self._pieces = pieces if sums.statistics is None else [*pieces, sums.statistics]

    def take(self) -> Any:
        """Measure what the memory holds now; returns at once, with a device array for `read`."""
        return mx.nd.concat(*[mx.nd.dot(piece, piece) for piece in self._pieces], dim=0)

    def read(self, taken: Any) -> tuple[float, bool]:
        """The gradient's Euclidean norm, and whether all running statistics are finite; waits until they are there."""
        squares = taken.asnumpy().astype(np.float64)
        gradients, statistics = squares[: self._num_gradients], squares[self._num_gradients :]
        return float(np.sqrt(gradients.sum())), bool(np.isfinite(statistics).all())


def _seen_from_host(array: Any) -> npt.NDArray[Any]:
    """The memory of an array on the CPU, which must not be laid out anew: one dimension is not."""
    address = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    dtype = np.dtype(array.dtype)
    if not array.size:
        return np.empty(0, dtype)
    memory = (ctypes.c_char * (array.size * dtype.itemsize)).from_address(address.value or 0)
    return np.frombuffer(memory, dtype)
