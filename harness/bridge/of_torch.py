"""The PyTorch side: what layers a module has, one run of samples through it, and its arrays written and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.bridge.layers import DENSE, NOTHING, OWN, Array, Call, Layer, Recorder, Trace, mean_of
from harness.bridge.mapping import rows_of
from harness.bridge.torch_calls import TorchCalls, tensors_of
from harness.data.leaves import Data

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_CELLS = {nn.LSTMCell: "lstm cell", nn.GRUCell: "gru cell", nn.RNNCell: "rnn cell"}
_COUNTER = "num_batches_tracked"


def layers_of(module: nn.Module) -> list[Layer]:
    """Every module with arrays of its own, in the order in which it was registered.

    An attention's one matrix for query, key and value is three dense layers, each of some rows of it.
    """
    names = names_of(module)
    found: list[Layer] = []
    inside: set[int] = set()
    for name, one in module.named_modules():
        if isinstance(one, nn.MultiheadAttention):
            inside.add(id(one.out_proj))
            found += _attention(name, one, names)
            continue
        own = {role: names[id(array)] for role, array in _own_arrays(one) if not role.endswith(_COUNTER)}
        if own and id(one) not in inside:
            found.append(_layer(name, one, own))
    return found


def names_of(module: nn.Module) -> dict[int, str]:
    """The name of each parameter and buffer by its identity; of one that is used twice the first."""
    found: dict[int, str] = {}
    for name, array in [*module.named_parameters(), *module.named_buffers()]:
        found.setdefault(id(array), name)
    return found


def arrays_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and running statistics by name; one that is used twice appears once, counters of batches do not."""
    everything = [*module.named_parameters(), *module.named_buffers()]
    return {name: one for name, one in everything if not name.endswith(_COUNTER)}


def load(module: nn.Module, arrays: Mapping[str, Array], updates: int) -> None:
    """Fill a module's arrays.

    Args:
        module: the network.
        arrays: by name, or `name[0:64]` for some of its rows.
        updates: how many there have been, for counters of batches.
    """
    targets = arrays_of(module)
    with torch.no_grad():
        for name, array in arrays.items():
            rows_of(targets, name).copy_(torch.from_numpy(np.array(array)))
        for name, buffer in module.named_buffers():
            if name.endswith(_COUNTER):
                buffer.fill_(updates)


def run(calls: TorchCalls, data: Data, label: Data, *, train: bool, dtype: str = "float32") -> Trace:
    """Run samples through a module, as `of_gluon.run` does through a network.

    Running variances are those with n for n - 1, as MXNet has them.
    """
    module = calls.module
    module.train(train)
    module.zero_grad(set_to_none=True)
    module.to(getattr(torch, dtype))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # which calls no layer by itself
    gradients, statistics = {}, {}
    try:
        with _recorded(module) as recorder, biased_variances(module), torch.set_grad_enabled(train):
            prediction, losses = calls(data, label, getattr(torch, dtype))
            losses, loss = mean_of(losses)
            if train:
                loss.backward()
        if train:
            trained = {name: one for name, one in module.named_parameters() if one.requires_grad}
            gradients = {name: _gradient(one) for name, one in trained.items()}
            statistics = {name: one.numpy().copy() for name, one in arrays_of(module).items() if "running_" in name}
    finally:
        module.to(torch.float32)
        torch.backends.mha.set_fastpath_enabled(fast_path)
    predictions = [one.detach().numpy().copy() for one in tensors_of(prediction)]
    return Trace(
        recorder.calls, recorder.steps, predictions, losses.detach().numpy().copy(), loss.item(), gradients, statistics
    )


