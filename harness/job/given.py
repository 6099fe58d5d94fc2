"""What a program gives to a `Job`, checked as far as one process can before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.comm import World
from harness.data import Augmentation, Functions, GroupBy
from harness.errors import ConfigError
from harness.hooks import Hook, given_hooks
from harness.job.settings import WHERE, JobOptions, JobSettings, of_kind, read_group_by, read_settings
from harness.model.calls import Calls
from harness.model.given import (
    devices_of,
    given_forward,
    given_loss,
    given_optimizer,
    given_state,
    refuse_idle_momentum,
)


class Given(NamedTuple):
    """What a program gave.

    Attributes:
        calls: the network, initialised, and its loss.
        optimizer: an `mx.optimizer.Optimizer`.
        devices: of the network.
        train: the training data, as they were given.
        functions: between items and batches.
        group_by: which samples are to come together in a batch.
        augmentation: what is done to samples.
        settings: numbers.
        hooks: by name, in the order in which they are called.
        world: the ranks, if they are joined already.
    """

    calls: Calls
    optimizer: Any
    devices: list[Any]
    train: object
    functions: Functions
    group_by: GroupBy | None
    augmentation: Augmentation
    settings: JobSettings
    hooks: Sequence[tuple[str, Hook]]
    world: World | None


def given_of(
    net: Any, loss: Any, optimizer: Any, train: object, lr: object, own: Mapping[str, Any], options: JobOptions
) -> Given:
    """Check what was given; `Job` explains each.

    Args:
        net: the network.
        loss: the loss.
        optimizer: an object, or a name.
        train: the training data.
        lr: the learning rate.
        own: sizes and folder.
        options: the others; they are taken out as they are read.

    Raises:
        ConfigError: for what cannot be trained, in one message.
    """
    world = of_kind("world", options.pop("world", None), World)
    augmentation = of_kind("augmentation", options.pop("augmentation", None), Augmentation) or Augmentation()
    functions = Functions.of(options.pop("transform", None), options.pop("collate", None), f"{WHERE}: ")
    forward, state = options.pop("forward", None), given_state(options.pop("state", None))
    hooks = given_hooks(options.pop("hooks", None), f"{WHERE}: hooks")
    for name in ("hooks_fail", "log_every") if not hooks else ():
        if name in options:
            raise ConfigError(f"{WHERE}: {name}: has no effect without hooks; leave it out")
    bucket, batches = options.pop("bucket", None), options.pop("batches", None)
    group_by = read_group_by(bucket, batches, options.get("last_batch"), has_state=state is not None)
    settings = read_settings(lr, **own, **options)
    if state is not None and settings.last_batch == "keep":
        raise ConfigError(
            f"{WHERE}: last_batch: keep is not possible with state, whose rows are streams of equal length; use drop"
        )
    calls = Calls(net, given_loss(loss), given_forward(forward), state)
    devices, stepped = devices_of(net), given_optimizer(optimizer, net)
    refuse_idle_momentum(stepped, settings.lr.momentum_correction, settings.lr.momentum is not None)
    return Given(calls, stepped, devices, train, functions, group_by, augmentation, settings, hooks, world)
