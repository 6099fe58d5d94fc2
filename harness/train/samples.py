"""From the configuration to the data of a run: read, probed, and seeded where items draw from MXNet's generator too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from harness.comm import World
from harness.config import RunConfig
from harness.config.pictures import picture_request
from harness.data import (
    EVERY_HOST,
    Augmentation,
    Dataset,
    Functions,
    GroupBy,
    Grouping,
    Splits,
    evaluation_samples,
    load,
    probe_splits,
    seeded_splits,
)
from harness.data.collated import innermost
from harness.data.leaves import Data
from harness.data.pictures.dataset import PictureDataset
from harness.data.purity import Found
from harness.data.workers.pool import WorkerPool
from harness.errors import DataError
from harness.model.inputs import seed_generator

SHARE_FILES = "put them on a file system that all hosts share, or copy them to each"
_SAME_ITEMS = "give every rank the same data; an item is a function of its index, and not of the rank or the host"


class RunData(NamedTuple):
    """The data of a run.

    Attributes:
        splits: training samples, and those held out.
        fingerprint: of the training samples.
        items_digest: of the probed training items, and of what `transform` and `collate` make of them; `None` for
            arrays without either.
        grouping: which samples come together in a batch; `None` leaves that to chance.
        workers: processes that read samples; `None` if there are none.
    """

    splits: Splits
    fingerprint: str
    items_digest: str | None
    grouping: Grouping | None = None
    workers: WorkerPool | None = None

    @property
    def num_batches(self) -> int | None:
        """The global batches of an epoch, if a function of the user's own says which they are."""
        return None if self.grouping is None else self.grouping.num_batches

    @property
    def held_out(self) -> list[str]:
        """The splits that there are to evaluate on; the first is the one evaluated during training."""
        return [split for split in ("validation", "test") if getattr(self.splits, split) is not None]

    def close(self) -> None:
        """End what reads samples; calling this again does nothing."""
        if self.workers is not None:
            self.workers.close()
        for split in ("train", *self.held_out):
            dataset = innermost(getattr(self.splits, split))
            if isinstance(dataset, PictureDataset):
                dataset.close()


def load_splits(config: RunConfig, threads: int = 1) -> Splits:
    """The data that a configuration names.

    Args:
        config: the run's.
        threads: of this rank, that decode pictures where none are asked for.

    Raises:
        DataError: see `harness.data.load`; also for integer labels that cannot be classes, where the loss wants some.
    """
    splits = load(
        **load_arguments(config), functions=functions_of(config), pictures=picture_request(config.data, threads)
    )
    labels, network = splits.train.labels(), config.network
    if splits.num_classes is not None or not (network.picks_classes and isinstance(labels, np.ndarray)):
        return splits
    if labels.dtype.kind in "iu":
        raise DataError(
            f"{splits.train.source}: labels go up to {labels.max()}, but there are only {labels.size}, so they can "
            f"hardly be classes, which {network.loss} needs; fix them, or give the number of classes (num_classes)"
        )
    return splits


def load_arguments(config: RunConfig) -> dict[str, Any]:
    """Arguments of `harness.data.load`, plain data; functions and pictures are not among them."""
    data = config.data
    return {
        "name": data.name,
        "root": data.root,
        "download": data.download,
        "validation": data.validation,
        "params": data.params,
        "seed": config.seed,
        "scale": data.scale,
        "labels_are_numbers": None if ":" in config.network.loss else not config.network.picks_classes,
    }


def functions_of(config: RunConfig) -> Functions:
    """`data.transform` and `data.collate`.

    Raises:
        ConfigError: if there are none of these names.
    """
    return Functions.of(config.data.transform, config.data.collate)


def group_by_of(config: RunConfig) -> GroupBy | None:
    """`data.bucket` and `data.batches`.

    Raises:
        ConfigError: if there are none of these names.
    """
    data = config.data
    return GroupBy.of(None if data.bucket is None else data.bucket.model_dump(), data.batches)


