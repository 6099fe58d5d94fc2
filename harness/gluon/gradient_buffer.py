"""Where the sums of an update lie, and how a worker folds its shards into them.

All gradients lie in one piece of memory, and so do all running statistics behind them: one addition, one message and
one measurement instead of one for each parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError
from harness.model.host_memory import in_host_memory
from harness.model.parameters import held

_ALIGNED = 16  # numbers; every part begins on a cache line, and what lies between parts stays 0


class Buffer:
    """A one-dimensional array on a device, and the same memory seen from the host where the device is `cpu(0)`.

    Whoever looks at `host` has waited for `array` before; MXNet is not told of what is written there.
    """

    def __init__(self, size: int, ctx: Any = None) -> None:
        """Zeros, float32; on the CPU by default."""
        ctx = ctx or mx.cpu()
        self.host: npt.NDArray[Any] | None = None
        if ctx == mx.cpu():
            self.host = _aligned_zeros(size)
            self.array = in_host_memory(self.host[:])
        else:
            self.array = mx.nd.zeros((size,), ctx=ctx)

    def like(self, size: int) -> Buffer:
        """More memory on the same device, for `size` numbers."""
        return Buffer(size, self.array.context)


class GradientBuffer:
    """Memory for the gradients and the running statistics of a network, of which parameters see their parts.

    Behind them lie the control values of an update, which are summed with them.

    Attributes:
        memory: all of it.
        gradients: the part with the gradients.
        statistics: the part with the running statistics; `None` where there are none.
        control: the part with the control values.
    """

    def __init__(
        self,
        trainable: Mapping[str, Any],
        statistics: Sequence[Any],
        ctx: Any,
        num_control: int = 1,
        has_own_arrays: bool = False,
    ) -> None:
        """Move gradients and statistics into one buffer.

        Args:
            trainable: parameters with a dense gradient, by structural name.
            statistics: parameters that a training forward changes.
            ctx: their device.
            num_control: how many control values there are.
            has_own_arrays: whether a backward writes gradients to arrays of their own, from which `gather` takes them:
                oneDNN's backward of a deconvolution ends the process where its gradient is a part of a larger array.
        """
        sizes = [held(parameter, ctx).size for parameter in (*trainable.values(), *statistics)]
        # MXNet has no arrays without elements: where no gradient is dense, there is one of zeros
        sizes = sizes if trainable else [_ALIGNED, *sizes]
        begins = np.cumsum([0, *(-(-size // _ALIGNED) * _ALIGNED for size in sizes)]).tolist()
        self.memory = Buffer(begins[-1] + num_control, ctx)
        parts = [self.memory.array[begin : begin + size] for begin, size in zip(begins, sizes, strict=False)]
        self._trainable = trainable
        self._ctx = ctx
        self._views = []
        self._written: list[Any] = []  # what a backward writes to
        self._statistics: list[tuple[Any, Any]] = []  # parameters and their parts
        for parameter, part in zip(trainable.values(), parts, strict=False):
            view = part.reshape(held(parameter, ctx).shape)
            parameter._grad[parameter.list_ctx().index(ctx)] = view
            written = mx.nd.zeros(view.shape, ctx=ctx) if has_own_arrays else view
            mx.autograd.mark_variables([held(parameter, ctx)], [written], parameter.grad_req)
            self._views.append(view)
            self._written.append(written)
        num_gradients = len(trainable) or 1
        for parameter, part in zip(statistics, parts[num_gradients:], strict=True):
            view = part.reshape(held(parameter, ctx).shape)
            held(parameter, ctx).copyto(view)
            parameter._data[parameter.list_ctx().index(ctx)] = view
            self._statistics.append((parameter, view))
        end = begins[num_gradients]
        self.gradients = self.memory.array[:end]
        self.statistics = self.memory.array[end : begins[-1]] if statistics else None
        self.control = self.memory.array[begins[-1] :]

    def take_back(self, others: Sequence[Any]) -> None:
        """Let parameters see their parts of this buffer again, after another learner has had them.

        Args:
            others: parameters of the network that are not trained.
        """
        ctx = self._ctx
        for parameter, view, written in zip(self._trainable.values(), self._views, self._written, strict=True):
            parameter._grad[parameter.list_ctx().index(ctx)] = view
            mx.autograd.mark_variables([held(parameter, ctx)], [written], parameter.grad_req)
        for parameter, view in self._statistics:
            if held(parameter, ctx) is not view:
                held(parameter, ctx).copyto(view)
                parameter._data[parameter.list_ctx().index(ctx)] = view
        leave_out(others, ctx)

    def write_control(self, values: Sequence[float]) -> None:
        """Write control values, while nothing pending uses them, or writes to the buffer but for a shard's forward."""
        if self.memory.host is None:
            self.control[:] = mx.nd.array(values, ctx=self.control.context)
        else:
            self.memory.host[-len(values) :] = values

    def gather(self) -> None:
        """Take gradients that a backward has written to arrays of their own into their parts of the buffer."""
        for written, view in zip(self._written, self._views, strict=True):
            if written is not view:
                written.copyto(view)

    def clear(self) -> None:
        """Zero everything but the control values after the first, which is the loss."""
        self.memory.array[: self.memory.array.size - self.control.size + 1] = 0

    def lay_out_weights(self) -> None:
        """Put weights back into plain layout, which a forward in predict mode has changed for itself (oneDNN).

        Training would turn them round in every forward, and update a copy of each: a tenth of the time of ResNet-18.
        """
        for parameter, gradient in zip(self._trainable.values(), self._written, strict=True):
            laid_out = held(parameter, self._ctx)
            if laid_out.context.device_type != "cpu" or laid_out.ndim < 2:
                continue
            plain = mx.nd.empty(laid_out.shape, ctx=laid_out.context, dtype=laid_out.dtype)
            laid_out.copyto(plain)
            parameter._data[parameter.list_ctx().index(self._ctx)] = plain
            mx.autograd.mark_variables([plain], [gradient], parameter.grad_req)

    def refuse_rebound_gradients(self) -> None:
        """Notice gradients that no longer go into the sums.

        Raises:
            ConfigError: naming their parameters.
        """
        rebound = self.rebound_gradients()
        if rebound:
            raise ConfigError(
                f"network: the gradient of {', '.join(rebound)} was replaced (a change of grad_req, cast or reset_ctx) "
                "after the learner was built; do that before"
            )

    def rebound_gradients(self) -> list[str]:
        """The parameters whose gradient is no longer the part of the buffer that they were given."""
        pairs = zip(self._trainable.items(), self._views, strict=True)
        return [name for (name, parameter), view in pairs if parameter.grad(self._ctx) is not view]


