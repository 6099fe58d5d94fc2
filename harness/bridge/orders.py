"""MXNet's operators as a replay needs them: without an error of oneDNN's, and with sums in other orders.

Both take the place of operators for the time being, so they reach whatever calls them by name, be it Gluon's blocks,
MXNet's optimizers or a user's. A graph that was read from a file is out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import mxnet as mx
import numpy as np
from mxnet.gluon import rnn

from harness.gluon.step.numpy_step import NumpyStep

_LAYER: Any = rnn.rnn_layer._RNNLayer
_OPERATORS = (mx.nd, mx.sym)

Operator = Callable[..., Any]
_REPEATED = 4  # rows of a dense layer


@contextmanager
def accurate_operators() -> Iterator[None]:
    """Have MXNet compute `log_softmax` itself.

    oneDNN's logarithm is off by up to 3e-6, always to the same side; that is no rounding of sums, and PyTorch does not
    have it. oneDNN is not asked where a temperature is given, and 1 changes nothing.
    """
    with ExitStack() as stack:
        for f in _OPERATORS:
            changed = _with_temperature(f.log_softmax)
            stack.enter_context(mock.patch.object(f, "log_softmax", changed))
        yield


class Order(NamedTuple):
    """An order in which MXNet adds, other than its own.

    PyTorch's sums may differ from MXNet's in each of these, so each is another in half of the orders.

    Attributes:
        inputs: whether dense, convolutional and recurrent layers add products with their inputs from the last to the
            first, and losses the values of a sample: inputs are reversed together with the columns of the weights,
            those of convolutions along the positions of the kernel as well.
        units: whether they do so with gradients of their outputs in the backward pass: their units are reversed, and
            what they give is put back.
        step: whether steps of Adam, AdamW, NAG, RMSProp, and of SGD with decay, add their terms in another order.
        kernel: whether dense layers and convolutions of two axes are computed by another kernel. Dense layers get every
            row several times, of which one counts: oneDNN adds products in blocks where there are few rows, and one
            after the other where there are many, as PyTorch does in any case. Convolutions become products of the
            weights with patches of the picture, as PyTorch computes some, where oneDNN goes by blocks of channels.
    """

    inputs: bool
    units: bool
    step: bool
    kernel: bool

    @classmethod
    def of(cls, number: int) -> Order:
        """All sixteen, over and over; the first one has everything changed."""
        return cls(*(not number - 1 & 1 << bit for bit in range(len(cls._fields))))


@contextmanager
def other_order(order: Order) -> Iterator[None]:
    """Have MXNet add in another order, and compute the same function.

    Networks have to be called in here from the first time on, because those that are compiled keep the operators that
    they have met, and learners have to be built in here.
    """
    with ExitStack() as stack:
        for name, operator in _SUMS.items():
            for f in _OPERATORS:
                stack.enter_context(mock.patch.object(f, name, operator(f, getattr(f, name), order)))
        stack.enter_context(mock.patch.object(_LAYER, "_forward_kernel", _recurrent(_LAYER._forward_kernel, order)))
        for place, name, change in _STEPS if order.step else ():
            stack.enter_context(mock.patch.object(place, name, change(getattr(place, name))))
        if order.step:
            stack.enter_context(mock.patch.object(NumpyStep, "pays", return_value=False))  # it asks no operator
        yield


def _with_temperature(log_softmax: Operator) -> Operator:
    def accurate(data: Any, *more: Any, **options: Any) -> Any:
        if options.get("temperature") is None:
            options["temperature"] = 1.0
        return log_softmax(data, *more, **options)

    return accurate


def _turned(f: Any, array: Any, *axes: tuple[int, bool]) -> Any:
    """An array with those of its axes reversed that are to be."""
    found = tuple(axis for axis, is_turned in axes if is_turned)
    return f.reverse(array, axis=found) if found else array


def _dense(f: Any, operator: Operator, order: Order) -> Operator:
    def dense(data: Any, weight: Any, bias: Any = None, *, flatten: bool = True, **options: Any) -> Any:
        inputs, units = order.inputs, order.units
        rows = f.flatten(data) if flatten else f.reshape(data, shape=(-1, 0), reverse=True)
        if order.kernel:
            rows = f.concat(*[rows] * _REPEATED, dim=0)
        given = [_turned(f, rows, (1, inputs)), _turned(f, weight, (0, units), (1, inputs))]
        given += [] if bias is None else [_turned(f, bias, (0, units))]
        found = _turned(f, operator(*given, flatten=True, **options), (1, units))
        if order.kernel:
            found = f.split(found, num_outputs=_REPEATED, axis=0)[0]
        if flatten:
            return found
        return f.reshape_like(found, data, lhs_begin=0, lhs_end=1, rhs_begin=0, rhs_end=-1)

    return dense


def _convolution(f: Any, operator: Operator, order: Order) -> Operator:
    def convolution(data: Any, weight: Any = None, bias: Any = None, **options: Any) -> Any:
        biases = [] if bias is None else [bias]
        kernel, groups = options["kernel"], options.get("num_group", 1)
        if weight is None or options.get("layout") not in (None, "NCW", "NCHW", "NCDHW"):
            return operator(data, *([] if weight is None else [weight]), *biases, **options)  # to infer shapes, or NHWC
        if order.kernel and groups == 1 and len(kernel) == 2:
            return _product_of_patches(f, operator, order, data, weight, biases, options)
        # other strides may leave out pixels at the end, which would be others at the beginning
        every = all(step == 1 for step in options.get("stride", ()))
        axes = [(axis, order.inputs and every) for axis in range(2, 2 + len(kernel))]

        def turned(array: Any) -> Any:
            return _turned_groups(f, array, groups, (order.inputs, order.units))

        given = [_turned_groups(f, data, groups, (order.inputs, order.inputs), axis=1), turned(weight)]
        given = [_turned(f, given[0], *axes), _turned(f, given[1], (1, order.inputs), *axes), *map(turned, biases)]
        found = _turned_groups(f, operator(*given, **options), groups, (order.inputs, order.units), axis=1)
        return _turned(f, found, *axes)

    return convolution


def _turned_groups(f: Any, array: Any, groups: int, turned: tuple[bool, bool], axis: int = 0) -> Any:
    """An array of which groups along an axis are reversed, and what is within each; to be put back by the same."""
    if groups == 1:
        return _turned(f, array, (axis, turned[1]))
    apart = f.reshape(array, shape=(*[0] * axis, -4, groups, -1, -2))
    return f.reshape(_turned(f, apart, (axis, turned[0]), (axis + 1, turned[1])), shape=(*[0] * axis, -3, -2))


def _product_of_patches(
    f: Any, operator: Operator, order: Order, data: Any, weight: Any, biases: list[Any], options: dict[str, Any]
) -> Any:
    """A convolution of pictures as a matrix product."""
    where = {name: options[name] for name in ("kernel", "stride", "dilate", "pad") if name in options}
    patches = f.transpose(f.im2col(data, **where), axes=(0, 2, 1))
    columns = f.reshape(weight, shape=(0, -1))
    turned = _turned(f, columns, (0, order.units), (1, order.inputs))
    found = f.dot(_turned(f, patches, (2, order.inputs)), turned, transpose_b=True)
    for one in biases:
        found = f.broadcast_add(found, f.reshape(_turned(f, one, (0, order.units)), shape=(1, 1, -1)))
    found = f.transpose(_turned(f, found, (2, order.units)), axes=(0, 2, 1))
    # a symbol has no shape yet, so a convolution of one channel tells how large the picture has become
    height, width = options["kernel"]
    # the first channel's weights; a slice of `weight` itself ends the process where oneDNN keeps it in blocks
    one = f.reshape(f.slice(columns, begin=(0, 0), end=(1, height * width)), shape=(1, 1, height, width))
    channel = f.slice_axis(data, axis=1, begin=0, end=1)
    size = f.BlockGrad(operator(channel, one, num_filter=1, no_bias=True, **where))
    return f.reshape_like(found, size, lhs_begin=2, lhs_end=3, rhs_begin=2, rhs_end=4)


def _batch_dot(f: Any, operator: Operator, order: Order) -> Operator:
    def batch_dot(left: Any, right: Any, transpose_a: bool = False, transpose_b: bool = False, **options: Any) -> Any:
        terms = order.inputs
        given = _turned(f, left, (1 if transpose_a else 2, terms)), _turned(f, right, (2 if transpose_b else 1, terms))
        return operator(*given, transpose_a=transpose_a, transpose_b=transpose_b, **options)

    return batch_dot


def _mean(f: Any, operator: Operator, order: Order) -> Operator:
    """Of a sample's losses, as Gluon's take it."""

    def mean(data: Any, *more: Any, **options: Any) -> Any:
        if order.inputs and not more and options == {"axis": 0, "exclude": True}:
            return operator(f.reverse(f.reshape(data, shape=(0, -1)), axis=1), axis=1)
        return operator(data, *more, **options)

    return mean


_SUMS: dict[str, Callable[[Any, Operator, Order], Operator]] = {
    "FullyConnected": _dense,
    "Convolution": _convolution,
    "batch_dot": _batch_dot,
    "mean": _mean,
}


def _recurrent(kernel: Operator, order: Order) -> Operator:
    def in_another_order(layer: Any, f: Any, inputs: Any, states: Any, *more: Any, **arrays: Any) -> Any:
        if layer._projection_size:
            return kernel(layer, f, inputs, states, *more, **arrays)
        of_inputs, of_units = order.inputs, order.units
        units, directions = layer._hidden_size, layer._dir

        def turned(name: str, array: Any) -> Any:
            if name.endswith("bias"):
                return f.reshape(_turned(f, f.reshape(array, shape=(-1, units)), (1, of_units)), shape=(-1,))
            # (gates, units, parts of what is read, of which each is reversed, numbers)
            is_first = name[1:].startswith("0_i2h")
            parts = directions if name.endswith("i2h_weight") and not is_first else 1
            blocks = f.reshape(array, shape=(-4, -1, units, -4, parts, -1))
            columns = of_inputs if is_first else of_units
            return f.reshape(_turned(f, blocks, (1, of_units), (3, columns)), shape=(-3, -3))

        outputs, ended = kernel(
            layer,
            f,
            _turned(f, inputs, (2, of_inputs)),
            [_turned(f, one, (2, of_units)) for one in states],
            *more,
            **{name: turned(name, array) for name, array in arrays.items()},
        )
        by_direction = _turned(f, f.reshape(outputs, shape=(0, 0, -4, directions, -1)), (3, of_units))
        return f.reshape(by_direction, shape=(0, 0, -3)), [_turned(f, one, (2, of_units)) for one in ended]

    return in_another_order


def _nag(kernel: Operator) -> Operator:
    """MXNet's takes the old momentum from a weight, and then adds the step; here that is one number."""

    def step(weight: Any, grad: Any, state: Any, **options: Any) -> None:
        if options["wd"] or options.get("clip_gradient"):
            kernel(weight, grad, state, **options)
            return
        old = state * options["momentum"]
        state[:] = old - grad * (options["lr"] * options["rescale_grad"])
        weight += state * (1 + options["momentum"]) - old

    return step


