"""A data set whose batches a function makes of its items, and the items as the network and that function get them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.data.arrays import ArrayDataset, Dataset, Indices, Scales, Subset
from harness.data.augment import Augmentation, labels_as_they_are
from harness.data.collates import Stack
from harness.data.functions import Collate, Functions, Random, numbered
from harness.data.generators import generator_of
from harness.data.leaves import Data, each_leaf, leaves_of, names_of, row_of
from harness.data.mixes import CutMix, Mixup
from harness.data.sequences import SequenceDataset, samples_of
from harness.errors import DataError

if TYPE_CHECKING:
    from typing import Any

    from harness.data.items import Sample


@dataclass(frozen=True, eq=False)
class CollatedDataset:
    """A data set whose batches a function makes of its items.

    Attributes:
        dataset: the items.
        collate: makes a batch of them.
    """

    dataset: Dataset
    collate: Collate

    @property
    def full_scale(self) -> Scales:
        """The divisor for integer data of the items."""
        return self.dataset.full_scale

    @property
    def source(self) -> str:
        """Where the samples come from."""
        return self.dataset.source

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.dataset)

    def take(self, indices: Indices, *draws: int) -> tuple[Data, Data]:
        """These samples in a batch, as in evaluation and without augmentation."""
        return self.batch(indices, Augmentation())

    def batch(
        self, indices: Indices, augmentation: Augmentation, draws: tuple[int, ...] = (), random: Random = None
    ) -> tuple[Data, Data]:
        """A batch of these samples, as the network gets it.

        Args:
            indices: at least one.
            augmentation: of the items, before they are collated.
            draws: epoch and seed in training; none in evaluation.
            random: what the collate draws from; None in evaluation.
        """
        items = network_samples(self.dataset, indices, augmentation, draws)
        return self.collate(items, random, f"{self.source}: {numbered(indices.tolist())}")

    def subset(self, indices: Indices) -> CollatedDataset:
        """A data set of these samples, without copying them."""
        return CollatedDataset(self.dataset.subset(indices), self.collate)

    def labels(self) -> None:
        """None: batches have others than items."""
        return


class BatchForm(NamedTuple):
    """What batches of a collated data set have in common, and those that hold nothing.

    Attributes:
        data: of one sample.
        label: of one sample.
    """

    data: Data
    label: Data

    @classmethod
    def of(cls, dataset: CollatedDataset, augmentation: Augmentation) -> BatchForm:
        """That of a batch of one sample in evaluation."""
        return cls(*dataset.batch(np.arange(1), augmentation))

    @property
    def empty(self) -> tuple[Data, Data]:
        """A batch without samples."""
        none = [each_leaf(lambda leaf: leaf[:0], part) for part in self]
        return none[0], none[1]

    def check(self, where: str, data: Data, label: Data) -> None:
        """Raise a `DataError` for a batch that differs in more than the sizes of its arrays.

        Args:
            where: the batch, for messages.
            data: of the batch.
            label: of the batch.
        """
        found, wanted = _form(data, label), _form(*self)
        if found != wanted:
            name = next((one for one in (*wanted, *found) if wanted.get(one) != found.get(one)), "")
            raise DataError(
                f"{where}: gave {_told(name, found)}, but {_told(name, wanted)} for one item in evaluation; return the "
                "same arrays, with the same types and numbers of dimensions, for every batch"
            )


def training_batch(
    dataset: CollatedDataset,
    form: BatchForm,
    indices: Indices,
    augmentation: Augmentation,
    *,
    epoch: int,
    seed: int,
    t: int,
    shard: int,
) -> tuple[Data, Data]:
    """A shard of global batch `t`; its collate draws from a generator of `(seed, t, shard)`.

    Args:
        dataset: the training set.
        form: of its batches.
        indices: which samples; may be none.
        augmentation: of the items.
        epoch: of iteration `t`.
        seed: of the run, or of a sweep.
        t: the iteration.
        shard: its number.
    """
    if not len(indices):
        return form.empty
    random = generator_of(f"collate/{seed}/{t}/{shard}")
    data, label = dataset.batch(indices, augmentation, (epoch, seed), random)
    form.check(f"{dataset.collate.where}: iteration {t}, shard {shard}", data, label)
    return data, label


def network_samples(
    dataset: Dataset, indices: Indices, augmentation: Augmentation, draws: Sequence[int] = ()
) -> list[Sample]:
    """Samples as a network gets them, scaled and augmented, each by itself and with arrays that cannot be written to.

    Args:
        dataset: any but a collated one.
        indices: which samples.
        augmentation: in training all of it, in evaluation its normalisation.
        draws: epoch and seed in training; none in evaluation.
    """
    scale, source = dataset.full_scale, dataset.source

    def prepared(data: Data, label: Data, own: Indices) -> tuple[Data, Data]:
        def name(row: int) -> str:
            return f"{source}: sample {own[row]}"

        if draws:
            data = augmentation.train(data, draws[0], own, draws[1], scale, name)
        else:
            data = augmentation.evaluate(data, scale, name)
        return data, labels_as_they_are(label, lambda row: f"{source}: label {own[row]}")

    if not isinstance(innermost(dataset), SequenceDataset):  # all at once
        data, label = prepared(*dataset.take(indices, *draws), indices)
        return [(_read_only(row_of(data, row)), _read_only(row_of(label, row))) for row in range(len(indices))]
    found = []
    for row, sample in enumerate(samples_of(dataset, indices, *draws)):
        data, label = (each_leaf(lambda leaf: leaf[None], part) for part in sample)
        data, label = prepared(data, label, indices[row : row + 1])
        found.append((_read_only(row_of(data, 0)), _read_only(row_of(label, 0))))
    return found


def uncollated(dataset: Any) -> Any:
    """The items of a collated data set; any other as it is."""
    return dataset.dataset if isinstance(dataset, CollatedDataset) else dataset


def innermost(dataset: Any) -> Any:
    """The data set that subsets are made of, without its collate."""
    dataset = uncollated(dataset)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def with_innermost(dataset: Any, change: Callable[[Any], Any]) -> Any:
    """A data set like this one, made of another innermost one.

    Args:
        dataset: any.
        change: makes that of its own.
    """
    if isinstance(dataset, Subset | CollatedDataset):
        return replace(dataset, dataset=with_innermost(dataset.dataset, change))
    return change(dataset)


def with_functions(dataset: Dataset, functions: Functions) -> Dataset:
    """A data set with the functions of a job.

    Args:
        dataset: of arrays or items; items that were made with the same transform keep it.
        functions: none, either or both.

    Raises:
        DataError: if the data set has functions of its own, or its items do not suit.
    """
    if functions.transform is None and functions.collate is None:
        return dataset
    if isinstance(dataset, CollatedDataset):
        if functions.collate is not None:
            raise DataError(
                f"{dataset.source}: has a collate of its own ({dataset.collate.where}) beside "
                f"{functions.collate.where}; remove one of them"
            )
        return CollatedDataset(_transformed(dataset.dataset, functions), dataset.collate)
    items = _transformed(dataset, functions)
    return items if functions.collate is None else CollatedDataset(items, functions.collate)


def unmixed(dataset: Dataset) -> Dataset:
    """The same data set, for samples that nobody trains on: what mixes those of a batch only stacks them."""
    if not (isinstance(dataset, CollatedDataset) and isinstance(dataset.collate.function, Mixup | CutMix)):
        return dataset
    return CollatedDataset(dataset.dataset, replace(dataset.collate, function=Stack()))


class _Rows:
    """The rows of arrays as items; new arrays, so that nobody writes to the data set's."""

    def __init__(self, dataset: ArrayDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Data, Data]:
        data, label = self._dataset.take(np.array([index]))
        return row_of(data, 0), row_of(label, 0)


