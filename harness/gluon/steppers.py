"""Where the optimizer lives: beside the weights on every device, or in a Gluon kvstore.

Both step MXNet's own updaters, which are what a `gluon.Trainer` steps. Several devices of a Trainer share one optimizer
object, and what it counts by itself (Nadam's `m_schedule`) then advances once for each device, so that the devices'
weights drift apart; here each has its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mxnet as mx

_TOGETHER = 45  # weights that one kernel takes; MXNet allows 60
_SMALL = 1 << 16  # numbers in a weight that is not worth a call of its own


class OnWorkers:
    """Every device steps its own weights, by the same sums.

    Attributes:
        updaters: one for each device; they hold the slots.
    """

    def __init__(self, optimizer: Any, parameters: Sequence[Any]) -> None:
        """Create the slots at once, so that a state has the same shape before and after the first update.

        Args:
            optimizer: an `mx.optimizer.Optimizer`.
            parameters: with a gradient, in the order of the optimizer's index.
        """
        self._parameters = list(parameters)
        self._contexts = self._parameters[0].list_ctx() if parameters else []
        if _is_sgd(optimizer):
            optimizer.aggregate_num = _TOGETHER
        optimizers = [optimizer, *(copy.deepcopy(optimizer) for _ in self._contexts[1:])]
        self.updaters = [mx.optimizer.get_updater(one) for one in optimizers]
        for updater, ctx in zip(self.updaters, self._contexts, strict=False):
            _prepare(updater, self._parameters, ctx, is_settled=True)
        self._calls = _calls(optimizer, self._parameters)

    def step(self, noise_seed: int | None) -> None:
        """Step with the gradients that every device holds; each draws the same noise, if there is any."""
        for updater, ctx in zip(self.updaters, self._contexts, strict=False):
            if noise_seed is not None:
                mx.random.seed(noise_seed, ctx=ctx)
            for indices in self._calls:
                own = [self._parameters[index] for index in indices]
                updater(indices, [one.grad(ctx) for one in own], [one.data(ctx) for one in own])

    def take_weights(self) -> None:
        """Weights have been written to; nothing here keeps copies of them."""


class OnKVStore:
    """A kvstore holds weights and slots: it is given the sums of the first device, and gives its weights to all.

    Attributes:
        updaters: the store's one, which holds the slots.
    """

    def __init__(self, kind: str, optimizer: Any, parameters: Sequence[Any]) -> None:
        """Create store and slots.

        Args:
            kind: `"local"` or `"device"`.
            optimizer: an `mx.optimizer.Optimizer`.
            parameters: with a gradient, in the order of the optimizer's index.
        """
        self._kind = kind
        self._parameters = list(parameters)
        self.updaters = [mx.optimizer.get_updater(optimizer)]
        first = self._parameters[0].list_ctx()[0]
        _prepare(self.updaters[0], self._parameters, first, is_settled=False)
        self.take_weights()

    def step(self, noise_seed: int | None) -> None:
        """Step with the gradients of the first device."""
        if noise_seed is not None:
            for ctx in {mx.cpu(), *self._parameters[0].list_ctx()}:
                mx.random.seed(noise_seed, ctx=ctx)
        for index, parameter in enumerate(self._parameters):
            self._store.push(index, parameter.list_grad()[0])
            self._store.pull(index, out=parameter.list_data())

    def take_weights(self) -> None:
        """Weights have been written to on the devices: a new store takes them, because a store is filled but once."""
        self._store = mx.kv.create(self._kind)
        self._store._set_updater(self.updaters[0])
        for index, parameter in enumerate(self._parameters):
            self._store.init(index, parameter.list_data()[0])


def _calls(optimizer: Any, parameters: Sequence[Any]) -> list[list[int]]:
    """Which weights go to the optimizer in one call; the bits do not depend on it.

    SGD's kernel runs through all of its weights at once: for small ones that saves calls, of which a network has many,
    and for large ones it takes half as long again, because they push each other out of the cache.
    """
    everything = list(range(len(parameters)))
    if not _is_sgd(optimizer):
        return [everything]
    large = [index for index in everything if parameters[index].data().size > _SMALL]
    small = [index for index in everything if index not in large]
    return [*([index] for index in large), *([small] if small else [])]


def _is_sgd(optimizer: Any) -> bool:
    return type(optimizer).__name__ == "SGD"


def _prepare(updater: Any, parameters: Sequence[Any], ctx: Any, *, is_settled: bool) -> None:
    """Create slots on a device; ones that are not settled move to where their weight is first met."""
    optimizer = updater.optimizer
    optimizer.param_dict = dict(enumerate(parameters))
    optimizer._set_current_context(ctx.device_id)
    for index, parameter in enumerate(parameters):
        updater.states[index] = optimizer.create_state_multi_precision(index, parameter.data(ctx))
        updater.states_synced[index] = is_settled
