"""From the configuration to what is trained: network, loss, optimizer and devices of a rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from harness.config import RunConfig
from harness.data import count_of, described_shapes, each_leaf, leaves_of
from harness.data.leaves import Data
from harness.errors import ConfigError, HarnessError
from harness.model.calls import Calls, ForwardFunction, refuse_prediction
from harness.model.carried import FirstState, StateFunction
from harness.model.freezing import freeze
from harness.model.initialise import initialise, naming_unsuited, seeded
from harness.model.inputs import check_losses, copies_on_device, seed_of, settle
from harness.model.networks import build_initializer, build_loss, build_network
from harness.model.operators import refuse_blocks_across_devices
from harness.model.optimizers import build_optimizer, set_multipliers, traits_of
from harness.model.parameters import parameters_of, refuse_unreducible, refuse_untrained_loss
from harness.model.soft_labels import unsmoothed
from harness.named import load_function
from harness.shipped import install_command


class Model(NamedTuple):
    """What a rank trains.

    Attributes:
        net: initialised, its shapes settled.
        loss: maps (prediction, label) to one value a sample.
        forward: calls both, where the configuration names a function for that.
        state: gives the first state of a shard, where the network carries state.
        optimizer: with the multipliers of its parameters.
        contexts: the devices.
        frozen: parameters whose running statistics stay as they are, by structural name.
    """

    net: Any
    loss: Any
    forward: ForwardFunction | None
    state: StateFunction | None
    optimizer: Any
    contexts: list[Any]
    frozen: list[str]


def devices_of_rank(config: RunConfig, local_rank: int) -> list[Any]:
    """The one place that decides where a rank computes: on the devices listed, its own GPU of the host, or the CPU.

    Raises:
        ConfigError: if a GPU is asked for that this MXNet does not see.
    """
    num_gpus = mx.context.num_gpus()
    if config.devices is not None:
        wanted = [name.rstrip(")").split("(") for name in config.devices]
    elif config.device == "cpu" or (config.device == "auto" and num_gpus == 0):
        wanted = [["cpu", "0"]]
    else:
        wanted = [["gpu", str(local_rank)]]
    contexts = [mx.Context(kind, int(number)) for kind, number in wanted]
    missing = [ctx for ctx in contexts if ctx.device_type == "gpu" and ctx.device_id >= num_gpus]
    if missing:
        asked = f"devices: {', '.join(map(str, missing))}"
        if config.devices is None:
            asked = f"device: local rank {local_rank} needs {missing[0]}"
        raise ConfigError(
            f"{asked}, but this MXNet sees {num_gpus} GPUs; start fewer ranks a host, choose other devices, or install "
            f"a CUDA build ({install_command('mxnet-cu117')})"
        )
    return contexts


def build_model(config: RunConfig, local_rank: int, samples: tuple[Data, Data], classes: int | None) -> Model:
    """Build what a configuration describes, and try it on a few samples.

    Args:
        config: the configuration.
        local_rank: this rank's number on its host, which decides its GPU.
        samples: one or a few samples and their labels.
        classes: the data's number of classes; `None` for regression.

    Raises:
        ConfigError: for names and parameters that do not exist or do not fit the data.
    """
    try:
        contexts = devices_of_rank(config, local_rank)
        state = config.network.state
        first_state = None if state is None else load_function(state, "network.state")
        calls = _build_network(config, samples, classes, contexts, first_state)
        net = calls.net
        parameters = parameters_of(net)
        refuse_unreducible(parameters, len(contexts))
        frozen = freeze(net, parameters, config.init.freeze)
        trainable = {name: p for name, p in parameters.items() if p.grad_req != "null"}
        section = config.optimizer
        optimizer = build_optimizer(
            section.name, section.params, clip_value=section.clip_value, param_names=dict(enumerate(trainable))
        )
        set_multipliers(
            trainable,
            lr_mult=section.lr_mult,
            wd_mult=section.wd_mult,
            decay_bias_and_norm=section.decay_bias_and_norm,
            layer_decay=section.layer_decay,
            frozen=frozen,
        )
        traits_of(optimizer, list(trainable.values()), f"optimizer.name: {section.name!r}")
    except ConfigError as error:
        error.found_in(config.source)
        raise
    return Model(net, calls.loss, calls.forward, first_state, optimizer, contexts, frozen)


def _build_network(
    config: RunConfig,
    samples: tuple[Data, Data],
    classes: int | None,
    contexts: list[Any],
    state: StateFunction | None,
) -> Calls:
    section, (data, label) = config.network, samples
    first = FirstState.of(state)
    # another seed than below: what a network draws for itself must not come again in its other parameters
    net = seeded(seed_of(config.seed, 0, -1), lambda: build_network(section.name, section.params, classes))
    initializer = build_initializer(section.initializer)
    refuse_blocks_across_devices(net)
    # What a function calls both with is its own affair, so the loss is there before the first forward; otherwise the
    # prediction's shape tells where classes lie.
    calls = Calls(net, first_state=first)
    if section.forward is not None:
        loss = build_loss(section.loss, section.loss_params, smoothing=section.label_smoothing)
        calls = Calls(net, loss, load_function(section.forward, "network.forward"), first)
    calls.refuse_data(data, label)
    with explained(f"{_who(config)} with initializer {section.initializer!r} does not take {describe(data)}"):
        initialise(net, initializer, contexts, seed_of(config.seed, 0, 0))
        with naming_unsuited(net, initializer):
            prediction = settle(calls, data, label, contexts[0])
    refuse_prediction(prediction, _who(config))
    if calls.forward is None:
        calls = Calls(net, _build_loss(config, prediction, label, classes), first_state=first)
    refuse_untrained_loss(calls.loss)
    _try_loss(config, calls, prediction, samples, contexts[0])
    return calls


def _who(config: RunConfig) -> str:
    section = config.network
    return f"network: {section.name!r}" + ("" if section.forward is None else f" by {section.forward!r}")


def _build_loss(config: RunConfig, prediction: Any, label: Data, classes: int | None) -> Any:
    """The loss; one by name compares one array with one array of labels."""
    section = config.network
    if ":" in section.loss:
        return build_loss(section.loss, section.loss_params)
    if not isinstance(prediction, mx.nd.NDArray) or not isinstance(label, np.ndarray):
        raise ConfigError(
            f"network.loss: {section.loss!r} compares one array of predictions with one of labels; {section.name!r} "
            f"gives {described_shapes(prediction)} for labels {described_shapes(label)}; use a loss of your own "
            "(network.loss: module:function), or a function that calls both (network.forward), or join outputs "
            "(F.concat)"
        )
    params = section.loss_params
    if section.loss == "softmax_cross_entropy" and label.dtype.kind == "f" and label.shape == prediction.shape:
        params = {"sparse_label": False, **params}  # they are shares of classes
    loss = build_loss(section.loss, params, prediction.shape, label.shape, section.label_smoothing)
    axis = getattr(unsmoothed(loss), "_axis", -1)
    if (
        section.loss == "softmax_cross_entropy"
        and classes is not None
        and -prediction.ndim <= axis < prediction.ndim
        and prediction.shape[axis] < classes
    ):
        raise ConfigError(
            f"network: {section.name!r} gives {prediction.shape[1:]} for a sample, but the data have {classes} "
            "classes; "
            f"set network.params.classes: {classes}, or leave it out"
        )
    return loss


def _try_loss(config: RunConfig, calls: Calls, prediction: Any, samples: tuple[Data, Data], ctx: Any) -> None:
    """Refuse a loss that does not fit."""
    section, (data, label) = config.network, samples
    labels = calls.labels(label, "label")
    advice = ""
    if any(leaf.dtype.kind in "iu" for leaf in leaves_of(labels)) and ":" in section.loss:
        advice = "; a loss of your own gets integers as they are, F.cast(label, 'float32') there makes floats of them"
    shapes = prediction.shape if isinstance(prediction, mx.nd.NDArray) else described_shapes(prediction)
    with explained(
        f"network.loss: {section.loss!r} does not fit predictions {shapes} and {describe(labels, 'labels')}{advice}"
    ):
        on_device = copies_on_device(labels, ctx)
        totals = dict.fromkeys(calls.weights_of(on_device), 1.0) if calls.is_told_totals else None
        if calls.forward is not None:
            losses = calls(copies_on_device(data, ctx), on_device, totals).losses
        else:
            losses = calls.loss(prediction, on_device, *([] if totals is None else [totals]))
        if isinstance(losses, mx.nd.NDArray) and totals is None:  # the learner looks at what has weights
            check_losses(losses, count_of(data))
        mx.nd.waitall()


def describe(arrays: Data, what: str = "samples") -> str:
    """Types and shapes of samples, with what to do about integers."""
    if not isinstance(arrays, np.ndarray):
        return f"{what} of {described_shapes(each_leaf(lambda leaf: leaf[0], arrays))}"
    text = f"{what} of shape {arrays.shape[1:]}, {arrays.dtype}"
    if what == "samples" and arrays.dtype.kind in "iu":
        text += (
            " (integers are left as they are; data.scale: 1, or what they are to be divided by, makes floats of them)"
        )
    return text


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever MXNet or a user's code raises into one sentence."""
    try:
        yield
    except HarnessError:
        raise
    except (Exception, SystemExit) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(f"{what} ({lines[-1] if lines else type(error).__name__}); choose others that fit") from error
