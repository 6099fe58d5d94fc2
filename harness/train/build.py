"""From the configuration to a learner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.comm import World
from harness.config import RunConfig
from harness.data import GlobalBatch
from harness.data.leaves import Array, Data
from harness.errors import CheckpointError
from harness.gluon import Learner
from harness.model import build_model


def build_learner(
    config: RunConfig,
    world: World,
    stream: Callable[[int], GlobalBatch],
    *,
    shards: int,
    samples: tuple[Data, Array],
    classes: int | None,
    weights: str | None = None,
    policy: str = "all",
    agree: Callable[[list[str]], None] | None = None,
) -> Learner:
    """Build what a configuration describes.

    Args:
        config: the configuration.
        world: the ranks.
        stream: this rank's batches.
        shards: S.
        samples: one or a few samples and their labels, on which everything is tried before it counts.
        classes: the data's number of classes; `None` for regression.
        weights: a file or a set that the weights come from, instead of the initializer.
        policy: how much of it has to fit (`Learner.load_weights`).
        agree: see `Learner`.

    Raises:
        ConfigError: for names and parameters that do not exist or do not fit the data.
        CheckpointError: if `init.from` does not fit the network.
    """
    # collectives only between these steps, never inside one: a rank that fails alone must not leave others waiting
    parts = world.agreed("network", lambda: build_model(config, world.local_rank, samples, classes))
    learner = Learner(
        parts.net,
        parts.loss,
        parts.optimizer,
        world,
        stream,
        shards=shards,
        sample=samples[0],
        label=samples[1],
        seed=config.seed,
        contexts=parts.contexts,
        kvstore=config.kvstore or ("local" if parts.contexts[0].device_type == "cpu" else "device"),
        update_on_kvstore=config.update_on_kvstore,
        hybridize=config.network.hybridize,
        momentum_correction=config.momentum_correction,
        clip_norm=config.optimizer.clip_norm,
        skip_nonfinite=config.guard.divergence.policy == "skip",
        frozen=parts.frozen,
        agree=agree,
    )
    if weights is not None:
        taken = world.on_root("init.from", lambda: _load(learner, weights, policy, config.source))
        learner.began_with, lines = taken
        learner.remarks += lines
        learner.broadcast_weights()
    return learner


def _load(learner: Learner, weights: str, policy: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """Load, and tell manifests and the user what was taken; nothing is to be told of weights that fit as they are."""
    try:
        matched = learner.load_weights(weights, policy)
    except CheckpointError as error:
        error.found_in(source)
        raise
    is_plain = matched.fits and all(name == theirs for name, theirs in matched.taken.items())
    return {"from": weights, **matched.to_json()}, [] if is_plain else matched.table(weights)
