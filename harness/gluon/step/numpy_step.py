"""SGD on the host, by NumPy, in the memory that MXNet's arrays lie in; it has the bits of MXNet's own kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx
import numpy as np

from harness.comm.launcher import Launch, count_threads
from harness.errors import ConfigError
from harness.gluon.step.memory import Floats, as_operators_read, memory_of, tell_written
from harness.gluon.step.per_device import create_state
from harness.model.parameters import held, list_held

_BLOCK = 1 << 15  # numbers that the host steps at a time, so that every pass finds them in the cache
_MANY = 1 << 21  # weights for which an update is worth waiting for
_MAX_THREADS = 2  # from three on MXNet's kernel is as fast


class NumpyStep:
    """SGD on the CPU where every update is waited for: by NumPy, in the memory of weights, momenta and gradients.

    MXNet's own kernel is not vectorised, and wakes the engine's threads: a twentieth of an iteration of LeNet, an
    eighth of one of ResNet-18. The bits are the same. No other thread may run the network meanwhile.

    Attributes:
        updaters: one, which holds the momenta.
    """

    def __init__(self, optimizer: Any, parameters: Sequence[Any]) -> None:
        """Create the momenta.

        Args:
            optimizer: an `mx.optimizer.SGD`.
            parameters: with a gradient, in the order of the optimizer's index; float32, on `cpu(0)`.
        """
        self._parameters = list(parameters)
        self._optimizer = optimizer
        self.updaters = [mx.optimizer.get_updater(optimizer)]
        create_state(self.updaters[0], self._parameters, mx.cpu(), is_settled=True)
        self._room = np.empty((2, _BLOCK), np.float32)

    @staticmethod
    def pays(optimizer: Any, parameters: Sequence[Any], synchronous: bool) -> bool:
        """Whether it can take an optimizer's place, and is sooner done than MXNet with its threads.

        Args:
            optimizer: an `mx.optimizer.Optimizer`.
            parameters: with a gradient.
            synchronous: whether every update is waited for anyway. Elsewhere Python runs ahead of an update, and what
                that saves must be less than what this does.
        """
        is_possible = type(optimizer) is mx.optimizer.SGD and all(one.list_ctx() == [mx.cpu()] for one in parameters)
        many = sum(list_held(parameter)[0].size for parameter in parameters) >= _MANY
        return is_possible and count_threads("auto", Launch()) <= _MAX_THREADS and (synchronous or many)

    def step(self, noise_seed: int | None, factor: float = 1.0, fixed: Sequence[int] = ()) -> None:
        """Step, once all pending work is done; SGD has no noise, and a weight whose rate is 0 stays by itself.

        Raises:
            ConfigError: if a learning rate or a weight decay is not finite in float32.
        """
        optimizer, indices = self._optimizer, list(range(len(self._parameters)))
        weights = [held(parameter) for parameter in self._parameters]
        momenta = [self.updaters[0].states[index] for index in indices]
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
                state = None if momenta[index] is None else memory_of(momenta[index])
                gradient = memory_of(self._parameters[index].grad())
                self._step_one(
                    memory_of(weights[index]), gradient, state, rates[index], decays[index], np.float32(factor)
                )
        tell_written([*weights, *(state for state in momenta if state is not None)])

    def _step_one(
        self,
        weights: Floats,
        gradients: Floats,
        state: Floats | None,
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
            if state is not None and factor != 1:
                state[begin : begin + _BLOCK] *= factor
            if state is not None and momentum > 0:
                step = state[begin : begin + _BLOCK]
                step *= momentum
            else:  # at a momentum of 0 MXNet leaves its buffer as it is
                step.fill(0)
            step -= np.multiply(weight, lr * wd, out=term)
            if bound < 0:
                step -= np.multiply(gradient, lr * rescale, out=term)
            else:
                np.clip(np.multiply(gradient, rescale, out=term), -bound, bound, out=term)
                step -= np.multiply(term, lr, out=term)
            weight += step

    def weights_changed(self) -> None:
        """Weights have been written to; nothing here keeps copies of them."""
