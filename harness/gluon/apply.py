"""Applies one reduced gradient: correct the momentum, step.

MXNet's SGD, NAG and LARS keep the learning rate inside their momentum buffer (`v = m v - lr g; w += v`), so after a
change of the learning rate the history still moves at the old one. Goyal et al. 2017 (arXiv 1706.02677, section 3) name
the remedy: when the applied rate goes from a to b the buffers are multiplied by b / a, and the trajectory is that of
`v = m v + g; w -= lr v`. (apache/mxnet#15533 is open; its own optimizers do not do it.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mxnet as mx

from harness.gluon.optimizers import NOISY
from harness.gluon.shards import seed_of


class Applier:
    """Steps an optimizer through a plain `gluon.Trainer` that reduces nothing by itself.

    Attributes:
        applied_lr: the learning rate that the momentum buffers hold; `None` before the first update.
    """

    def __init__(
        self,
        optimizer: Any,
        trainable: Mapping[str, Any],
        *,
        momentum_correction: bool = False,
        seed: int = 0,
    ) -> None:
        """Create the optimizer's slots at once, so that a state has the same shape before and after the first update.

        Args:
            optimizer: an `mx.optimizer.Optimizer`.
            trainable: parameters with a gradient, by structural name; their order is the optimizer's index.
            momentum_correction: whether momentum buffers follow the learning rate.
            seed: the run's seed, for optimizers that add noise.
        """
        self.optimizer = optimizer
        self.applied_lr: float | None = None
        self._parameters = list(trainable.values())
        self._correct = momentum_correction
        self._seed = seed
        self._momentum: float | None = getattr(optimizer, "momentum", None)
        self._noisy = type(optimizer).__name__.lower() in NOISY
        self._decay, self._clip = 0.0, None
        if type(optimizer).__name__ == "NAG" and optimizer.wd > 0:
            self._decay, self._clip = optimizer.wd, optimizer.clip_gradient
            optimizer.wd, optimizer.clip_gradient = 0.0, None
        if type(optimizer).__name__ == "SGD":
            # one kernel for four parameters runs through all of their arrays at once, and takes half as long again
            optimizer.aggregate_num = 0
        self._trainer = mx.gluon.Trainer(self._parameters, optimizer, kvstore=None)
        self.updater = self._trainer._updaters[0]
        for index, parameter in enumerate(self._parameters):
            self.updater.states[index] = optimizer.create_state_multi_precision(index, parameter.data())
            self.updater.states_synced[index] = True

    def step(self, t: int, lr: float, momentum: float | None, divisor: float) -> None:
        """Apply the gradients.

        Args:
            t: the iteration.
            lr: its learning rate; 0 moves no weight and still takes the gradient into the momentum.
            momentum: its momentum, or `None` for the optimizer's own.
            divisor: what the gradients are divided by: the number of samples, and what clipping adds.
        """
        if self._momentum is not None:  # set each time, so that no update depends on the one before it
            self.optimizer.momentum = self._momentum if momentum is None else momentum
        if self._noisy:
            mx.random.seed(seed_of(self._seed, t, -1))
        if self._correct and lr == 0:
            self._gather_history(divisor)
            return
        if self._correct and self.applied_lr is not None and lr != self.applied_lr:
            self._scale_buffers(lr / self.applied_lr)
        self._update(lr, divisor)
        self.applied_lr = lr

    def _update(self, lr: float, divisor: float) -> None:
        self._trainer.set_learning_rate(lr)
        for parameter in self._parameters:
            parameter.data()._fresh_grad = True
        if self._decay:
            self._add_decay(divisor)
        self._trainer.update(divisor)

    def _add_decay(self, divisor: float) -> None:
        """Take weight decay into the gradient, for NAG.

        MXNet's own NAG reads the weight for it after having changed the weight in place, unless oneDNN has laid the
        weight out for itself: then it works on a copy, and the same update has other bits. Which it is depends on what
        ran before.
        """
        for parameter in self._parameters:
            gradient, factor = parameter.grad(), self._decay * parameter.wd_mult * divisor
            if self._clip is not None:
                mx.nd.clip(gradient, -self._clip * divisor, self._clip * divisor, out=gradient)
            if factor:
                gradient += factor * parameter.data()

    def _gather_history(self, divisor: float) -> None:
        """Do an update at learning rate 0: the buffer takes the gradient at the last rate, the weights stay."""
        weights = [parameter.data().copy() for parameter in self._parameters]
        self.applied_lr = self.applied_lr or 1.0
        self._update(self.applied_lr, divisor)
        for parameter, weight in zip(self._parameters, weights, strict=True):
            weight.copyto(parameter.data())

    def _scale_buffers(self, factor: float) -> None:
        for buffer in self.updater.states.values():
            buffer *= factor
