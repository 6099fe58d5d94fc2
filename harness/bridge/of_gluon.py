"""The Gluon side: what layers a network has, and one run of samples through them. The only file here with mxnet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import mxnet as mx
import numpy as np
from mxnet.gluon import nn, rnn

from harness.bridge.layers import DENSE, NOTHING, OWN, Array, Layer, Recorder, Trace, mean_of
from harness.data import GlobalBatch
from harness.data.leaves import Data, each_leaf
from harness.errors import ConfigError
from harness.gluon import Learner
from harness.gluon.forward import Forward
from harness.gluon.state_keeper import overwrite
from harness.model.calls import Calls
from harness.model.inputs import copies_on_device
from harness.model.parameters import blocks_of, held, parameters_of

_BATCH_NORM: Any = nn.basic_layers._BatchNorm
_CONVOLUTION: Any = nn.conv_layers._Conv
_RECURRENT: Any = rnn.rnn_layer._RNNLayer
_CELLS = {rnn.LSTMCell: "lstm cell", rnn.GRUCell: "gru cell", rnn.RNNCell: "rnn cell"}
_OF_CELLS = {
    "i2h_weight": "weight_ih",
    "h2h_weight": "weight_hh",
    "i2h_bias": "bias_ih",
    "h2h_bias": "bias_hh",
    "h2r_weight": "weight_hr",
}
_OF_NORMS = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
_FUSED = re.compile(r"([lr])(\d+)_(\w+)")
_PLAIN = {"weight": "weight", "bias": "bias"}
_LAYOUTS: dict[str, tuple[int, ...]] = {"NWC": (0, 2, 1), "NHWC": (0, 3, 1, 2), "NDHWC": (0, 4, 1, 2, 3)}
"""Channels last: how the axes of a weight, which follow the layout's, are put in PyTorch's order."""


def layers_of(net: Any) -> list[Layer]:
    """Every block with arrays of its own, in the order of their parameters."""
    names = _names_of(net)
    places = {name: place for place, name in enumerate(names.values())}
    found = []
    for name, block in blocks_of(net).items():
        own = {role: one for role, one in block._reg_params.items() if id(one) in names}
        if own:
            found.append(_layer(name, block, own, names))
    return sorted(found, key=lambda layer: min(map(places.__getitem__, layer.arrays.values())))


def axes_of(net: Any) -> dict[str, tuple[int, ...]]:
    """By name of an array, in which order its axes are PyTorch's; of those alone that Gluon keeps in another."""
    names = _names_of(net)
    found: dict[str, tuple[int, ...]] = {}
    for block in blocks_of(net).values():
        if isinstance(block, _CONVOLUTION):
            axes = _LAYOUTS.get(block._kwargs["layout"])
            if axes is not None:
                found[names[id(block.weight)]] = axes
    return found


def load(net: Any, arrays: Mapping[str, Array]) -> None:
    """Fill a network's parameters from a checkpoint's.

    Raises:
        ConfigError: if one is missing, or has another shape.
    """
    targets = {name: held(parameter) for name, parameter in parameters_of(net).items()}
    wrong = [name for name, one in targets.items() if name not in arrays or arrays[name].shape != one.shape]
    if wrong:
        raise ConfigError(f"the checkpoint has no {', '.join(wrong)} of the shapes that the network has")
    overwrite(targets, {name: arrays[name] for name in targets})


def run(calls: Calls, data: Data, label: Data, *, train: bool, dtype: str = "float32") -> Trace:
    """Run samples through a network that is not compiled.

    Args:
        calls: the network and its loss.
        data: of some samples.
        label: theirs.
        train: whether in training mode, with gradients; `switch_off_dropout` first.
        dtype: in which it computes; with `float64` the network is cast, and cast back.

    Raises:
        ConfigError: if it cannot compute in that type.
    """
    stacked = [one for one in blocks_of(calls.net).values() if isinstance(one, _RECURRENT) and one._num_layers > 1]
    if stacked and dtype != "float32":  # which oneDNN does not have, and MXNet's own gradients are wrong below the last
        raise ConfigError(f"network: {type(stacked[0]).__name__} has no gradients of several layers in {dtype}")
    try:
        with _computing_in(calls.net, dtype):
            return _run(calls, data, label, train, dtype)
    except mx.base.MXNetError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(f"network: {type(calls.net).__name__} cannot compute in {dtype} ({reason})") from error


