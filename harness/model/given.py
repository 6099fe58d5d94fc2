"""What a program builds itself and brings: its network, loss and optimizer, checked before anything starts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np

from harness.config.sections import HAVE_BETA1, HAVE_MOMENTUM, MOMENTUM_CORRECTED
from harness.data import leaves_of
from harness.data.leaves import Data
from harness.errors import ConfigError
from harness.model.build import describe, explained
from harness.model.calls import Calls, refuse_prediction
from harness.model.carried import FirstState
from harness.model.inputs import settle
from harness.model.operators import refuse_blocks_across_devices
from harness.model.optimizer_numbers import refuse_numbers, refuse_what_cannot_update
from harness.model.optimizers import REFUSED, build_optimizer, momentum_name
from harness.model.parameters import held, parameters_of
from harness.model.soft_labels import picks_classes, unsmoothed
from harness.named import kind_of
from harness.parsing import plain_numbers

# of an optimizer's attributes: what the harness sets, what depends on the environment, and what changes with updates
_NOT_COMPARED = ("lr", "lr_mult", "wd_mult", "rescale_grad", "num_update", "aggregate_num", "allow_np_array")


def devices_of(net: object) -> list[Any]:
    """The devices that a network was initialised on, which is where it is trained.

    Raises:
        ConfigError: if it is not a network, or not initialised, or not all of it on the same devices.
    """
    if not isinstance(net, mx.gluon.Block):
        raise ConfigError(f"net: found {kind_of(net)}; give a gluon.Block, such as nn.HybridSequential()")
    parameters = parameters_of(net)
    if not parameters:
        raise ConfigError(f"net: {type(net).__name__} has no parameters, so there is nothing to train; add layers")
    missing = [name for name, one in parameters.items() if one._data is None and not one._deferred_init]
    if missing:
        raise ConfigError(
            f"net: {', '.join(missing[:5])} {'has' if len(missing) == 1 else 'have'} no value yet; call "
            "net.initialize(mx.init.Xavier()), or load weights, before the job begins"
        )
    contexts = {name: tuple(one.list_ctx()) for name, one in parameters.items()}
    first, devices = next(iter(contexts.items()))
    other = next((name for name, one in contexts.items() if one != devices), None)
    if other is not None:
        raise ConfigError(
            f"net: {first} is on {_names(devices)}, {other} on {_names(contexts[other])}; initialise the whole network "
            "on the same devices: net.collect_params().reset_ctx(ctx)"
        )
    return list(devices)


def settle_shapes(calls: Calls, devices: Sequence[Any], data: Data, label: Data) -> None:
    """End deferred initialisation now, so that what draws random numbers later cannot change the first weights.

    Args:
        calls: network and loss of the job.
        devices: of the network.
        data: a few samples.
        label: theirs.

    Raises:
        ConfigError: if the network does not take such samples.
    """
    refuse_blocks_across_devices(calls.net, calls.loss)
    name = type(calls.net).__name__
    with explained(f"net: {name} does not take {described(data)}"):
        for ctx in devices:
            refuse_prediction(settle(calls, data, label, ctx), f"net: {name}")


def described(data: Data, label: Data | None = None) -> str:
    """Samples, and labels, as messages of a program's data show them: types, shapes, and what to do about integers."""
    text = describe(data, "data") if label is None else f"{describe(data, 'data')} with {describe(label, 'labels')}"
    if any(leaf.dtype.kind in "iu" for leaf in leaves_of(data)):
        text += " (integers are left as they are; data.astype('float32') makes floats of them)"
    return text


def given_loss(loss: object) -> Any:
    """A loss as it was given.

    Raises:
        ConfigError: if it cannot be called, or is a class.
    """
    if isinstance(loss, type) or not callable(loss):
        found = f"the class {loss.__name__}" if isinstance(loss, type) else kind_of(loss)
        raise ConfigError(
            f"loss: found {found}; give an object that maps (prediction, label) to one value a sample, such as "
            "gluon.loss.SoftmaxCrossEntropyLoss()"
        )
    return loss


