"""MXNet's operators as a replay needs them: without an error of oneDNN's, and with sums in another order.

Both take the place of operators for the time being, so they reach whatever calls them by name, be it Gluon's blocks or
a user's. A graph that was read from a file is out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import mxnet as mx
from mxnet.gluon import rnn

_LAYER: Any = rnn.rnn_layer._RNNLayer
_OPERATORS = (mx.nd, mx.sym)

Operator = Callable[..., Any]


@contextmanager
def accurate_operators() -> Iterator[None]:
    """Have MXNet compute `log_softmax` itself.

    oneDNN's logarithm is off by up to 3e-6, always to the same side; that is no rounding of sums, and PyTorch does not
    have it. oneDNN is not asked where a temperature is given, and 1 changes nothing.
    """
    with _replaced({"log_softmax": _with_temperature}):
        yield


@contextmanager
def reversed_sums() -> Iterator[None]:
    """Have dot products add from the last to the first, in dense, convolutional and recurrent layers.

    Inputs of a layer are reversed together with the columns of its weights, and its units with the rows, whose outputs
    are then put back. So sums over inputs, and those over units in the backward pass, are of the same products in
    another order; the function is the same. Networks have to be called in here from the first time on, because those
    that are compiled keep the operators that they have met.
    """
    changed = {"FullyConnected": _dense, "Convolution": _convolution, "batch_dot": _batch_dot}
    kernel = _LAYER._forward_kernel
    with _replaced(changed), mock.patch.object(_LAYER, "_forward_kernel", _recurrent(kernel)):
        yield


@contextmanager
def _replaced(changed: Mapping[str, Callable[[Any, Operator], Operator]]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, change in changed.items():
            for f in _OPERATORS:
                stack.enter_context(mock.patch.object(f, name, change(f, getattr(f, name))))
        yield


def _with_temperature(f: Any, log_softmax: Operator) -> Operator:
    def accurate(data: Any, *more: Any, **options: Any) -> Any:
        if options.get("temperature") is None:
            options["temperature"] = 1.0
        return log_softmax(data, *more, **options)

    return accurate


def _dense(f: Any, operator: Operator) -> Operator:
    def dense(data: Any, weight: Any, bias: Any = None, *, flatten: bool = True, **options: Any) -> Any:
        rows = f.flatten(data) if flatten else f.reshape(data, shape=(-1, 0), reverse=True)
        turned = f.reverse(weight, axis=(0, 1))
        given = [f.reverse(rows, axis=1), turned, *([] if bias is None else [f.reverse(bias, axis=0)])]
        found = f.reverse(operator(*given, flatten=True, **options), axis=1)
        if flatten:
            return found
        return f.reshape_like(found, data, lhs_begin=0, lhs_end=1, rhs_begin=0, rhs_end=-1)

    return dense


def _convolution(f: Any, operator: Operator) -> Operator:
    def convolution(data: Any, weight: Any = None, bias: Any = None, **options: Any) -> Any:
        is_plain = options.get("layout") in (None, "NCW", "NCHW", "NCDHW") and options.get("num_group", 1) == 1
        if weight is None or not is_plain:  # Gluon infers shapes from the data alone
            return operator(data, *(one for one in (weight, bias) if one is not None), **options)
        given = [f.reverse(data, axis=1), f.reverse(weight, axis=(0, 1))]
        given += [] if bias is None else [f.reverse(bias, axis=0)]
        return f.reverse(operator(*given, **options), axis=1)

    return convolution


def _batch_dot(f: Any, operator: Operator) -> Operator:
    def batch_dot(left: Any, right: Any, transpose_a: bool = False, transpose_b: bool = False, **options: Any) -> Any:
        turned = f.reverse(left, axis=1 if transpose_a else 2), f.reverse(right, axis=2 if transpose_b else 1)
        return operator(*turned, transpose_a=transpose_a, transpose_b=transpose_b, **options)

    return batch_dot


def _recurrent(kernel: Operator) -> Operator:
    def reversed_kernel(layer: Any, f: Any, inputs: Any, states: Any, *more: Any, **arrays: Any) -> Any:
        if layer._projection_size:
            return kernel(layer, f, inputs, states, *more, **arrays)
        units, directions = layer._hidden_size, layer._dir

        def turned(name: str, array: Any) -> Any:
            if name.endswith("bias"):
                return f.reshape(f.reverse(f.reshape(array, shape=(-1, units)), axis=1), shape=(-1,))
            # (gates, units, parts of what is read, of which each is reversed, numbers)
            is_first = name[1:].startswith("0_i2h")
            parts = directions if name.endswith("i2h_weight") and not is_first else 1
            blocks = f.reshape(array, shape=(-4, -1, units, -4, parts, -1))
            return f.reshape(f.reverse(blocks, axis=(1, 3)), shape=(-3, -3))

        outputs, ended = kernel(
            layer,
            f,
            f.reverse(inputs, axis=2),
            [f.reverse(one, axis=2) for one in states],
            *more,
            **{name: turned(name, array) for name, array in arrays.items()},
        )
        by_direction = f.reverse(f.reshape(outputs, shape=(0, 0, -4, directions, -1)), axis=3)
        return f.reshape(by_direction, shape=(0, 0, -3)), [f.reverse(one, axis=2) for one in ended]

    return reversed_kernel