class Fold:
    """Sums what several shards leave in one buffer, in the order of `harness.comm.tree`.

    In an update: `begin()`; for each shard `make_room()`, overwrite the buffer with the shard's values, `push()`. Then
    `parts` are the partial sums. Copies are kept, so that no update allocates: log2(shards) of them at most.
    """

    def __init__(self, memory: Buffer, merges: Sequence[int]) -> None:
        """Prepare to fold.

        Args:
            memory: what every shard overwrites.
            merges: for each shard, to how many waiting partial sums it is added: `Assignment.merges` of this worker.
        """
        self._memory = memory
        self._merges = merges
        self._waiting: list[Buffer] = []  # partial sums, the newest last
        self._spare: list[Buffer] = []  # memory for more of them
        self._position = 0  # of the next shard

    @property
    def parts(self) -> list[Buffer]:
        """The partial sums in the order in which they were completed; the last one is the buffer itself."""
        return [*self._waiting, self._memory]

    def begin(self) -> None:
        """Start over; what waits is not needed any more."""
        self._spare += self._waiting
        self._waiting.clear()
        self._position = 0

    def make_room(self) -> None:
        """Store the partial sum that the buffer holds, so that the next shard may overwrite it."""
        if self._position:
            array = self._memory.array
            copy = self._spare.pop() if self._spare else self._memory.like(array.size)
            array.copyto(copy.array)
            self._waiting.append(copy)

    def push(self) -> None:
        """Take in the shard whose values the buffer holds now."""
        for _ in range(self._merges[self._position]):
            partial_sum = self._waiting.pop()
            mx.nd.elemwise_add(self._memory.array, partial_sum.array, out=self._memory.array)
            self._spare.append(partial_sum)
        self._position += 1


def take_in(parameters: Sequence[Any], ctx: Any) -> None:
    """Let a backward compute gradients of parameters that another learner may have left out."""
    for parameter in parameters:
        if hasattr(parameter, "_harness_owner"):
            mx.autograd.mark_variables([held(parameter, ctx)], [parameter.grad(ctx)], parameter.grad_req)
            parameter._harness_owner = None  # who had it takes it back


def leave_out(parameters: Sequence[Any], ctx: Any) -> None:
    """Let no backward compute a gradient of parameters, though they have one for another learner."""
    for parameter in parameters:
        parameter._harness_owner = None
    arrays = [held(parameter, ctx) for parameter in parameters if parameter.grad_req != "null"]
    if arrays:  # arrays for gradients are asked for, and never written to
        mx.autograd.mark_variables(arrays, [array.detach() for array in arrays], "null")


def _aligned_zeros(size: int) -> npt.NDArray[Any]:
    """Memory from NumPy, which asks Linux for huge pages: ranks send it to each other in half the time of MXNet's."""
    memory = np.empty(size + _ALIGNED, np.float32)
    begin = -memory.ctypes.data % (_ALIGNED * memory.itemsize) // memory.itemsize
    aligned = memory[begin : begin + size]
    aligned.fill(0)
    return aligned
