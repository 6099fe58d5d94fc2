"""From the configuration to the data of a run: read, probed, and seeded where items draw from MXNet's generator too."""

from __future__ import annotations

import numpy as np

from harness.comm import World
from harness.config import RunConfig
from harness.data import Augmentation, Dataset, Splits, load, probe_splits, seeded_splits
from harness.data.dtypes import as_they_are, counted
from harness.data.leaves import Array, Data
from harness.data.purity import Found
from harness.gluon.shards import seed_generator


def load_splits(config: RunConfig) -> Splits:
    """The data that a configuration names.

    Raises:
        DataError: see `harness.data.load`.
    """
    data = config.data
    return load(
        data.name,
        root=data.root,
        download=data.download,
        validation=data.validation,
        params=data.params,
        seed=config.seed,
        scale=data.scale,
    )


def probe_items(splits: Splits) -> dict[str, Found]:
    """Whether items are functions of their index; see `harness.data.purity`."""
    return probe_splits(splits, seed_generator)


def seed_items(world: World, splits: Splits, found: dict[str, Found], seed: int) -> Splits:
    """The same data on every rank, seeded item by item where any rank found that they draw at random."""
    everyone = world.allgather_object({name: list(one) for name, one in found.items()}, "items")
    names = {name for one in everyone for name in one}
    agreed = {
        name: Found(*map(any, zip(*[one[name] for one in everyone if name in one], strict=True))) for name in names
    }
    return seeded_splits(splits, agreed, seed, seed_generator)


def build_augmentation(config: RunConfig, splits: Splits) -> Augmentation:
    """What is done to samples.

    Raises:
        DataError: if it does not suit them.
    """
    section = config.data.augment
    mean, std = [None if values is None else tuple(values) for values in (section.mean, section.std)]
    augmentation = Augmentation(pad_crop=section.pad_crop, flip=section.flip, mean=mean, std=std)
    augmentation.check(splits.sample_shape)
    return augmentation


def first_samples(dataset: Dataset, augmentation: Augmentation, count: int) -> tuple[Data, Array]:
    """A few samples and their labels, as the network and the loss are given them."""
    data, label = dataset.take(np.arange(min(count, len(dataset))))
    return augmentation.evaluate(data, dataset.full_scale), as_they_are(label, counted(f"{dataset.source}: label"))
