"""The data that a program brings: checked, probed, and seeded where items draw at random, on every rank alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.comm import World
from harness.data import Dataset, Functions, Splits, count_of, make_splits
from harness.data.checks import check_labels
from harness.data.collated import uncollated
from harness.data.custom import as_dataset
from harness.data.leaves import Data
from harness.data.splits import splits_with
from harness.errors import DataError
from harness.gluon import Learner
from harness.model.build import explained
from harness.model.given import described
from harness.model.inputs import check_losses
from harness.named import kind_of
from harness.train.samples import RunData, probe_items, seeded_data

_ALLOWED = "give a gluon.data.Dataset, a pair (data, label) of arrays, or a data set of harness.data"


def read(world: World, name: str, value: object, functions: Functions) -> Splits:
    """What a program gave as samples, checked; a collective.

    Args:
        world: the ranks.
        name: of the argument, for messages.
        value: a data set, arrays, or `Splits`, of which the training split is taken.
        functions: of the job, between items and batches.

    Raises:
        DataError: on every rank, for anything else, and for samples that cannot be used.
    """
    return world.agreed(f"data.{name}", lambda: splits_with(_splits(name, value, functions), functions))


def probe(world: World, name: str, splits: Splits, seed: int) -> RunData:
    """Find out whether items are functions of their index, and seed those that draw at random; a collective.

    Args:
        world: the ranks.
        name: of the argument, for messages.
        splits: of `read`.
        seed: of the job.

    Raises:
        DataError: on every rank, for items that no seed makes repeatable.
        DisagreementError: on every rank, if the ranks' items differ.
    """
    found = world.agreed(f"items.{name}", lambda: probe_items(splits))
    return seeded_data(world, splits, found, seed)


def predict_few(world: World, name: str, net: object, learner: Learner, samples: tuple[Data, Data]) -> tuple[Any, Any]:
    """Predictions and losses of a few samples, which may be the first of their shape; a collective.

    Args:
        world: the ranks.
        name: of the argument, for messages.
        net: of the job.
        learner: of the job.
        samples: data and labels.

    Raises:
        ConfigError: on every rank, if the network or the loss does not take them.
    """

    def predict() -> tuple[Any, Any]:
        net_and_loss = f"{type(net).__name__} and its loss do not take"
        with explained(f"{name}: {net_and_loss} {described(*samples)}"):
            prediction, losses = learner.predict(*samples)
            if not learner.has_weights:
                check_losses(losses, count_of(samples[0]))
        return prediction, losses

    return world.agreed(f"fit.{name}", predict)


def refuse_other_classes(name: str, dataset: Dataset, num_classes: int | None) -> None:
    """Refuse integer labels that the network has no output for; MXNet would take another output without a word.

    Args:
        name: of the argument, for messages.
        dataset: whose labels are looked at: all of arrays, those of items when they are read.
        num_classes: outputs of the network; `None` where labels are not classes.

    Raises:
        DataError: naming the first such label.
    """
    dataset = uncollated(dataset)  # whose labels are those of items
    labels = dataset.labels()
    is_whole = isinstance(labels, np.ndarray) and labels.dtype.kind in "iu"
    if num_classes is not None and (labels is None or is_whole):
        check_labels(name if dataset.source == "data" else dataset.source, dataset, num_classes)


def _splits(name: str, value: object, functions: Functions) -> Splits:
    if isinstance(value, Splits):
        return replace(value, validation=None, test=None)
    _refuse_loader(name, value)
    return make_splits(as_dataset(name, value, _ALLOWED, functions), count_classes=False)


def _refuse_loader(name: str, value: Any) -> None:
    """Refuse what hands out batches: which samples are in one is the job's to decide."""
    if hasattr(value, "_batchify_fn") and hasattr(value, "_dataset"):
        raise DataError(f"{name}: found a DataLoader, whose batches are its own; give its data set, and Job(batch=...)")
    if value is None or isinstance(value, str | Mapping):
        raise DataError(f"{name}: found {kind_of(value)}; {_ALLOWED}")