def _sgd(kernel: Operator) -> Operator:
    """MXNet's takes the decay and then the gradient from the momentum; here it takes their sum."""

    def step(*arrays: Any, wds: Any, rescale_grad: float, **options: Any) -> Any:
        if not options.get("clip_gradient"):
            each = len(arrays) // len(wds)
            decayed = [
                grad + weight * (wd / rescale_grad)
                for weight, grad, wd in zip(arrays[::each], arrays[1::each], wds, strict=True)
            ]
            arrays = tuple(decayed[i // each] if i % each == 1 else one for i, one in enumerate(arrays))
            wds = [0.0] * len(wds)
        return kernel(*arrays, wds=wds, rescale_grad=rescale_grad, **options)

    return step


def _adamw(kernel: Operator) -> Operator:
    """MXNet's takes the new number from a mean before it shrinks that, and adds the decay to the step; here neither."""

    def step(weights: Any, gradients: Any, means: Any, variances: Any, rescale: Any, **options: Any) -> None:
        if options["clip_gradient"] >= 0:
            kernel(weights, gradients, means, variances, rescale, **options)
            return
        beta1, beta2 = (np.float32(options[name]) for name in ("beta1", "beta2"))
        scales = options["lrs"], options["etas"], options["wds"]
        for w, gradient, m, v, lr, eta, wd in zip(weights, gradients, means, variances, *scales, strict=True):
            g = gradient * rescale
            m[:] = m * float(beta1) + g * float(1 - beta1)
            v[:] = v * float(beta2) + g * g * float(1 - beta2)
            w -= w * (eta * wd)
            w -= m * (eta * lr) / (v.sqrt() + options["epsilon"])

    return step


def _adam(kernel: Operator) -> Operator:
    """MXNet's adds the new number to what is left of the mean; here the mean is moved by their difference."""

    def step(weight: Any, gradient: Any, mean: Any, variance: Any, **options: Any) -> None:
        if options.get("clip_gradient"):
            kernel(weight, gradient, mean, variance, **options)
            return
        beta1, beta2 = (np.float32(options[name]) for name in ("beta1", "beta2"))
        g = gradient * options["rescale_grad"] + weight * options["wd"]
        mean += (g - mean) * float(1 - beta1)
        variance[:] = variance * float(beta2) + g * g * float(1 - beta2)
        weight -= mean * options["lr"] / (variance.sqrt() + options["epsilon"])

    return step


def _rmsprop(kernel: Operator) -> Operator:
    """As of Adam."""

    def step(weight: Any, gradient: Any, mean: Any, **options: Any) -> None:
        if options.get("clip_gradient") or options.get("clip_weights"):
            kernel(weight, gradient, mean, **options)
            return
        g = gradient * options["rescale_grad"] + weight * options["wd"]
        mean += (g * g - mean) * float(1 - np.float32(options["gamma1"]))
        weight -= g * options["lr"] / (mean + options["epsilon"]).sqrt()

    return step


_STEPS: list[tuple[Any, str, Callable[[Operator], Operator]]] = [
    (mx.optimizer.optimizer, "nag_mom_update", _nag),
    (mx.optimizer.optimizer, "multi_sgd_mom_update", _sgd),
    (mx.optimizer.optimizer, "multi_sgd_update", _sgd),
    (mx.optimizer.optimizer, "adam_update", _adam),
    (mx.optimizer.optimizer, "rmsprop_update", _rmsprop),
    (mx.nd.contrib, "multi_adamw_update", _adamw),
]
