"""From the configuration to what is trained: network, loss, optimizer and devices of a rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import mxnet as mx

from harness.config import RunConfig
from harness.data import count_of, leaves_of
from harness.data.leaves import Array, Data
from harness.errors import ConfigError, HarnessError
from harness.model.freezing import freeze
from harness.model.initialise import initialise, naming_unsuited, seeded
from harness.model.inputs import check_losses, labels_for, seed_of, settle
from harness.model.networks import build_initializer, build_loss, build_network
from harness.model.operators import refuse_blocks_across_devices
from harness.model.optimizers import build_optimizer, set_multipliers
from harness.model.parameters import parameters_of, refuse_unreducible, refuse_untrained_loss


class Model(NamedTuple):
    """What a rank trains.

    Attributes:
        net: initialised, its shapes settled.
        loss: maps (prediction, label) to one value a sample.
        optimizer: with the multipliers of its parameters.
        contexts: the devices.
        frozen: parameters whose running statistics stay as they are, by structural name.
    """

    net: Any
    loss: Any
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
            "a CUDA build (WITH_CUDA=cu117 make setup)"
        )
    return contexts


def build_model(config: RunConfig, local_rank: int, samples: tuple[Data, Array], classes: int | None) -> Model:
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
        net, loss = _build_network(config, samples, classes, contexts)
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
            frozen=frozen,
        )
    except ConfigError as error:
        error.found_in(config.source)
        raise
    return Model(net, loss, optimizer, contexts, frozen)


def _build_network(
    config: RunConfig, samples: tuple[Data, Array], classes: int | None, contexts: list[Any]
) -> tuple[Any, Any]:
    section = config.network
    # another seed than below: what a network draws for itself must not come again in its other parameters
    net = seeded(seed_of(config.seed, 0, -1), lambda: build_network(section.name, section.params, classes))
    initializer = build_initializer(section.initializer)
    refuse_blocks_across_devices(net)
    with explained(
        f"network: {section.name!r} with initializer {section.initializer!r} does not take {describe(samples[0])}"
    ):
        initialise(net, initializer, contexts, seed_of(config.seed, 0, 0))
        with naming_unsuited(net, initializer):
            prediction = settle(net, samples[0], contexts[0])
    if not isinstance(prediction, mx.nd.NDArray):
        found = (
            f"{type(prediction).__name__} of {len(prediction)}" if isinstance(prediction, list | tuple) else prediction
        )
        raise ConfigError(
            f"network: {section.name!r} must give one array, (samples, ...), which loss and metrics look at; found "
            f"{found}; join its outputs (F.concat) and take them apart in a loss of your own (network.loss: "
            "module:function)"
        )
    loss = build_loss(section.loss, section.loss_params, prediction.shape, samples[1].shape)
    refuse_untrained_loss(loss)
    axis = getattr(loss, "_axis", -1)
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
    label = labels_for(loss, samples[1], "label")
    advice = ""
    if label.dtype.kind in "iu" and ":" in section.loss:
        advice = "; a loss of your own gets integers as they are, F.cast(label, 'float32') there makes floats of them"
    with explained(
        f"network.loss: {section.loss!r} does not fit predictions {prediction.shape} and {describe(label, 'labels')}"
        f"{advice}"
    ):
        losses = loss(prediction, mx.nd.array(label, ctx=contexts[0], dtype=label.dtype))
        check_losses(losses, count_of(samples[0]))
        losses.wait_to_read()
    return net, loss


def describe(arrays: Data, what: str = "samples") -> str:
    """Types and shapes of samples, with what to do about integers."""
    leaves = leaves_of(arrays)
    shapes = ", ".join(f"{leaf.dtype} {leaf.shape[1:]}" for leaf in leaves)
    text = f"{what} of shape {leaves[0].shape[1:]}, {leaves[0].dtype}" if len(leaves) == 1 else f"{what} of {shapes}"
    if what == "samples" and len(leaves) == 1 and leaves[0].dtype.kind in "iu":
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
