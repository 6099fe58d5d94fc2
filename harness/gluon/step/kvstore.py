"""The optimizer on a Gluon kvstore, which holds weights and state of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx

from harness.gluon.step.per_device import create_state, multiply_state
from harness.model.parameters import list_held


class KVStoreStep:
    """A kvstore holds weights and state: it is given the sums of the first device, and gives its weights to all.

    Attributes:
        updaters: the store's one, which holds the state.
    """

    def __init__(self, kind: str, optimizer: Any, parameters: Sequence[Any]) -> None:
        """Create store and state.

        Args:
            kind: `"local"` or `"device"`.
            optimizer: an `mx.optimizer.Optimizer`.
            parameters: with a gradient, in the order of the optimizer's index.
        """
        self._kind = kind
        self._parameters = list(parameters)
        self.updaters = [mx.optimizer.get_updater(optimizer)]
        first = self._parameters[0].list_ctx()[0]
        create_state(self.updaters[0], self._parameters, first, is_settled=False)
        self.weights_changed()

    def step(self, noise_seed: int | None, factor: float = 1.0, fixed: Sequence[int] = ()) -> None:
        """Step with the gradients of the first device; see `PerDeviceStep`."""
        multiply_state(self.updaters, factor, fixed)
        if noise_seed is not None:
            for ctx in {mx.cpu(), *self._parameters[0].list_ctx()}:
                mx.random.seed(noise_seed, ctx=ctx)
        for index, parameter in enumerate(self._parameters):
            if index in fixed:
                continue
            self._store.push(index, parameter.list_grad()[0])
            self._store.pull(index, out=list_held(parameter))

    def weights_changed(self) -> None:
        """Weights have been written to on the devices: a new store takes them, because a store is filled but once."""
        self._store = mx.kv.create(self._kind)
        self._store._set_updater(self.updaters[0])
        for index, parameter in enumerate(self._parameters):
            self._store.init(index, list_held(parameter)[0])
