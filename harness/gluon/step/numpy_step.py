"""The optimizer's step on the host, by NumPy, in the memory that MXNet's arrays lie in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx
import numpy as np

from harness.comm.launcher import Launch, count_threads
from harness.errors import ConfigError
from harness.gluon.step.memory import memory_of, tell_written
from harness.gluon.step.per_device import create_state
from harness.gluon.step.rules import Operands, Room, rule_of
from harness.model.parameters import held, list_held


class NumpyStep:
    """A step on the CPU where every update is waited for: by NumPy, in the memory of weights, state and gradients.

    Most of MXNet's own kernels are not vectorised, and calling them wakes the engine's threads; `rules.py` says which
    optimizers are faster without. The bits are the same. No other thread may run the network meanwhile.

    Attributes:
        updaters: one, which holds the state.
    """

    def __init__(self, optimizer: Any, parameters: Sequence[Any]) -> None:
        """Create the state.

        Args:
            optimizer: an `mx.optimizer.Optimizer` that has a rule.
            parameters: with a gradient, in the order of the optimizer's index; float32, on `cpu(0)`.
        """
        rule = rule_of(optimizer)
        assert rule is not None, "who calls this has asked `pays`"
        self._parameters = list(parameters)
        self._optimizer, self._step_weight = optimizer, rule.step
        self.updaters = [mx.optimizer.get_updater(optimizer)]
        create_state(self.updaters[0], self._parameters, mx.cpu(), is_settled=True)
        self._room = Room(max((held(parameter).size for parameter in self._parameters), default=0))

    @staticmethod
    def pays(optimizer: Any, parameters: Sequence[Any], synchronous: bool) -> bool:
        """Whether it can take an optimizer's place, and is sooner done than MXNet with its threads.

        Args:
            optimizer: an `mx.optimizer.Optimizer`.
            parameters: with a gradient.
            synchronous: whether every update is waited for anyway. Elsewhere Python runs ahead of an update, and what
                that saves must be less than what this does.
        """
        rule = rule_of(optimizer)
        if rule is None or any(one.list_ctx() != [mx.cpu()] for one in parameters):
            return False
        weights = [list_held(parameter)[0] for parameter in parameters]
        if any(weight.dtype != np.float32 for weight in weights):
            return False
        many = sum(weight.size for weight in weights) >= rule.many
        return count_threads("auto", Launch()) <= rule.threads and (synchronous or many)

    def step(self, noise_seed: int | None, factor: float = 1.0, fixed: Sequence[int] = ()) -> None:
        """Step, once all pending work is done.

        Args:
            noise_seed: of the noise, which no optimizer with a rule has.
            factor: by which the state is multiplied before.
            fixed: weights that have no update, by index.

        Raises:
            ConfigError: if a learning rate or a weight decay is not finite in float32.
        """
        optimizer = self._optimizer
        indices = [index for index in range(len(self._parameters)) if index not in fixed]
        if not indices:
            return
        optimizer._update_count(indices)
        rates, decays = optimizer._get_lrs(indices), optimizer._get_wds(indices)
        with np.errstate(all="ignore"):  # what is not finite is the learner's to find
            if not np.isfinite(np.array([rates, decays], np.float32)).all():
                raise ConfigError(
                    f"learning rate {optimizer.learning_rate} or wd {optimizer.wd}: must be finite in float32"
                )
            mx.nd.waitall()
            written = []
            for index, lr, wd in zip(indices, rates, decays, strict=True):
                weight, states = held(self._parameters[index]), _arrays(self.updaters[0].states[index])
                operands = Operands(
                    weights=memory_of(weight),
                    gradients=memory_of(self._parameters[index].grad()),
                    states=[memory_of(state) for state in states],
                    factor=factor,
                    lr=lr,
                    wd=wd,
                    t=optimizer._index_update_count[index],
                    room=self._room,
                )
                self._step_weight(optimizer, operands)
                written += [weight, *states]
        tell_written(written)

    def weights_changed(self) -> None:
        """Weights have been written to; nothing here keeps copies of them."""


def _arrays(state: Any) -> list[Any]:
    """The arrays of a weight's state: none, one or several."""
    return [] if state is None else list(state) if isinstance(state, tuple | list) else [state]
