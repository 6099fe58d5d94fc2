"""The optimizer beside the weights: every device steps its own, with MXNet's updaters.

They are what a `gluon.Trainer` steps. Several devices of a Trainer share one optimizer object, and what it counts by
itself (Nadam's `m_schedule`) then advances once for each device, so that the devices' weights drift apart; here each
has its own. The functions on the state of updaters serve the other places where an optimizer runs as well.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mxnet as mx

from harness.model.parameters import held, list_held

_TOGETHER = 45  # weights that one kernel takes; MXNet allows 60
_SMALL = 1 << 16  # numbers in a weight that is not worth a call of its own


class PerDeviceStep:
    """Every device steps its own weights, by the same sums.

    Attributes:
        updaters: one for each device; they hold the state.
    """

    def __init__(self, optimizer: Any, parameters: Sequence[Any]) -> None:
        """Create the state at once, so that it has the same shape before and after the first update.

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
            create_state(updater, self._parameters, ctx, is_settled=True)
        self._calls = _calls(optimizer, self._parameters)

    def step(self, noise_seed: int | None, factor: float = 1.0, fixed: Sequence[int] = ()) -> None:
        """Step with the gradients that every device holds; each draws the same noise, if there is any.

        Args:
            noise_seed: of the noise.
            factor: by which the state is multiplied before.
            fixed: weights that have no update, by index.
        """
        multiply_state(self.updaters, factor, fixed)
        for updater, ctx in zip(self.updaters, self._contexts, strict=False):
            if noise_seed is not None:
                mx.random.seed(noise_seed, ctx=ctx)
            for call in self._calls:
                indices = [index for index in call if index not in fixed] if fixed else call
                if not indices:
                    continue
                own = [self._parameters[index] for index in indices]
                updater(indices, [one.grad(ctx) for one in own], [held(one, ctx) for one in own])

    def weights_changed(self) -> None:
        """Weights have been written to; nothing here keeps copies of them."""


def _calls(optimizer: Any, parameters: Sequence[Any]) -> list[list[int]]:
    """Which weights go to the optimizer in one call; the bits do not depend on it.

    SGD's kernel runs through all of its weights at once: for small ones that saves calls, of which a network has many,
    and for large ones it takes half as long again, because they push each other out of the cache.
    """
    everything = list(range(len(parameters)))
    if not _is_sgd(optimizer):
        return [everything]
    large = [index for index in everything if list_held(parameters[index])[0].size > _SMALL]
    small = [index for index in everything if index not in large]
    return [*([index] for index in large), *([small] if small else [])]


def create_state(updater: Any, parameters: Sequence[Any], ctx: Any, *, is_settled: bool) -> None:
    """Create an optimizer's state on a device; a state that is not settled moves to where its weight is first met."""
    optimizer = updater.optimizer
    optimizer.param_dict = dict(enumerate(parameters))
    optimizer._set_current_context(ctx.device_id)
    for index, parameter in enumerate(parameters):
        updater.states[index] = optimizer.create_state_multi_precision(index, held(parameter, ctx))
        updater.states_synced[index] = is_settled


def multiply_state(updaters: Sequence[Any], factor: float, fixed: Sequence[int]) -> None:
    """Multiply every array of the state but those of fixed weights; a factor of 1 costs nothing."""
    if factor != 1:
        for updater in updaters:
            for index, array in updater.states.items():
                if index not in fixed:
                    array *= factor


def _is_sgd(optimizer: Any) -> bool:
    """Whether its kernel takes several weights at a time: MXNet's SGD, and those derived from it."""
    return isinstance(optimizer, mx.optimizer.SGD)