def given_forward(forward: object) -> Any:
    """A function that calls network and loss, as it was given; `None` for none.

    Raises:
        ConfigError: if it cannot be called.
    """
    if forward is not None and not callable(forward):
        raise ConfigError(
            f"forward: found {kind_of(forward)}; give a function(net, loss, data, label) that returns (prediction, "
            "losses)"
        )
    return forward


def given_state(state: object) -> FirstState | None:
    """A function that gives the first state of a shard, as it was given; `None` for none.

    Raises:
        ConfigError: if it cannot be called.
    """
    if state is None:
        return None
    if not callable(state):
        raise ConfigError(
            f"state: found {kind_of(state)}; give a function of a number of rows that returns the first state of a "
            "shard, such as lambda rows: net.begin_state(rows)"
        )
    return FirstState(state)


def given_optimizer(optimizer: object, net: Any) -> Any:
    """The optimizer: the object that was given, or one built by name.

    Args:
        optimizer: an `mx.optimizer.Optimizer`; a name (`"adam"`); or a name with its parameters
            (`{"sgd": {"momentum": 0.9}}`).
        net: whose parameters it steps.

    Raises:
        ConfigError: if it is none of these, is not supported, has made updates before, or sets the learning rate.
    """
    if isinstance(optimizer, str):
        return _built(optimizer, {}, net)
    if isinstance(optimizer, Mapping) and len(optimizer) == 1:
        ((name, params),) = optimizer.items()
        if isinstance(name, str) and isinstance(params, Mapping):
            return _built(name, params, net)
    if not isinstance(optimizer, mx.optimizer.Optimizer):
        raise ConfigError(
            f"optimizer: found {kind_of(optimizer)}; give an mx.optimizer.Optimizer (mx.optimizer.SGD(momentum=0.9)), "
            'a name ("adam"), or a name with its parameters ({"sgd": {"momentum": 0.9}})'
        )
    kind = type(optimizer).__name__
    if kind.lower() in REFUSED:
        raise ConfigError(f"optimizer: {kind} is not supported: {REFUSED[kind.lower()]}")
    if optimizer.lr_scheduler is not None:
        raise ConfigError(
            f"optimizer: {kind} has a lr_scheduler; give the scheduler to the job instead (lr=), which then sets the "
            "rate of every iteration"
        )
    if optimizer.num_update > optimizer.begin_num_update:
        raise ConfigError(
            f"optimizer: this {kind} has made {optimizer.num_update} updates already, which its history would bring "
            "along; make a new one for each job"
        )
    if kind == "LARS":
        raise ConfigError(
            "optimizer: LARS as MXNet builds it corrects the momentum of its first parameters alone; give it by name, "
            'and the harness does the rest: optimizer={"lars": {"momentum": 0.9}}'
        )
    refuse_numbers(optimizer, "optimizer")
    refuse_what_cannot_update(optimizer, "optimizer")
    return optimizer


def refuse_idle_momentum(optimizer: Any, correction: bool | None, has_schedule: bool) -> None:
    """Refuse settings of the momentum that an optimizer does not follow.

    Args:
        optimizer: of the job.
        correction: `lr.momentum_correction`.
        has_schedule: whether there is a schedule of the momentum.

    Raises:
        ConfigError: naming the setting.
    """
    name, momentum = type(optimizer).__name__, getattr(optimizer, "momentum", None)
    if correction is not None and not (name.lower() in MOMENTUM_CORRECTED and momentum):
        raise ConfigError(
            f"lr.momentum_correction: has no effect on this {name}; it is for {', '.join(MOMENTUM_CORRECTED)} with a "
            "momentum above 0; remove it"
        )
    if has_schedule and not ((name.lower() in HAVE_MOMENTUM and momentum) or momentum_name(optimizer) == "beta1"):
        raise ConfigError(
            f"lr.momentum: has no effect on this {name}; it needs one of {', '.join(HAVE_MOMENTUM)} with a momentum "
            f"above 0, or one of {', '.join(HAVE_BETA1)}, whose beta1 it is"
        )


