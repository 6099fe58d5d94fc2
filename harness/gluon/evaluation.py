"""Evaluation over all ranks: every sample once, and the same result on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mxnet as mx
import numpy as np

from harness.data import Augmentation, evaluation_batches
from harness.gluon.learner import Learner
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
    """The mean loss and metrics over a data set.

    Rank r looks at the batches r, r + np, ...; each batch's sums have a place of their own in the table that is
    reduced, and the table is added up in the order of the batches, so the result does not depend on the number of
    ranks.

    Args:
        learner: the network, its loss and the ranks.
        dataset: samples and labels; nothing is dropped, the last batch may be smaller.
        batch_size: samples in a batch.
        augmentation: only its normalisation is applied.
        metrics: by name.
        stop: is called with every batch; ranks ask each other now and then whether any was told to stop.

    Returns:
        `loss` and each metric by name; `None` on every rank if any was told to stop.
    """
    world = learner.world
    learner.ensure_shared()  # here and not in `predict`: the last batches are not every rank's
    num_batches = -(-len(dataset) // batch_size)
    table = np.zeros((num_batches, 1 + len(metrics)))
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
            continue
        index, data, label = batch
        prediction, losses = learner.predict(data, label)
        table[index, 0] = losses.astype(np.float64).sum()
        for column, metric in enumerate(metrics.values(), start=1):
            values = np.asarray(metric.sample_values(prediction, label))
            table[index, column] = values.astype(np.float64).sum()
    table = world.allreduce(table, "evaluation")
    means = [sum(column.tolist()) / len(dataset) for column in table.T]
    found = {name: metric.from_mean(mean) for (name, metric), mean in zip(metrics.items(), means[1:], strict=True)}
    return {"loss": means[0], **found}


def _close(batches: Iterator[Any]) -> None:
    """End the thread that reads ahead."""
    closing = getattr(batches, "close", None)
    if closing is not None:
        closing()