def update(learner: Learner, batch: GlobalBatch, lr: float, momentum: float | None) -> float:
    """One update of a learner; returns the mean loss of its global batch before it, added up in float64.

    The learner itself adds losses in float32, in which those of two runs are the same or differ by one or two units in
    the last place, and by nothing in between.
    """
    found, losses = [], Forward.losses

    def heard(forward: Forward, *given: Any, **named: Any) -> tuple[Any, Any, Any]:
        gave = losses(forward, *given, **named)
        found.append(gave[0].asnumpy().sum(dtype=np.float64))
        return gave

    with mock.patch.object(Forward, "losses", heard):
        loss = learner.update(batch, lr, momentum)
    return float(sum(found) / loss.weight) if loss.weight else float(loss)


def _run(calls: Calls, data: Data, label: Data, train: bool, dtype: str) -> Trace:
    net, ctx = calls.net, mx.cpu()
    parameters, layers = parameters_of(net), layers_of(net)
    statistics = [
        layer.arrays[role] for layer in layers for role in ("running_mean", "running_var") if role in layer.arrays
    ]
    before = {name: held(parameters[name]).asnumpy() for name in statistics} if train else {}
    with _recorded(net) as recorder:
        on_device = each_leaf(lambda one: _cast(one, dtype), copies_on_device(data, ctx))
        labels = each_leaf(lambda one: _cast(one, dtype), copies_on_device(calls.labels(label, "label"), ctx))
        with mx.autograd.record(train_mode=True) if train else mx.autograd.pause(train_mode=False):
            called = calls(on_device, labels)
            losses, loss = mean_of(called.losses)
        if train:
            loss.backward()
        mx.nd.waitall()
    gradients = {}
    if train:
        trained = {name: one for name, one in parameters.items() if one.grad_req != "null"}
        gradients = {name: _dense(one.grad()) for name, one in trained.items()}
    after = {name: held(parameters[name]).asnumpy() for name in before}
    at_rest = frozenset(name for name in before if np.array_equal(before[name], after[name]))
    predictions = [one.asnumpy() for one in _flat(called.prediction)]
    return Trace(
        recorder.calls, recorder.steps, predictions, losses.asnumpy(), float(loss.asscalar()), gradients, after, at_rest
    )


@contextmanager
def _computing_in(net: Any, dtype: str) -> Iterator[None]:
    """Cast a network for the time being; MXNet keeps what it casts in the network, so it is cast back."""
    if dtype == "float32":
        yield
        return
    net.cast(dtype)
    try:
        yield
    finally:
        net.cast("float32")


def _cast(array: Any, dtype: str) -> Any:
    return array.astype(dtype) if array.dtype == np.float32 and dtype != "float32" else array


def switch_off_dropout(net: Any) -> dict[str, float]:
    """Set the rate of every dropout to 0; returns what they were, by block."""
    found = {}
    for name, block in blocks_of(net).items():
        if isinstance(block, nn.Dropout):
            found[name], block._rate = float(block._rate), 0
        elif isinstance(block, _RECURRENT) and block._dropout:
            found[name], block._dropout = float(block._dropout), 0
    return {name: rate for name, rate in found.items() if rate}


def _names_of(net: Any) -> dict[int, str]:
    """The structural name of each parameter by its identity."""
    return {id(parameter): name for name, parameter in parameters_of(net).items()}


def _layer(name: str, block: Any, own: Mapping[str, Any], names: Mapping[int, str]) -> Layer:
    kind, roles, settings = _kind_of(block)
    if kind == OWN or set(own) - set(roles):
        kind, roles, settings = OWN, {role: str(number) for number, role in enumerate(own)}, {}
    arrays = {roles[role]: names[id(one)] for role, one in own.items()}
    shapes = {roles[role]: _shape(block, role, held(one).shape) for role, one in own.items()}
    constants, frozen = {}, set()
    for role, one in own.items():
        if one.grad_req == "null" and not roles[role].startswith("running_"):
            frozen.add(roles[role])
            values = held(one).asnumpy()
            ignored = role == "gamma" and isinstance(block, _BATCH_NORM) and block._kwargs["fix_gamma"]
            if ignored or np.ptp(values) == 0:  # the operator takes a gamma that is fixed for 1, whatever it holds
                constants[roles[role]] = 1.0 if ignored else float(values.flat[0])
    return Layer(name, kind, arrays, shapes, settings, constants, frozenset(frozen), type(block).__name__)


