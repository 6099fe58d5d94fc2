"""The arrays of Gluon's parameters themselves, whatever their metadata say or their `data()` returns.

A parameter that was imported with a graph has no shape though its array is there, and a `Parameter` of a user's own may
return another array at every `data()` (one with dropout, as GluonNLP's WeightDropParameter). What is trained, summed,
saved and compared is the array that the parameter holds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import mxnet as mx
import numpy as np

from harness.errors import ConfigError


def held(parameter: Any, ctx: Any = None) -> Any:
    """The array that a parameter holds on a device; without `ctx` it must live on one."""
    return mx.gluon.Parameter.data(parameter, ctx)


def list_held(parameter: Any) -> list[Any]:
    """The arrays that a parameter holds, one for each device."""
    return list(mx.gluon.Parameter.list_data(parameter))


def form_of(parameter: Any) -> str:
    """Its dtype, shape, `grad_req` and kind of gradient in words that ranks compare."""
    array = list_held(parameter)[0]
    rows = " by rows" if has_rows(parameter) else ""
    return f"{np.dtype(array.dtype)} {tuple(array.shape)} {parameter.grad_req}{rows}"


def has_rows(parameter: Any) -> bool:
    """Whether its gradient is rows of it, as `nn.Embedding(sparse_grad=True)` has it, and not an array of its shape."""
    return bool(parameter._grad_stype == "row_sparse")


def is_computed(parameter: Any) -> bool:
    """Whether `data()` is code of a subclass, which no graph shows."""
    return type(parameter).data not in (mx.gluon.Parameter.data, mx.gluon.Constant.data)


def parameters_of(net: Any) -> dict[str, Any]:
    """A network's parameters by structural name; one that two blocks share appears once, under its first name."""
    seen: set[int] = set()
    unique = {}
    for name, parameter in net._collect_params_with_prefix().items():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            unique[name] = parameter
    return unique


def blocks_of(net: Any, path: str = "") -> dict[str, Any]:
    """Every block of a network by structural name; the network itself is `""`. One that is used twice appears once."""
    found: dict[str, Any] = {}
    pending, seen = [(path, net)], set()
    while pending:
        name, block = pending.pop(0)
        if id(block) in seen:
            continue
        seen.add(id(block))
        found[name] = block
        children = getattr(block, "_children", {})
        pending += [(f"{name}.{key}" if name else key, child) for key, child in children.items()]
    return found


def refuse_unreducible(parameters: Mapping[str, Any], num_devices: int = 1) -> None:
    """Refuse what reducing over ranks would corrupt or silently change.

    Raises:
        ConfigError: for more than one device, 'add' gradients, or another dtype than
        float32.
    """
    problems = []
    for name, parameter in parameters.items():
        if len(parameter.list_ctx()) != num_devices:
            problems.append(
                f"{name} lives on {len(parameter.list_ctx())} devices, but {num_devices} would be reduced; initialise "
                "it on the devices of this process alone (devices)"
            )
        if parameter.grad_req == "add":
            problems.append(f"{name} has grad_req 'add'; set 'write', accumulation is what batch.shards does")
        dtype = np.dtype(parameter.dtype if parameter._data is None else list_held(parameter)[0].dtype)
        if dtype != np.float32:
            problems.append(f"{name} is {dtype}; mixed precision is not supported, use float32")
    if problems:
        raise ConfigError("\n".join(f"network: {problem}" for problem in problems))


def refuse_sparse(parameters: Mapping[str, Any]) -> None:
    """Refuse weights that are sparse themselves, before anything asks for them.

    Raises:
        ConfigError: naming them.
    """
    found = [
        name
        for name, one in parameters.items()
        if one._stype != "default" or one._grad_stype not in ("default", "row_sparse")
    ]
    if found:
        raise ConfigError(
            f"network: {', '.join(found)} is sparse itself, which needs a kvstore; use a dense weight, whose gradient "
            "may be rows of it (nn.Embedding(sparse_grad=True))"
        )


def refuse_untrained_loss(loss: Any) -> None:
    """Refuse a loss with parameters that nobody has initialised; MXNet's own message would have them trained.

    Raises:
        ConfigError: naming them.
    """
    if not isinstance(loss, mx.gluon.Block):
        return
    found = [name for name, one in parameters_of(loss).items() if one._data is None and not one._deferred_init]
    if found:
        raise ConfigError(
            f"network.loss: {type(loss).__name__} has parameters that are not initialised: {', '.join(found)}. The "
            "optimizer trains the parameters of the network alone: make them part of it, or, if they are constants, "
            "initialise the loss"
        )


def seed_python(seed: int) -> None:
    """Seed NumPy's and Python's global generators, from which code that no graph shows may draw."""
    np.random.seed(seed)
    random.seed(seed)