def _transformed(dataset: Dataset, functions: Functions) -> Dataset:
    """Items by `functions.transform`, of any shape if there is a collate."""
    transform, is_ragged = functions.transform, functions.collate is not None
    if isinstance(dataset, Subset):
        return Subset(_transformed(dataset.dataset, functions), dataset.indices)
    if isinstance(dataset, SequenceDataset):
        own = dataset.transform
        if transform is None or (own is not None and own.function is transform.function):
            return dataset.ragged() if is_ragged else dataset
        if own is not None:
            raise DataError(
                f"{dataset.source}: has a transform of its own ({own.where}) beside {transform.where}; remove one of "
                "them"
            )
        return SequenceDataset(dataset.items, source=dataset.source, transform=transform, is_ragged=is_ragged)
    if transform is None:
        return dataset
    if not isinstance(dataset, ArrayDataset):
        raise DataError(
            f"{dataset.source}: {transform.where}: there is no transform of pictures that data.pictures reads; make "
            "targets and mix in data.collate, or read pictures as items of your own (data.name: module:function)"
        )
    made = SequenceDataset(_Rows(dataset), source=dataset.source, transform=transform, is_ragged=is_ragged)
    before, after = dataset.take(np.arange(1))[0], made.read(0)[0]
    is_alike = isinstance(before, np.ndarray) and isinstance(after, np.ndarray) and before.dtype == after.dtype
    return made.with_scale(dataset.full_scale) if is_alike else made  # such as digits, which are divided by 16


def _read_only(data: Data) -> Data:
    for leaf in leaves_of(data):
        leaf.flags.writeable = False
    return data


def _form(data: Data, label: Data) -> dict[str, tuple[np.dtype[Any], int]]:
    leaves = zip(
        (*names_of(data, "data"), *names_of(label, "label")), (*leaves_of(data), *leaves_of(label)), strict=True
    )
    return {name: (leaf.dtype, leaf.ndim) for name, leaf in leaves}


def _told(name: str, form: dict[str, tuple[np.dtype[Any], int]]) -> str:
    if name not in form:
        return f"no {name}"
    dtype, ndim = form[name]
    return f"{name} as {dtype} of {ndim} dimension{'' if ndim == 1 else 's'}"
