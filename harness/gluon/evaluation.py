"""Evaluation over all ranks: every sample once, and the same result on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mxnet as mx
import numpy as np

from harness.data import Augmentation, EvaluationBatch, EvaluationShare
from harness.gluon.learner import Learner
from harness.gluon.totals import Seen, Totals
from harness.model.metrics import Metric

_ASK_EVERY = 32  # batches of each rank


def evaluate(
    learner: Learner,
    dataset: Any,
    batch_size: int,
    augmentation: Augmentation,
    metrics: Mapping[str, Metric],
    stop: Callable[[], bool] | None = None,
    streams: int | None = None,
    watch: Callable[[EvaluationBatch], None] | None = None,
) -> dict[str, float] | None:
    """The mean loss and metrics over a data set, the same on any number of ranks (`harness.gluon.totals`).

    The mean of a weighted loss is the sum of numerators over that of weights; NaN if every weight is 0.

    Args:
        learner: the network, its loss and the ranks.
        dataset: samples and labels; nothing is dropped, the last batch may be smaller.
        batch_size: samples in a batch.
        augmentation: only its normalisation is applied.
        metrics: by name.
        stop: is called with every batch; ranks ask each other now and then whether any was told to stop.
        streams: for a network that carries state, how many rows read consecutive samples; by default as many as a
            global batch of training. They begin with the first state, and training's states are left alone.
        watch: is called with every batch of this rank.

    Returns:
        `loss` and each metric by its name, or by its name, a dot and a key where it reports several numbers; `None` on
        every rank if any was told to stop.

    Raises:
        ConfigError: naming a metric that gives something else than before, or that reports no number.
        DataError: naming a metric for which predictions or labels do not do.
    """
    world = learner.world
    learner.ensure_shared()  # here and not in `predict`: the last batches are not every rank's
    rows = streams or learner.num_shards * batch_size if learner.carries_state else None
    batches = EvaluationShare(dataset, batch_size, augmentation, world.rank, world.size, rows)
    told = None
    if learner.totals is not None:  # of the whole data set, before its losses
        labels = {batch.number: batch.label for batch in batches.read()}
        told = learner.totals(labels, len(batches), lambda one: f"batch {one}")
    totals = Totals(world, metrics, len(batches))
    mx.nd.waitall()  # running statistics may still be on their way
    own, states = batches.read(), dict[int, Any]()
    for number in range(-(-len(batches) // world.size)):
        wanted = stop is not None and stop()
        if (
            number % _ASK_EVERY == _ASK_EVERY - 1
            and world.allreduce(np.array([wanted], np.int32), "evaluation.stop")[0]
        ):
            _close(own)
            return None
        batch = next(own) if batches.exists(number * world.size + world.rank) else None
        if batch is None:  # the last round is not everybody's
            totals.add(None)
            continue
        if watch is not None:
            watch(batch)
        index, data, label = batch
        group = batches.group(index)
        prediction, losses, states[group] = learner.predict_from(states.get(group), data, label, told)
        sums = sums_of_losses(losses)
        if told is not None:  # by which they are divided already; where all are 0, there is nothing to divide
            sums = sums[0], float(index == 0 and any(told.values()))
        totals.add(Seen(index, prediction, label, sums))
    return totals.results(len(dataset))


def sums_of_losses(losses: Any) -> tuple[float, float]:
    """The sum of a batch's losses and what it is to be divided by, of which every batch's are added up.

    Args:
        losses: one value a sample, or numerators and weights; `None` where a function of the user's gives none outside
            of training, which counts as no weight.
    """
    if losses is None:
        return 0.0, 0.0
    numerators, weights = losses if isinstance(losses, tuple) else (losses, np.ones(len(losses)))
    return float(numerators.astype(np.float64).sum()), float(weights.astype(np.float64).sum())


def _close(batches: Iterator[Any]) -> None:
    """End the thread that reads ahead."""
    closing = getattr(batches, "close", None)
    if closing is not None:
        closing()
