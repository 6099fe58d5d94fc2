"""From the configuration to a learner."""

from __future__ import annotations

from typing import Any

from harness.comm import World
from harness.config import RunConfig
from harness.data import Batch
from harness.data.leaves import Array, Data
from harness.errors import CheckpointError
from harness.gluon import Learner, Placement, UpdateOptions
from harness.model import build_model


def build_learner(
    config: RunConfig,
    world: World,
    *,
    shards: int,
    samples: tuple[Data, Array],
    classes: int | None,
) -> Learner:
    """Build what a configuration describes.

    Args:
        config: the configuration.
        world: the ranks.
        shards: S.
        samples: one or a few samples and their labels, on which everything is tried before it counts.
        classes: the data's number of classes; `None` for regression.

    Raises:
        ConfigError: for names and parameters that do not exist or do not fit the data.
    """
    # collectives only between these steps, never inside one: a rank that fails alone must not leave others waiting
    parts = world.agreed("network", lambda: build_model(config, world.local_rank, samples, classes))
    placement = Placement(
        parts.contexts,
        config.kvstore or ("local" if parts.contexts[0].device_type == "cpu" else "device"),
        config.update_on_kvstore,
    )
    options = UpdateOptions(
        seed=config.seed,
        hybridize=config.network.hybridize,
        momentum_correction=config.momentum_correction,
        clip_norm=config.optimizer.clip_norm,
        skip_nonfinite=config.guard.divergence.policy == "skip",
        frozen=parts.frozen,
    )
    return Learner(
        parts.net,
        parts.loss,
        parts.optimizer,
        world,
        shards=shards,
        sample=Batch(0, *samples),
        placement=placement,
        options=options,
    )


def load_initial_weights(learner: Learner, weights: str, policy: str, source: str) -> None:
    """Let rank 0 load weights in place of the initializer's; `broadcast_weights` then gives them to all ranks.

    Args:
        learner: just built.
        weights: a file or a checkpoint.
        policy: how much of it has to fit (`Learner.load_weights`).
        source: the configuration's file, for messages.

    Raises:
        CheckpointError: on every rank, if they do not fit the network.
    """
    taken = learner.world.on_root("init.from", lambda: _load(learner, weights, policy, source))
    learner.began_with, lines = taken
    learner.remarks += lines


def _load(learner: Learner, weights: str, policy: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """Load, and tell manifests and the user what was taken; nothing is to be told of weights that fit as they are."""
    try:
        matched = learner.load_weights(weights, policy)
    except CheckpointError as error:
        error.found_in(source)
        raise
    is_plain = matched.fits and all(name == theirs for name, theirs in matched.taken.items())
    return {"from": weights, **matched.to_json()}, [] if is_plain else matched.table(weights)