def _kind_of(block: Any) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The kind of a block, what PyTorch calls its arrays, and its settings."""
    if isinstance(block, nn.Dense):
        return DENSE, _PLAIN, {}
    if isinstance(block, _CONVOLUTION):
        return _convolution(block)
    if isinstance(block, _BATCH_NORM):
        numbers = block._kwargs
        settings = {"eps": numbers["eps"], "momentum": 1 - numbers["momentum"]}
        return "batch norm", _OF_NORMS, settings
    for cls, kind in ((nn.LayerNorm, "layer norm"), (nn.InstanceNorm, "instance norm"), (nn.GroupNorm, "group norm")):
        if isinstance(block, cls):
            numbers = block._kwargs
            groups = {"num_groups": numbers["num_groups"]} if kind == "group norm" else {}
            return kind, _OF_NORMS, {"eps": numbers["eps"], **groups}
    if isinstance(block, nn.Embedding):
        return "embedding", {"weight": "weight"}, {}
    if isinstance(block, nn.PReLU):
        return "prelu", {"alpha": "weight"}, {}
    if isinstance(block, _RECURRENT):
        return _recurrent(block)
    for cls, kind in _CELLS.items():
        if type(block) is cls:
            activation = {"nonlinearity": block._activation} if cls is rnn.RNNCell else {}
            return kind, _OF_CELLS, activation
    return OWN, {}, {}


def _convolution(block: Any) -> tuple[str, dict[str, str], dict[str, Any]]:
    numbers = block._kwargs
    settings = {
        "stride": tuple(numbers["stride"]),
        "padding": tuple(numbers["pad"]),
        "dilation": tuple(numbers["dilate"]),
        "groups": numbers["num_group"],
    }
    if numbers["num_group"] > 1:
        settings["is_grouped"] = True
    if block._op_name == "Deconvolution":
        settings["output_padding"] = tuple(numbers["adj"])
        return "transposed conv", _PLAIN, settings
    return "conv", _PLAIN, settings


def _recurrent(block: Any) -> tuple[str, dict[str, str], dict[str, Any]]:
    roles = {}
    for role in block._reg_params:
        found = _FUSED.fullmatch(role)
        assert found is not None, "Gluon's recurrent layers name all their arrays so"
        roles[role] = f"{_OF_CELLS[found[3]]}_l{found[2]}{'_reverse' if found[1] == 'r' else ''}"
    settings = {
        "hidden_size": block._hidden_size,
        "num_layers": block._num_layers,
        "bidirectional": block._dir == 2,
        "proj_size": block._projection_size or 0,
    }
    kind, _, activation = block._mode.partition("_")
    return kind, roles, {**settings, "nonlinearity": activation} if activation else settings


def _shape(block: Any, role: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    axes = _LAYOUTS.get(block._kwargs["layout"]) if role == "weight" and isinstance(block, _CONVOLUTION) else None
    return tuple(shape) if axes is None else tuple(shape[axis] for axis in axes)


@contextmanager
def _recorded(net: Any) -> Iterator[Recorder]:
    """Record every call of blocks with arrays of their own, and the order of all blocks without children."""
    recorder, handles = Recorder(), []
    own = {layer.name for layer in layers_of(net)}
    for name, block in blocks_of(net).items():
        if name in own:
            begin = block.register_forward_pre_hook(lambda _, given, name=name: recorder.begin(name, _first(given)))
            handles += [begin, block.register_forward_hook(lambda _, given, gave: recorder.end(_first(gave)))]
            if isinstance(getattr(block, "act", None), mx.gluon.Block):
                middle = block.act.register_forward_pre_hook(lambda _, x: recorder.before_activation(_first(x)))
                handles.append(middle)
        if not block._children and not isinstance(block, mx.gluon.loss.Loss):
            kind = block._act_type if isinstance(block, nn.Activation) else type(block).__name__
            step = f"{name} ({kind})"
            handles.append(block.register_forward_pre_hook(lambda *_, step=step: recorder.steps.append(step)))
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.detach()


def _first(arrays: Any) -> Array:
    """The first array of what a block takes or returns, on the host."""
    for one in _flat(arrays):
        return np.array(one.asnumpy())
    return NOTHING


def _flat(arrays: Any) -> Iterator[Any]:
    if isinstance(arrays, mx.nd.NDArray):
        yield arrays
    elif isinstance(arrays, list | tuple):
        for one in arrays:
            yield from _flat(one)
    elif isinstance(arrays, dict):
        for one in arrays.values():
            yield from _flat(one)


def _dense(gradient: Any) -> Array:
    return np.array(gradient.tostype("default").asnumpy())


def factors_of(net: Any) -> dict[str, tuple[float, float]]:
    """The factors on learning rate and weight decay of every trained array, in the order of the optimizer's index."""
    trained = {name: one for name, one in parameters_of(net).items() if one.grad_req != "null"}
    return {name: (float(one.lr_mult), float(one.wd_mult)) for name, one in trained.items()}
