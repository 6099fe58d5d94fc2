"""Updates of MXNet's optimizers by NumPy, on the memory of one weight; each has the bits of MXNet's own kernel.

A rule does what the kernel in MXNet's `optimizer_op-inl.h` or `multi_lamb.cc` does to one number, in the same order and
with the same roundings, to a block of numbers at a time. MXNet's wheel is built without AVX, hence without fused
multiply-adds: every operation rounds. Nothing here knows of Gluon's parameters, threads or the engine.

Not every optimizer has a rule. For Adam and RMSProp NumPy needs so many passes that an update takes as long as with
MXNet's kernel, or longer: docs/performance.md has the figures, benchmarks/optimizers.py the rules that were tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.gluon.step.memory import Floats, as_operators_read

_BLOCK = 1 << 15  # numbers that are stepped at a time, so that every pass finds them in the cache
_ONE, _ZERO = np.float32(1), np.float32(0)


class Room:
    """Memory for what lies between a gradient and a step; allocated once, because the pages of new memory cost time."""

    def __init__(self, largest: int) -> None:
        """Reserve it.

        Args:
            largest: how many numbers the largest weight has.
        """
        self.floats = np.empty((2, _BLOCK), np.float32)
        self.doubles: npt.NDArray[np.float64] = np.empty(_BLOCK, np.float64)
        self._largest = largest
        self._whole: Floats | None = None

    def whole(self, size: int) -> Floats:
        """As much as a weight has; for the rules that look at all of a weight before they step it."""
        if self._whole is None:
            self._whole = np.empty(self._largest, np.float32)
        return self._whole[:size]


class Operands(NamedTuple):
    """One weight and what steps it; all arrays are flat, float32, `(size,)`.

    Attributes:
        weights: the weight's numbers.
        gradients: sums over samples.
        states: the arrays of the optimizer's state, in its order; none, if it has none for this weight.
        factor: by which the states are multiplied before.
        lr: the weight's learning rate.
        wd: its weight decay.
        t: how many updates it has had, with this one.
        room: memory to calculate in.
    """

    weights: Floats
    gradients: Floats
    states: Sequence[Floats]
    factor: float
    lr: float
    wd: float
    t: int
    room: Room

    def blocks(self, *more: Floats) -> Iterator[tuple[Floats, ...]]:
        """Weight, gradient, states, further arrays of the weight's size, and two arrays to calculate in, by block."""
        for begin in range(0, self.weights.size, _BLOCK):
            part = slice(begin, begin + _BLOCK)
            weight, states = self.weights[part], [state[part] for state in self.states]
            if self.factor != 1:
                for state in states:
                    state *= np.float32(self.factor)
            scratch = self.room.floats[:, : weight.size]
            yield weight, self.gradients[part], *states, *(one[part] for one in more), *scratch


def sgd(optimizer: Any, weight: Operands) -> None:
    """`m = momentum m - lr wd w - lr rescale g; w = w + m`."""
    lr, wd = np.float32(weight.lr), np.float32(weight.wd)
    rescale, momentum = as_operators_read(optimizer.rescale_grad), as_operators_read(optimizer.momentum)
    bound = _bound(optimizer.clip_gradient)
    # at a momentum of 0 MXNet leaves its buffer as it is
    moves = bool(weight.states) and momentum > 0
    for w, g, *states, step, term in weight.blocks():
        if moves:
            step = states[0]
            step *= momentum
        else:
            step.fill(0)
        step -= np.multiply(w, lr * wd, out=term)
        if bound < 0:
            step -= np.multiply(g, lr * rescale, out=term)
        else:
            np.clip(np.multiply(g, rescale, out=term), -bound, bound, out=term)
            step -= np.multiply(term, lr, out=term)
        w += step


def nag(optimizer: Any, weight: Operands) -> None:
    """`d = lr (rescale g + wd w); m = momentum m; w = w - m + (momentum + 1) (m - d); m = m - d`.

    The kernel works in place, so the second `d` has the new weight in it.
    """
    lr, wd = as_operators_read(weight.lr), as_operators_read(weight.wd)
    rescale, momentum = as_operators_read(optimizer.rescale_grad), as_operators_read(optimizer.momentum)
    bound = _bound(optimizer.clip_gradient)
    for w, g, m, gradient, step in weight.blocks():
        _rescale(g, rescale, bound, gradient)
        m *= momentum
        np.multiply(w, wd, out=step)
        step += gradient
        step *= lr
        np.subtract(m, step, out=step)
        step *= momentum + _ONE
        w -= m
        w += step
        np.multiply(w, wd, out=step)
        step += gradient
        step *= lr
        m -= step