def describe_optimizer(optimizer: Any, net: Any) -> dict[str, Any]:
    """What ranks compare of an optimizer, and a job with the checkpoint that it resumes from, before its first update.

    Args:
        optimizer: an `mx.optimizer.Optimizer`.
        net: whose parameters it steps.

    Returns:
        Its class; every number, flag or text that it was built with, but for those that the harness sets; and the
        factors of single parameters that are not 1, all as JSON can hold them.
    """
    own = {key: value for key, value in vars(optimizer).items() if key not in _NOT_COMPARED and key[0] != "_"}
    plain = {key: plain_numbers(value) for key, value in own.items()}
    numbers = {
        key: repr(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in plain.items()
        if isinstance(value, bool | int | float | str | None)
    }
    parameters = parameters_of(net)
    factors = {
        kind: {
            **{str(key): float(factor) for key, factor in getattr(optimizer, kind, {}).items() if factor != 1},
            **{name: float(getattr(one, kind)) for name, one in parameters.items() if getattr(one, kind) != 1},
        }
        for kind in ("lr_mult", "wd_mult")
    }
    return {"class": type(optimizer).__name__, **numbers, **factors}


def describe_loss(calls: Calls) -> dict[str, Any]:
    """What ranks compare of a loss, and a job with the checkpoint that it resumes from.

    Args:
        calls: network and loss of the job; the network may hold parameters of the loss.

    Returns:
        Its class or name, every number and flag that it was given, and a digest of the parameters that it has alone:
        they are neither trained nor sent to other ranks nor saved. And the function that calls it, where there is one.
    """
    net, loss = calls.net, calls.loss
    named = (
        {} if calls.forward is None else {"forward": getattr(calls.forward, "__name__", type(calls.forward).__name__)}
    )
    if calls.first_state is not None:
        named["state"] = calls.first_state.name
    kind = getattr(loss, "__name__", type(loss).__name__)
    if not isinstance(loss, mx.gluon.Block):
        return {"class": kind, **named}
    own = {key: value for key, value in vars(loss).items() if key not in vars(mx.gluon.HybridBlock())}
    plain = {key.strip("_"): plain_numbers(value) for key, value in own.items()}
    numbers = {key: repr(value) for key, value in plain.items() if isinstance(value, bool | int | float)}
    values = {name: held(one, one.list_ctx()[0]).asnumpy() for name, one in _own_parameters(loss, net).items()}
    digest = hashlib.sha256(b"".join(name.encode() + value.tobytes() for name, value in values.items()))
    return {"class": kind, **named, **numbers, **({"parameters": digest.hexdigest()[:16]} if values else {})}


def remarks_on_loss(loss: Any, net: Any) -> list[str]:
    """That parameters of a loss are not trained, where they look as if they were to be."""
    own = _own_parameters(loss, net) if isinstance(loss, mx.gluon.Block) else {}
    found = [name for name, one in own.items() if one.grad_req != "null"]
    if not found:
        return []
    return [
        f"loss: {type(loss).__name__} has parameters of its own ({', '.join(found[:5])}), which stay as they are: the "
        "optimizer trains those of the network alone. Make them part of the network, or set their grad_req to 'null', "
        "which says that this is meant"
    ]


def _own_parameters(loss: Any, net: Any) -> dict[str, Any]:
    """The parameters of a loss that the network does not have, if they hold anything."""
    shared = {id(one) for one in parameters_of(net).values()}
    return {name: one for name, one in parameters_of(loss).items() if id(one) not in shared and one._data is not None}


def classes_of(calls: Calls, prediction: Any) -> int | None:
    """How many classes integer labels may name; `None` where a loss does not pick by them, or nobody can tell.

    Args:
        calls: network and loss of the job.
        prediction: of a few samples, `(n, ...)`.
    """
    if not picks_classes(calls.loss) or calls.forward is not None or not isinstance(prediction, np.ndarray):
        return None
    axis = unsmoothed(calls.loss)._axis
    return prediction.shape[axis] if -prediction.ndim <= axis < prediction.ndim else None


def _built(name: str, params: Mapping[str, Any], net: Any) -> Any:
    trainable = [name for name, one in parameters_of(net).items() if one.grad_req != "null"]
    return build_optimizer(name, plain_numbers(params), param_names=dict(enumerate(trainable)), key="optimizer")


def _names(devices: tuple[Any, ...]) -> str:
    return ", ".join(map(str, devices))