def compare_pictures(world: World, config: RunConfig, splits: Splits) -> None:
    """Compare what ranks have found in folders, lists and indices, before they share out samples by their numbers.

    Raises:
        DisagreementError: on every rank, naming the splits of which some rank has found other pictures.
    """
    if config.data.pictures is None:
        return
    found = [innermost(one) for one in (splits.train, splits.validation, splits.test) if one is not None]
    facts = {one.source: one.listing() for one in found if isinstance(one, PictureDataset)}
    world.must_be_equal("pictures", facts, f"{EVERY_HOST}; {SHARE_FILES}")


def probe_items(splits: Splits) -> dict[str, Found]:
    """Whether items are functions of their index, and the user's functions of theirs; see `harness.data.purity`."""
    return probe_splits(splits, seed_generator)


def seed_items(world: World, splits: Splits, found: Mapping[str, Found], seed: int) -> Splits:
    """The same data on every rank, seeded item by item where any rank found that they draw at random.

    Raises:
        DisagreementError: on every rank, if some items are others on some rank.
    """
    facts = {f"items of {name}": one.digest for name, one in found.items()}
    own = {name: [one.draws, one.calls_more] for name, one in found.items()}
    everyone = world.must_be_equal("items", facts, _SAME_ITEMS, own)
    agreed = {
        name: Found(any(one[name][0] for one in everyone), any(one[name][1] for one in everyone)) for name in found
    }
    return seeded_splits(splits, agreed, seed, seed_generator)


def seeded_data(world: World, splits: Splits, found: Mapping[str, Found], seed: int) -> RunData:
    """The data of a run, from what was read and what `probe_items` found; a collective.

    Raises:
        DisagreementError: on every rank, if some items are others on some rank.
        DataError: on every rank, if a sample cannot be read on some.
    """
    seeded = seed_items(world, splits, found, seed)
    return RunData(
        seeded,
        world.agreed("fingerprint", seeded.fingerprint, SHARE_FILES),
        found["train"].digest if "train" in found else None,
    )


def grouped(world: World, data: RunData, group_by: GroupBy | None, most: int) -> RunData:
    """The data with batches of samples that belong together; a collective.

    Every rank reads the lengths of its part of the samples.

    Args:
        world: the ranks.
        data: the data.
        group_by: what is wanted; `None` for nothing.
        most: samples in a global batch.

    Raises:
        DataError: on every rank, if a sample is too long, or a function of the user's own does not do.
    """
    if group_by is None:
        return data
    train = data.splits.train
    own = world.agreed("lengths", lambda: group_by.length(train, world.rank, world.size).tolist())
    lengths = np.empty(len(train), np.int64)
    for rank, part in enumerate(world.allgather_object(own, "all lengths")):
        lengths[rank :: world.size] = part
    grouping = world.agreed("batches", lambda: group_by.make(lengths, most))
    fingerprint = hashlib.sha256(f"{data.fingerprint}/{grouping.digest}".encode()).hexdigest()
    return data._replace(fingerprint=fingerprint, grouping=grouping)


def build_augmentation(config: RunConfig, splits: Splits) -> Augmentation:
    """What is done to samples.

    Raises:
        DataError: if it does not suit them.
    """
    section = config.data.augment
    if config.data.pictures is not None:  # which their recipe has normalised already
        return Augmentation(is_done=True)
    mean, std = [None if values is None else tuple(values) for values in (section.mean, section.std)]
    augmentation = Augmentation(pad_crop=section.pad_crop, flip=section.flip, mean=mean, std=std)
    augmentation.check(splits.sample_shape)
    return augmentation


def first_samples(dataset: Dataset, augmentation: Augmentation, count: int) -> tuple[Data, Data]:
    """A few samples and their labels, as the network and the loss are given them."""
    return evaluation_samples(dataset, np.arange(min(count, len(dataset))), augmentation)
