"""From the configuration to a learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.comm import World
from harness.config import RunConfig
from harness.data import GlobalBatch
from harness.errors import ConfigError
from harness.gluon.learner import Learner
from harness.gluon.nets import build_initializer, build_loss, build_network
from harness.gluon.optimizers import build_optimizer, set_multipliers
from harness.gluon.shards import refuse_unreducible, seed_of, settle


def device_of_rank(device: str, local_rank: int) -> Any:
    """The one place that decides where a rank computes: its own GPU of the host, or the CPU.

    Raises:
        ConfigError: if a GPU is asked for that this MXNet does not see.
    """
    num_gpus = mx.context.num_gpus()
    if device == "cpu" or (device == "auto" and num_gpus == 0):
        return mx.cpu()
    if local_rank >= num_gpus:
        raise ConfigError(
            f"device: local rank {local_rank} needs gpu({local_rank}), but this MXNet sees {num_gpus} GPUs; "
            "start fewer ranks a "
            "host, set device: cpu, or install a CUDA build (WITH_CUDA=cu117 make setup)"
        )
    return mx.gpu(local_rank)


def build_learner(
    config: RunConfig,
    world: World,
    stream: Callable[[int], GlobalBatch],
    *,
    shards: int,
    sample_shape: Sequence[int],
    classes: int | None,
) -> Learner:
    """Build what a configuration describes; the weights come from `init.from` where it is given.

    Args:
        config: the configuration.
        world: the ranks.
        stream: this rank's batches.
        shards: S.
        sample_shape: the shape of one sample, such as `(channels, height, width)`.
        classes: the data's number of classes; `None` for regression.

    Raises:
        ConfigError: for names and parameters that do not exist or do not fit the data.
        CheckpointError: if `init.from` does not fit the network.
    """
    # collectives only between these steps, never inside one: a rank that fails alone must not leave others waiting
    parts = world.agreed("network", lambda: _build_parts(config, world, sample_shape, classes))
    learner = Learner(
        parts.net,
        parts.loss,
        parts.optimizer,
        world,
        stream,
        shards=shards,
        sample=parts.sample,
        seed=config.seed,
        ctx=parts.ctx,
        hybridize=config.network.hybridize,
        momentum_correction=config.momentum_correction,
        clip_norm=config.optimizer.clip_norm,
    )
    weights = config.init.from_
    if weights is not None:
        world.on_root("init.from", lambda: learner.load_weights(weights))
        learner.take_weights_of_root()
    return learner


class _Parts(NamedTuple):
    net: Any
    loss: Any
    optimizer: Any
    ctx: Any
    sample: npt.NDArray[np.float32]


def _build_parts(config: RunConfig, world: World, sample_shape: Sequence[int], classes: int | None) -> _Parts:
    ctx = device_of_rank(config.device, world.local_rank)
    section = config.network
    net = build_network(section.name, section.params, classes)
    initializer = build_initializer(section.initializer)
    loss = build_loss(section.loss, section.loss_params)
    mx.random.seed(seed_of(config.seed, 0, 0))
    net.initialize(initializer, ctx=ctx)
    sample = np.zeros((1, *sample_shape), np.float32)
    try:
        settle(net, sample, ctx)
    except (mx.base.MXNetError, ValueError, AssertionError) as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ConfigError(
            f"network: {section.name!r} does not take samples of shape {tuple(sample_shape)} "
            f"(channels, height, width): {reason.strip()}; choose another network or other data"
        ) from error
    parameters = net._collect_params_with_prefix()
    refuse_unreducible(parameters)
    trainable = {name: p for name, p in parameters.items() if p.grad_req != "null"}
    section_of_optimizer = config.optimizer
    optimizer = build_optimizer(
        section_of_optimizer.name,
        section_of_optimizer.params,
        clip_value=section_of_optimizer.clip_value,
        param_names=dict(enumerate(trainable)),
    )
    set_multipliers(
        trainable,
        lr_mult=section_of_optimizer.lr_mult,
        wd_mult=section_of_optimizer.wd_mult,
        decay_bias_and_norm=section_of_optimizer.decay_bias_and_norm,
    )
    return _Parts(net, loss, optimizer, ctx, sample)
