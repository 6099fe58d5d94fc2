"""Evaluation over all ranks: every sample once, and the same result on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mxnet as mx
import numpy as np

from harness.data import Augmentation, evaluation_batches
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

    Returns:
        `loss` and each metric by its name, or by its name, a dot and a key where it reports several numbers; `None` on
        every rank if any was told to stop.

    Raises:
        ConfigError: naming a metric that gives something else than before, or that reports no number.
        DataError: naming a metric for which predictions or labels do not do.
    """
    world = learner.world
    learner.ensure_shared()  # here and not in `predict`: the last batches are not every rank's
    num_batches = -(-len(dataset) // batch_size)
    told = None
    if learner.totals is not None:  # of the whole data set, before its losses
        own = evaluation_batches(dataset, batch_size, augmentation, first=world.rank, step=world.size)
        told = learner.totals({batch.number: batch.label for batch in own}, num_batches, lambda one: f"batch {one}")
    totals = Totals(world, metrics, num_batches)
    mx.nd.waitall()  # running statistics may still be on their way
    batches = iter(evaluation_batches(dataset, batch_size, augmentation, first=world.rank, step=world.size))
    for number in range(-(-num_batches // world.size)):
        wanted = stop is not None and stop()
        if (
            number % _ASK_EVERY == _ASK_EVERY - 1
            and world.allreduce(np.array([wanted], np.int32), "evaluation.stop")[0]
        ):
            _close(batches)
            return None
        batch = next(batches, None)
        if batch is None:  # the last round is not everybody's
            totals.add(None)
            continue
        index, data, label = batch
        prediction, losses = learner.predict(data, label, told)
        sums = sums_of_losses(losses)
        if told is not None:  # by which they are divided already; where all are 0, there is nothing to divide
            sums = sums[0], float(index == 0 and any(told.values()))
        totals.add(Seen(index, prediction, label, sums))
    return totals.results(len(dataset))


def sums_of_losses(losses: Any) -> tuple[float, float]:
    """The sum of a batch's losses and what it is to be divided by, of which every batch's are added up.

    Args:
        losses: one value a sample, or numerators and weights.
    """
    numerators, weights = losses if isinstance(losses, tuple) else (losses, np.ones(len(losses)))
    return float(numerators.astype(np.float64).sum()), float(weights.astype(np.float64).sum())


def _close(batches: Iterator[Any]) -> None:
    """End the thread that reads ahead."""
    closing = getattr(batches, "close", None)
    if closing is not None:
        closing()
