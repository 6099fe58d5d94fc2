"""What a run's network sees of chosen samples: read, augmented and labelled as in training, without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from harness.config import RunConfig
from harness.config.pictures import picture_request
from harness.data import BatchStream, Dataset, Order, Splits, seeded_splits
from harness.data.arrays import Indices, Subset
from harness.data.collated import CollatedDataset, innermost, network_samples, uncollated
from harness.data.folders import PictureFiles, class_names_of
from harness.data.leaves import Array, Data, leaves_of, names_of, row_of
from harness.data.pictures.dataset import PictureDataset
from harness.errors import ConfigError, DataError
from harness.model.inputs import seed_generator
from harness.plan import resolve_shards
from harness.report.sheet import View
from harness.train.samples import build_augmentation, group_by_of, load_splits, probe_items

_MOST_NUMBERS = 4  # of a label that are shown
_SMALL_SHARE = 0.005  # of a class in a label of shares, that is not worth a word


class Shown:
    """The data of a configuration, sample by sample, as its network gets them; use it as a context manager.

    Attributes:
        splits: the data, ready for use.
        source: where the samples of the split come from.

    Args:
        config: of the run.
        split: `train`, `validation` or `test`.
        threads: that decode pictures.

    Raises:
        ConfigError: if there is no such split.
        DataError: if the data cannot be read.
    """

    def __init__(self, config: RunConfig, split: str, threads: int = 1) -> None:
        """Read the data as a run would, and seed what draws at random."""
        splits = load_splits(config, threads)
        self.splits: Splits = seeded_splits(splits, probe_items(splits), config.seed, seed_generator)
        self._config, self._split = config, split
        self._augmentation = build_augmentation(config, self.splits)
        dataset: Dataset | None = getattr(self.splits, split)
        if dataset is None:
            self.close()
            raise ConfigError(f"--split: there are no {split} samples; the configuration has none")
        self._dataset = dataset
        self.source = dataset.source
        self._classes = _class_names(config, dataset)

    def close(self) -> None:
        """End the threads that decode; calling this again does nothing."""
        for split in (self.splits.train, self.splits.validation, self.splits.test):
            items = innermost(split)
            if isinstance(items, PictureDataset):
                items.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __len__(self) -> int:
        """The number of samples of the split."""
        return len(self._dataset)

    @property
    def is_collated(self) -> bool:
        """Whether a function makes batches of the samples."""
        return isinstance(self._dataset, CollatedDataset)

    @property
    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        """The mean that is subtracted from each channel, and the deviation that it is then divided by."""
        pictures, own = picture_request(self._config.data), self._augmentation
        if pictures is not None:
            return pictures.recipe.mean, pictures.recipe.std
        return own.mean or (0.0,), own.std or (1.0,)

    def samples(self, indices: Indices, epochs: Sequence[int]) -> Iterator[View]:
        """Each of these samples in each of these epochs; in evaluation epochs do not matter.

        Args:
            indices: of the split.
            epochs: from 1.

        Raises:
            DataError: if a sample cannot be read, or is no picture.
        """
        items = uncollated(self._dataset)
        found = {}
        for epoch in epochs:
            draws = (epoch, self._config.seed) if self._split == "train" else ()
            found[epoch] = network_samples(items, indices, self._augmentation, draws)
        for row, index in enumerate(indices.tolist()):
            for epoch in epochs:
                name = f"sample {index}" + (f", epoch {epoch}" if len(epochs) > 1 else "")
                yield self._view(*found[epoch][row], name, self._file_of(items, index))

    def iteration(self, t: int) -> Iterator[View]:
        """The global batch of an iteration, as one worker and its shards see it.

        Args:
            t: from 1.

        Raises:
            ConfigError: if the run ends before.
            DataError: if a sample cannot be read, or is no picture.
        """
        config = self._config
        shards = resolve_shards(config, 1)
        group_by = group_by_of(config)
        grouping = None
        if group_by is not None:
            grouping = group_by.make(group_by.length(self._dataset), shards * config.batch.size)
        streams = config.network.state is not None
        size = len(self._dataset), shards, config.batch.size, config.seed, config.train.last_batch
        order = Order(*size, are_streams=streams, grouping=grouping)
        last = config.train.iterations or (config.train.epochs or 0) * order.iterations_per_epoch
        if t > last:
            raise ConfigError(f"--iteration: there is no iteration {t}; the run has {last}; allowed: 1 to {last}")
        items = uncollated(self._dataset)
        with BatchStream(self._dataset, order, range(shards), self._augmentation, config.seed) as stream:
            batch = stream(t)
        for shard in batch.batches:
            indices = order.shard_indices(t, shard.shard)
            for row in range(shard.count):
                index = int(indices[row])
                name = f"sample {index}" + (f", shard {shard.shard}" if shards > 1 else "")
                yield self._view(row_of(shard.data, row), row_of(shard.label, row), name, self._file_of(items, index))

    def _view(self, data: Data, label: Data, name: str, source: str) -> View:
        return View(_picture(data, self.source), name, label_in_words(label, self._classes), source)

    def _file_of(self, dataset: Any, index: int) -> str:
        while isinstance(dataset, Subset):
            dataset, index = dataset.dataset, int(dataset.indices[index])
        return dataset.pictures.name_of(index) if isinstance(dataset, PictureDataset) else ""


def label_in_words(label: Data, classes: Sequence[str] | None = None) -> str:
    """A label as a word or a few.

    >>> label_in_words(np.int32(1), ("cat", "dog")), label_in_words(np.array([0.25, 0, 0.75], np.float32))
    ('1 dog', '2: 75%, 0: 25%')

    Args:
        label: of one sample, without the first dimension; shares of classes are a vector that sums to 1.
        classes: the name of each class.
    """
    if isinstance(label, tuple | dict):
        parts = zip(names_of(label, "label"), leaves_of(label), strict=True)
        return "; ".join(f"{name} {label_in_words(leaf, classes)}" for name, leaf in parts)
    values = np.asarray(label)
    if values.ndim == 0:
        return _class_in_words(int(values), classes) if values.dtype.kind in "iu" else f"{float(values):.4g}"
    if _are_shares(values):
        largest = np.argsort(-values, kind="stable")[:_MOST_NUMBERS].tolist()
        shares = [(one, float(values[one])) for one in largest if values[one] >= _SMALL_SHARE]
        return ", ".join(f"{_class_in_words(one, classes)}: {share:.0%}" for one, share in shares)
    if values.size <= _MOST_NUMBERS:
        return ", ".join(f"{one:.4g}" for one in values.ravel().tolist())
    return f"{values.dtype} {values.shape}"


def _are_shares(values: Array) -> bool:
    """Whether numbers are shares of classes, which sum to 1."""
    is_vector = values.ndim == 1 and values.size > 1 and values.dtype.kind == "f"
    return is_vector and bool((values >= 0).all()) and abs(float(values.sum()) - 1.0) < 1e-3


def _class_in_words(number: int, classes: Sequence[str] | None) -> str:
    return f"{number} {classes[number]}" if classes is not None and 0 <= number < len(classes) else str(number)


def _picture(data: Data, source: str) -> Array:
    """The first input that is a picture, `(channels, height, width)`."""
    for leaf in leaves_of(data):
        if leaf.ndim in (2, 3) and min(leaf.shape) >= 1 and min(leaf.shape[-2:]) > 1:
            found: Array = leaf[None] if leaf.ndim == 2 else leaf
            return found
    shapes = ", ".join(f"{leaf.dtype} {leaf.shape}" for leaf in leaves_of(data))
    raise DataError(f"{source}: samples are {shapes}, and no picture, (channels, height, width) or (height, width)")


def _class_names(config: RunConfig, dataset: Dataset) -> Sequence[str] | None:
    """The names of classes: folders, or the lines of `data.pictures.class_names`."""
    pictures, root = picture_request(config.data), config.data.root
    path = None if pictures is None else pictures.class_names_under(None if root is None else Path(root).expanduser())
    if path is not None:
        return class_names_of(path)
    items = innermost(dataset)
    if isinstance(items, PictureDataset) and isinstance(items.pictures, PictureFiles):
        return items.pictures.classes
    return None