@contextmanager
def biased_variances(module: nn.Module) -> Iterator[None]:
    """Let batch norms put the variance over n numbers into `running_var`, as MXNet does, and not n - 1 of them."""
    before: dict[int, torch.Tensor] = {}

    def remember(norm: Any, given: Any) -> None:
        if norm.training and norm.track_running_stats:
            before[id(norm)] = norm.running_var.clone()

    def correct(norm: Any, given: Any, gave: Any) -> None:
        old = before.pop(id(norm), None)
        if old is not None:
            count = given[0].numel() // given[0].shape[1]
            kept = (1 - norm.momentum) * old
            # through `data`, because the backward pass wants nobody to have written to the statistics
            norm.running_var.data.copy_(kept + (norm.running_var.data - kept) * (count - 1) / count)

    norms = [one for one in module.modules() if isinstance(one, _BATCH_NORMS)]
    handles = [one.register_forward_pre_hook(remember) for one in norms]
    handles += [one.register_forward_hook(correct) for one in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def switch_off_dropout(module: nn.Module) -> dict[str, float]:
    """Set the rate of every dropout to 0; returns what they were, by module."""
    found = {}
    for name, one in module.named_modules():
        if isinstance(one, _DROPOUTS):
            found[name], one.p = float(one.p), 0.0
        elif isinstance(one, nn.RNNBase | nn.MultiheadAttention):
            found[name], one.dropout = float(one.dropout), 0.0
    return {name: rate for name, rate in found.items() if rate}


def _own_arrays(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _layer(name: str, module: nn.Module, own: Mapping[str, str]) -> Layer:
    kind, settings = _kind_of(module)
    roles = {role: str(number) if kind == OWN else role for number, role in enumerate(own)}
    shapes = {roles[role]: tuple(getattr(module, role).shape) for role in own}
    frozen = frozenset(roles[role] for role in own if not getattr(module, role).requires_grad)
    return Layer(
        name, kind, {roles[role]: own[role] for role in own}, shapes, settings, {}, frozen, type(module).__name__
    )


def _kind_of(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """The kind of a module, and its settings."""
    if isinstance(module, nn.Linear):
        return DENSE, {}
    if isinstance(module, _CONVOLUTIONS + _TRANSPOSED):
        return _convolution(module)
    if isinstance(module, _BATCH_NORMS):
        return "batch norm", {"eps": module.eps, "momentum": module.momentum}
    if isinstance(module, nn.LayerNorm):
        return "layer norm", {"eps": module.eps}
    if isinstance(module, _INSTANCE_NORMS):
        return "instance norm", {"eps": module.eps}
    if isinstance(module, nn.GroupNorm):
        return "group norm", {"eps": module.eps, "num_groups": module.num_groups}
    if isinstance(module, nn.Embedding):
        return "embedding", {}
    if isinstance(module, nn.PReLU):
        return "prelu", {}
    if isinstance(module, nn.RNNBase):
        return _recurrent(module)
    for cls, kind in _CELLS.items():
        if type(module) is cls:
            return kind, {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNNCell) else {}
    return OWN, {}


def _convolution(module: Any) -> tuple[str, dict[str, Any]]:
    settings = {
        "stride": tuple(module.stride),
        "padding": tuple(module.padding) if not isinstance(module.padding, str) else module.padding,
        "dilation": tuple(module.dilation),
        "groups": module.groups,
    }
    if module.groups > 1:
        settings["is_grouped"] = True
    if isinstance(module, _TRANSPOSED):
        return "transposed conv", {**settings, "output_padding": tuple(module.output_padding)}
    return "conv", settings


def _recurrent(module: Any) -> tuple[str, dict[str, Any]]:
    names = ("hidden_size", "num_layers", "bidirectional", "proj_size")
    settings = {name: getattr(module, name) for name in names}
    kind, _, activation = module.mode.lower().partition("_")
    return kind, {**settings, "nonlinearity": activation} if activation else settings


def _attention(name: str, module: nn.MultiheadAttention, names: Mapping[int, str]) -> Iterator[Layer]:
    """Query, key, value and output as four dense layers."""
    width = module.embed_dim
    for number, who in enumerate(("query", "key", "value")):
        arrays: dict[str, str] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        rows = f"[{number * width}:{(number + 1) * width}]"
        if module.in_proj_weight is not None:
            arrays["weight"], shapes["weight"] = names[id(module.in_proj_weight)] + rows, (width, width)
        else:
            own = getattr(module, f"{who[0]}_proj_weight")
            arrays["weight"], shapes["weight"] = names[id(own)], tuple(own.shape)
        if module.in_proj_bias is not None:
            arrays["bias"], shapes["bias"] = names[id(module.in_proj_bias)] + rows, (width,)
        yield Layer(f"{name}.{who}", DENSE, arrays, shapes, own_class="a part of MultiheadAttention")
    own = {role: names[id(array)] for role, array in _own_arrays(module.out_proj)}
    yield _layer(f"{name}.out_proj", module.out_proj, own)


@contextmanager
def _recorded(module: nn.Module) -> Iterator[Recorder]:
    """Record every call of modules with arrays of their own, and the order of all modules without children."""
    recorder, handles = Recorder(), []
    own = {layer.name for layer in layers_of(module)}

    def attend(name: str, given: Any) -> None:  # its parts are called by nobody, and what they give is known to nobody
        for who, array in zip(("query", "key", "value"), given, strict=False):
            recorder.calls.append(Call(f"{name}.{who}", _first(array), NOTHING))

    def attended(name: str, gave: Any) -> None:
        recorder.calls.append(Call(f"{name}.out_proj", NOTHING, _first(gave)))

    for name, one in module.named_modules():
        if isinstance(one, nn.MultiheadAttention):
            before = one.register_forward_pre_hook(
                lambda _, given, named, name=name: attend(name, [*given, *named.values()]), with_kwargs=True
            )
            handles += [before, one.register_forward_hook(lambda _, given, gave, name=name: attended(name, gave))]
        elif name in own:
            begin = one.register_forward_pre_hook(lambda _, given, name=name: recorder.begin(name, _first(given)))
            handles += [begin, one.register_forward_hook(lambda _, given, gave: recorder.end(_first(gave)))]
        if not any(True for _ in one.children()):
            step = f"{name} ({type(one).__name__})"
            handles.append(one.register_forward_pre_hook(lambda *_, step=step: recorder.steps.append(step)))
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


def _first(arrays: Any) -> Array:
    """The first array of what a module takes or returns."""
    for one in tensors_of(arrays):
        return np.array(one.detach().numpy())
    return NOTHING


def _gradient(parameter: torch.Tensor) -> Array:
    if parameter.grad is None:
        return np.zeros(tuple(parameter.shape), np.float32)
    gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
    return np.array(gradient.numpy())