def lamb(optimizer: Any, weight: Operands) -> None:
    """Adam's step `d` with `wd w` added; `w = w - lr |w| / |d| d`. You et al. 2020, arXiv 1904.00962.

    The kernel takes the square root of the variance in double precision, so what follows it is double too, until `d` is
    rounded. It asks the C library for both powers of the bias correction anew for every number; here they are numbers.
    """
    rescale, epsilon = as_operators_read(optimizer.rescale_grad), np.float64(as_operators_read(optimizer.epsilon))
    beta1, beta2 = as_operators_read(optimizer.beta1), as_operators_read(optimizer.beta2)
    wd, bound = np.float32(weight.wd), _bound(optimizer.clip_gradient)
    powers = _powers(beta1, beta2, weight.t) if optimizer.bias_correction else None
    steps = weight.room.whole(weight.weights.size)
    squares = [_ZERO, _ZERO]
    for w, g, m, v, step, gradient, term in weight.blocks(steps):
        _rescale(g, rescale, bound, gradient)
        m *= beta1
        m += np.multiply(gradient, _ONE - beta1, out=term)
        v *= beta2
        np.multiply(gradient, _ONE - beta2, out=term)
        term *= gradient
        v += term
        mean, variance = m, v
        if powers is not None:
            mean = np.divide(m, _ONE - powers[0], out=gradient)
            variance = np.divide(v, _ONE - powers[1], out=term)
        root = weight.room.doubles[: w.size]
        root[:] = variance
        np.sqrt(root, out=root)
        root += epsilon
        np.divide(mean, root, out=root)
        root += np.multiply(w, wd, out=term)
        step[:] = root
        squares[0] = _add_squares(squares[0], w, term)
        squares[1] = _add_squares(squares[1], step, term)
    norm, norm_of_step = np.sqrt(squares[0]), np.sqrt(squares[1])
    lower, upper = _bound(optimizer.lower_bound), _bound(optimizer.upper_bound)
    norm = max(norm, lower) if lower >= 0 else norm
    norm = min(norm, upper) if upper >= 0 else norm
    ratio = _ONE if norm == 0 or norm_of_step == 0 else norm / norm_of_step
    steps *= np.float32(weight.lr) * ratio
    weight.weights[:] -= steps


class Rule(NamedTuple):
    """An optimizer's rule, and where it is faster than MXNet's kernel.

    Attributes:
        step: steps one weight.
        threads: the most threads of a process; with more of them MXNet's kernel is as fast.
        many: weights for which an update is worth waiting for where nothing else waits for it.
        serves: whether MXNet would call the kernel that the rule follows, for an optimizer with these settings.
    """

    step: Callable[[Any, Operands], None]
    threads: int = 1
    many: int = 1 << 21
    serves: Callable[[Any], bool] = lambda optimizer: True


RULES: dict[type, Rule] = {
    mx.optimizer.SGD: Rule(sgd, threads=2),
    # without a momentum MXNet steps NAG with a kernel of SGD
    mx.optimizer.NAG: Rule(nag, many=1 << 22, serves=lambda optimizer: optimizer.momentum > 0),
    # one weight at a time MXNet takes other kernels (MXNET_OPTIMIZER_AGGREGATION_SIZE=1)
    mx.optimizer.LAMB: Rule(lamb, threads=2, many=1 << 17, serves=lambda optimizer: optimizer.aggregate_num > 1),
}


def rule_of(optimizer: Any) -> Rule | None:
    """The rule of an optimizer; none for a class of the user's own, which may step otherwise."""
    rule = RULES.get(type(optimizer))
    return rule if rule is not None and rule.serves(optimizer) else None


def _bound(value: float | None) -> np.float32:
    """A limit as a kernel gets it: -1 where there is none, which 0 means as well."""
    return as_operators_read(value or -1.0)


def _rescale(gradients: Floats, rescale: np.float32, bound: np.float32, out: Floats) -> None:
    """Multiply gradients, and clip what comes of it."""
    np.multiply(gradients, rescale, out=out)
    if bound >= 0:
        np.clip(out, -bound, bound, out=out)


def _add_squares(total: np.float32, values: Floats, term: Floats) -> np.float32:
    """Add squares to a total one after the other, as the kernel does.

    `np.add.reduce` would add in pairs, which rounds otherwise; a difference has but one order. `0 - x` rather than `-x`
    keeps the sign of a NaN.
    """
    np.multiply(values, values, out=term)
    return np.float32(_ZERO - np.subtract.reduce(term, initial=_ZERO - total))


@lru_cache(maxsize=4)
def _powers(beta1: np.float32, beta2: np.float32, t: int) -> tuple[np.float32, np.float32]:
    """`beta^t` as MXNet's kernel has it; NumPy's power may be another one than the C library's."""
    found = mx.nd.broadcast_power(mx.nd.array([beta1, beta2]), mx.nd.array([t])).asnumpy()
    return np.float32(found[0]), np.float32(found[1])
