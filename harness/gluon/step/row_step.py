"""Steps rows of weights alone, where gradients are rows: embeddings of which a batch touches few.

Rows are taken out of the weight and of the optimizer's state, stepped as if they were a weight of their own, and put
back. That is what MXNet's optimizers call a lazy update, here for every optimizer that steps number by number: rows
without a gradient keep their weight, momentum and moments, and do not decay. The optimizer counts an update as one of
the whole weight, so Adam's bias correction is that of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np

from harness.comm.rows import Rows
from harness.errors import ConfigError
from harness.model.own_optimizer import arrays_in
from harness.model.parameters import held

# changes a gradient in place, of the parameter with this index: (index, gradient, weight)
Decay = Callable[[int, Any, Any], None]


class RowStep:
    """Steps rows on every device.

    Attributes:
        rates: of each updater, by the parameter's index: the learning rate at which each row's momentum was last
            stepped, `(rows,)`, float64, 0 for those that never were; empty where momenta do not follow the rate.
    """

    def __init__(
        self, updaters: Sequence[Any], parameters: Mapping[int, Any], names: Sequence[str], *, corrects_momentum: bool
    ) -> None:
        """Bind updaters and their states, and look whether rows can be taken out of these.

        Args:
            updaters: one for each device, with states.
            parameters: those with rows as gradients, by the optimizer's index.
            names: of these parameters.
            corrects_momentum: whether momentum buffers follow the learning rate.

        Raises:
            ConfigError: for a state that has no row for each of the weight's.
        """
        self._updaters, self._parameters = updaters, parameters
        self._contexts = next(iter(parameters.values())).list_ctx()
        for (index, parameter), name in zip(parameters.items(), names, strict=True):
            num_rows = parameter.shape[0]
            if any(array.shape[0] != num_rows for array in arrays_in(updaters[0].states[index])):
                raise ConfigError(
                    f"network: {name} has sparse_grad, but {type(updaters[0].optimizer).__name__} keeps no row of its "
                    "state for each row of it; use sparse_grad=False"
                )
        self.rates: list[dict[int, Any]] = [
            {
                index: mx.nd.zeros((one.shape[0],), ctx=ctx, dtype="float64")
                for index, one in parameters.items()
                if corrects_momentum
            }
            for ctx in self._contexts
        ]

    def step(
        self, sums: Mapping[int, Rows], lr: float, decay: Decay, *, noise_seed: int | None, moves_weights: bool
    ) -> None:
        """Step; the optimizers have their rate, momentum and scale.

        Args:
            sums: of the gradients, by the parameter's index.
            lr: the learning rate, for momenta that follow it.
            decay: what changes gradients before.
            noise_seed: of the noise, if the optimizer draws any.
            moves_weights: whether weights are changed, or their history alone.
        """
        for updater, rates, ctx in zip(self._updaters, self.rates, self._contexts, strict=True):
            if noise_seed is not None:
                mx.random.seed(noise_seed, ctx=ctx)
            updater.optimizer._set_current_context(ctx.device_id)
            for index, rows in sums.items():
                if not rows.indices.size:
                    updater.optimizer._update_count(index)
                    continue
                weight, state = held(self._parameters[index], ctx), updater.states[index]
                at = mx.nd.array(rows.indices, ctx=ctx, dtype="int64")
                own, own_state = mx.nd.take(weight, at), _taken(state, at)
                gradient = mx.nd.array(rows.values, ctx=ctx).reshape(own.shape)
                if index in rates:
                    self._follow_rate(rates[index], at, own_state, lr)
                decay(index, gradient, own)
                _update(updater, index, own, gradient, own_state)
                if moves_weights:
                    _put(weight, at, own)
                for array, part in zip(arrays_in(state), arrays_in(own_state), strict=True):
                    _put(array, at, part)

    def _follow_rate(self, rates: Any, at: Any, state: Any, lr: float) -> None:
        """Multiply each row's momentum by the rate over that at which it was last stepped."""
        last = mx.nd.take(rates, at).asnumpy()
        factors = np.divide(lr, last, out=np.ones_like(last), where=last != 0).astype(np.float32)
        if (factors != 1).any():
            for array in arrays_in(state):
                array *= mx.nd.array(factors, ctx=array.context).reshape((-1, *[1] * (array.ndim - 1)))
        _put(rates, at, mx.nd.full(at.shape, lr, ctx=rates.context, dtype="float64"))


def _update(updater: Any, index: int, weight: Any, gradient: Any, state: Any) -> None:
    """One update, called as MXNet's updaters do."""
    if updater.aggregate_updates:
        updater.optimizer.update_multi_precision((index,), (weight,), (gradient,), [state])
    else:
        updater.optimizer.update_multi_precision(index, weight, gradient, state)


def _taken(state: Any, at: Any) -> Any:
    """The rows of every array of a state, in its form."""
    if isinstance(state, tuple | list):
        return type(state)(_taken(inner, at) for inner in state)
    return None if state is None else mx.nd.take(state, at)


def _put(array: Any, at: Any, rows: Any) -> None:
    """Overwrite rows of an array, in its own memory."""
    mx.nd._internal._scatter_set_nd(lhs=array, rhs=rows, indices=at.reshape((1, -1)), shape=array.shape, out=array)
