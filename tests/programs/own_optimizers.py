"""Optimizers of the user's own: good ones, and ones with which no run could be repeated, resumed or shared."""

from __future__ import annotations

import time

import mxnet as mx
import numpy as np

MODULE_WIDE: list[float] = []


class Lion(mx.optimizer.Optimizer):
    """The sign of a mean of gradients (X. Chen et al., 2023, arXiv 2302.06675), with decoupled decay."""

    def __init__(self, beta1=0.9, beta2=0.99, **kwargs):
        super().__init__(**kwargs)
        self.beta1, self.beta2 = beta1, beta2

    def create_state(self, index, weight):
        return mx.nd.zeros_like(weight)

    def update(self, index, weight, grad, state):
        self._update_count(index)
        self.step(self._get_lr(index), self._get_wd(index), weight, self.gradient(grad), state)

    def gradient(self, grad):
        grad = grad * self.rescale_grad
        return grad if self.clip_gradient is None else mx.nd.clip(grad, -self.clip_gradient, self.clip_gradient)

    def step(self, lr, wd, weight, grad, state):
        weight[:] = weight - lr * (mx.nd.sign(self.beta1 * state + (1 - self.beta1) * grad) + wd * weight)
        state[:] = self.beta2 * state + (1 - self.beta2) * grad


class Noisy(Lion):
    """With noise from MXNet's generator, and nested state, and numbers beside it that change."""

    def __init__(self, learning_rate, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.steps, self.product = 0, 1.0

    def create_state(self, index, weight):
        return mx.nd.zeros_like(weight), [None, mx.nd.zeros_like(weight)]

    def step(self, lr, wd, weight, grad, state):
        self.steps += 1
        self.product *= 0.999
        mean, (_, total) = state
        total += grad * grad
        noise = mx.nd.random.normal(shape=weight.shape, ctx=weight.context)
        mean[:] = self.beta1 * mean + grad + 0.01 * self.product * noise
        weight[:] = weight - lr * (mean / (1 + total) + wd * weight)


class Dividing(Lion):
    """Keeps what it has divided by the rate."""

    def step(self, lr, wd, weight, grad, state):
        state[:] = state + grad / lr
        weight[:] = weight - lr * lr * state


class Deaf(Lion):
    """Steps by a rate of its own."""

    def step(self, lr, wd, weight, grad, state):
        super().step(0.001, wd, weight, grad, state)


class Bad(Lion):
    """What `how` says."""

    def __init__(self, how, **kwargs):
        super().__init__(**kwargs)
        self.how, self.steps, self.kept, self.draws = how, 0, {}, np.random.default_rng(0)

    def create_state(self, index, weight):
        if self.how == "number as state":
            return 0.5
        if self.how == "sparse state":
            return mx.nd.zeros(weight.shape, stype="row_sparse") if weight.ndim > 1 else None
        return super().create_state(index, weight)

    def gradient(self, grad):
        if self.how == "no rescaling":
            return grad
        if self.how == "no clipping":
            return grad * self.rescale_grad
        return super().gradient(grad)

    def update(self, index, weight, grad, state):
        if self.how in ("own rate", "own decay"):
            self._update_count(index)
            lr = self.lr if self.how == "own rate" else self._get_lr(index)
            wd = self.wd if self.how == "own decay" else self._get_wd(index)
            self.step(lr, wd, weight, self.gradient(grad), state)
        else:
            super().update(index, weight, grad, state)

    def step(self, lr, wd, weight, grad, state):
        self.steps += 1
        if self.how == "raises":
            raise RuntimeError("the weights are on strike")
        if self.how == "raises later" and self.steps > 40:
            raise RuntimeError("the weights are on strike")
        if self.how == "new weight":
            weight = weight.copy()
        if self.how == "not finite":
            weight[:] = np.inf
        if self.how == "clock":
            grad = grad + time.perf_counter()
        if self.how == "numpy":
            grad = grad * float(np.random.rand())
        if self.how == "own generator":
            grad = grad * float(self.draws.random())
        if self.how == "kept":
            grad = grad + self.kept.setdefault(weight.shape, mx.nd.zeros_like(grad))
            self.kept[weight.shape] = grad
        if self.how == "module":
            MODULE_WIDE.append(0.0)
            grad = grad + len(MODULE_WIDE)
        super().step(lr, wd, weight, grad, state)


class NotOne:
    """No optimizer."""


def build():
    return Lion()
