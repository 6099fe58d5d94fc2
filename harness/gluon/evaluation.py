"""Evaluation over all ranks: every sample once, and the same result on any number of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mxnet as mx
import numpy as np

from harness.data import Augmentation, evaluation_batches
from harness.gluon.learner import Learner
from harness.gluon.metrics import Metric


def evaluate(
    learner: Learner, dataset: Any, batch_size: int, augmentation: Augmentation, metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """The mean loss and metrics over a data set.

    Rank r looks at the batches r, r + np, ...; each batch's sums have a place of their own in the table that is
    reduced,
    and the table is added up in the order of the batches, so the result does not depend on the number of ranks.

    Args:
        learner: the network, its loss and the ranks.
        dataset: samples and labels; nothing is dropped, the last batch may be smaller.
        batch_size: samples in a batch.
        augmentation: only its normalisation is applied.
        metrics: by name.

    Returns:
        `loss` and each metric by name.
    """
    world = learner.world
    num_batches = -(-len(dataset) // batch_size)
    table = np.zeros((num_batches, 1 + len(metrics)))
    mx.nd.waitall()  # running statistics may still be on their way
    for index, data, label in evaluation_batches(dataset, batch_size, augmentation, first=world.rank, step=world.size):
        prediction, losses = learner.predict(data, label)
        table[index, 0] = losses.astype(np.float64).sum()
        for column, metric in enumerate(metrics.values(), start=1):
            values = np.asarray(metric.sample_values(prediction, label))
            table[index, column] = values.astype(np.float64).sum()
    table = world.allreduce(table, "evaluation")
    means = [sum(column.tolist()) / len(dataset) for column in table.T]
    finishers = [float, *(metric.finish for metric in metrics.values())]
    return {name: finish(mean) for name, finish, mean in zip(["loss", *metrics], finishers, means, strict=True)}
