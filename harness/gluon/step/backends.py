"""Where the optimizer lives: beside the weights on every device, on the host, or in a Gluon kvstore.

Devices and stores step MXNet's own updaters, which are what a `gluon.Trainer` steps; the host has their bits. Several
devices of a Trainer share one optimizer object, and what it counts by itself (Nadam's `m_schedule`) then advances once
for each device, so that the devices' weights drift apart; here each has its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mxnet as mx
import numpy as np

from harness.comm.launcher import Launch, count_threads
from harness.errors import ConfigError
from harness.gluon.step.memory import Floats, as_operators_read, memory_of, tell_written
from harness.model.parameters import held, list_held

_BLOCK = 1 << 15  # numbers that the host steps at a time, so that every pass finds them in the cache
_MANY = 1 << 21  # weights for which an update is worth waiting for
_MAX_THREADS = 2  # from three on MXNet's kernel is as fast
_TOGETHER = 45  # weights that one kernel takes; MXNet allows 60
_SMALL = 1 << 16  # numbers in a weight that is not worth a call of its own


class PerDeviceStep:
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

    def step(self, noise_seed: int | None, factor: float = 1.0, fixed: Sequence[int] = ()) -> None:
        """Step with the gradients that every device holds; each draws the same noise, if there is any.

        Args:
            noise_seed: of the noise.
            factor: by which the slots are multiplied before.
            fixed: weights that have no update, by index.
        """
        _multiply_slots(self.updaters, factor)
        for updater, ctx in zip(self.updaters, self._contexts, strict=False):
            if noise_seed is not None:
                mx.random.seed(noise_seed, ctx=ctx)
            for call in self._calls:
                indices = [index for index in call if index not in fixed] if fixed else call
                if not indices:
                    continue
                own = [self._parameters[index] for index in indices]
                updater(indices, [one.grad(ctx) for one in own], [held(one, ctx) for one in own])

    def take_weights(self) -> None:
        """Weights have been written to; nothing here keeps copies of them."""


class NumpyStep:
    """SGD on the CPU where every update is waited for: by NumPy, in the memory of weights, slots and gradients.

    MXNet's own kernel is not vectorised, and wakes the engine's threads: a twentieth of an iteration of LeNet, an
    eighth of one of ResNet-18. The bits are the same. No other thread may run the network meanwhile.

    Attributes:
        updaters: one, which holds the slots.
    """

    def __init__(self, optimizer: Any, parameters: Sequence[Any]) -> None:
        """Create the slots.

        Args:
            optimizer: an `mx.optimizer.SGD`.
            parameters: with a gradient, in the order of the optimizer's index; float32, on `cpu(0)`.
        """
        self._parameters = list(parameters)
        self._optimizer = optimizer
        self.updaters = [mx.optimizer.get_updater(optimizer)]
        _prepare(self.updaters[0], self._parameters, mx.cpu(), is_settled=True)
        self._room = np.empty((2, _BLOCK), np.float32)

    @staticmethod
    def pays(optimizer: Any, parameters: Sequence[Any], is_waited_for: bool) -> bool:
        """Whether it can take an optimizer's place, and is sooner done than MXNet with its threads.

        Args:
            optimizer: an `mx.optimizer.Optimizer`.
            parameters: with a gradient.
            is_waited_for: whether every update is waited for anyway. Elsewhere Python runs ahead of an update, and what
                that saves must be less than what this does.
        """
        is_possible = type(optimizer) is mx.optimizer.SGD and all(one.list_ctx() == [mx.cpu()] for one in parameters)
        many = sum(list_held(parameter)[0].size for parameter in parameters) >= _MANY
        return is_possible and count_threads("auto", Launch()) <= _MAX_THREADS and (is_waited_for or many)

    def step(self, noise_seed: int | None, factor: float = 1.0, fixed: Sequence[int] = ()) -> None:
        """Step, once all pending work is done; SGD has no noise, and a weight whose rate is 0 stays by itself.

        Raises:
            ConfigError: if a learning rate or a weight decay is not finite in float32.
        """
        optimizer, indices = self._optimizer, list(range(len(self._parameters)))
        weights = [held(parameter) for parameter in self._parameters]
        slots = [self.updaters[0].states[index] for index in indices]
        optimizer._update_count(indices)
        rates = np.array(optimizer._get_lrs(indices), np.float32)
        decays = np.array(optimizer._get_wds(indices), np.float32)
        if not (np.isfinite(rates).all() and np.isfinite(decays).all()):
            raise ConfigError(
                f"learning rate {optimizer.learning_rate} or wd {optimizer.wd}: must be finite in float32"
            )
        mx.nd.waitall()
        with np.errstate(all="ignore"):  # what is not finite is the learner's to find
            for index in indices:
                slot = None if slots[index] is None else memory_of(slots[index])
                gradient = memory_of(self._parameters[index].grad())
                self._step_one(
                    memory_of(weights[index]), gradient, slot, rates[index], decays[index], np.float32(factor)
                )
        tell_written([*weights, *(slot for slot in slots if slot is not None)])

    def _step_one(
        self,
        weights: Floats,
        gradients: Floats,
        slots: Floats | None,
        lr: np.float32,
        wd: np.float32,
        factor: np.float32,
    ) -> None:
        """`m = momentum m - lr wd w - lr rescale g; w = w + m`, rounded where MXNet rounds."""
        optimizer = self._optimizer
        rescale, momentum = as_operators_read(optimizer.rescale_grad), as_operators_read(optimizer.momentum)
        bound = as_operators_read(optimizer.clip_gradient or -1.0)
        for begin in range(0, weights.size, _BLOCK):
            weight, gradient = weights[begin : begin + _BLOCK], gradients[begin : begin + _BLOCK]
            step, term = self._room[:, : weight.size]
            if slots is not None and factor != 1:
                slots[begin : begin + _BLOCK] *= factor
            if slots is not None and momentum > 0:
                step = slots[begin : begin + _BLOCK]
                step *= momentum
            else:  # at a momentum of 0 MXNet leaves the slot as it is
                step.fill(0)
            step -= np.multiply(weight, lr * wd, out=term)
            if bound < 0:
                step -= np.multiply(gradient, lr * rescale, out=term)
            else:
                np.clip(np.multiply(gradient, rescale, out=term), -bound, bound, out=term)
                step -= np.multiply(term, lr, out=term)
            weight += step

    def take_weights(self) -> None:
        """Weights have been written to; nothing here keeps copies of them."""


class KVStoreStep:
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

    def step(self, noise_seed: int | None, factor: float = 1.0, fixed: Sequence[int] = ()) -> None:
        """Step with the gradients of the first device; see `PerDeviceStep`."""
        _multiply_slots(self.updaters, factor)
        if noise_seed is not None:
            for ctx in {mx.cpu(), *self._parameters[0].list_ctx()}:
                mx.random.seed(noise_seed, ctx=ctx)
        for index, parameter in enumerate(self._parameters):
            if index in fixed:
                continue
            self._store.push(index, parameter.list_grad()[0])
            self._store.pull(index, out=list_held(parameter))

    def take_weights(self) -> None:
        """Weights have been written to on the devices: a new store takes them, because a store is filled but once."""
        self._store = mx.kv.create(self._kind)
        self._store._set_updater(self.updaters[0])
        for index, parameter in enumerate(self._parameters):
            self._store.init(index, list_held(parameter)[0])


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


def _multiply_slots(updaters: Sequence[Any], factor: float) -> None:
    if factor != 1:
        for updater in updaters:
            for slot in updater.states.values():
                slot *= factor


def _is_sgd(optimizer: Any) -> bool:
    return type(optimizer).__name__ == "SGD"


def _prepare(updater: Any, parameters: Sequence[Any], ctx: Any, *, is_settled: bool) -> None:
    """Create slots on a device; ones that are not settled move to where their weight is first met."""
    optimizer = updater.optimizer
    optimizer.param_dict = dict(enumerate(parameters))
    optimizer._set_current_context(ctx.device_id)
    for index, parameter in enumerate(parameters):
        updater.states[index] = optimizer.create_state_multi_precision(index, held(parameter, ctx))
        updater.states_synced[index] = is_settled
