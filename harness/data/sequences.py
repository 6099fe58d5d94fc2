"""A split over anything with a length and an index, such as a `gluon.data.Dataset`, read item by item.

Knows what an item may look like; `purity.py` checks whether items are functions of their index.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from harness.data.arrays import Dataset, Indices, Scales, Subset, check_sample, default_scales
from harness.data.collates import Stack
from harness.data.functions import Transform
from harness.data.generators import Reading, Seeding, generator_of, kept_generators, states
from harness.data.items import Sample, digest_of, digest_of_any, pair_of
from harness.data.leaves import Array, Data, each_leaf, leaves_of, names_of, pack, row_of
from harness.errors import DataError, HarnessError
from harness.named import where_raised

NUM_PROBED = 16
_OR_PADDED = (
    " and shape, or fill up what differs in length (data.collate: pad, in a program collate='pad'), or collate by a "
    "function of your own"
)


ReadItems = Callable[[Indices, tuple[int, ...], Callable[[int, list[Array]], None]], None]
"""Reads items elsewhere: which, and epoch and seed; calls what comes last with the row and the arrays of each."""


@runtime_checkable
class Items(Protocol):
    """What `SequenceDataset` wraps; a `gluon.data.Dataset` is one."""

    def __len__(self) -> int:
        """The number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """One item: a pair `(data, label)`."""


class SequenceDataset:
    """A split over items, read one by one in one thread; an `ArrayDataset` is many times faster.

    An item is a pair `(data, label)` of NumPy arrays, numbers, or MXNet arrays. Each may be a tuple or a dict of those:
    `((a, b), label)`, `(a, {"boxes": b, "classes": c})`; `(a, b, label)` is `((a, b), label)`. A tuple of numbers and
    a list are one array. All items must have the structure, types and shapes of the first. With a transform, items may
    be anything of which it makes such a pair.

    Attributes:
        num_classes: if set, classes are checked when they are read.
        first_readings: the results of the very first reading of the probed items, by index: a cached item
            draws only in that reading.
        seeding: seeds the global generators before an item is read; None if items do not draw from them.
        transform: makes items of what the sequence holds; None leaves them as they are.
        workers: read the items instead of this process, if there are any.
        is_ragged: whether items may have other shapes than the first.

    Args:
        items: the sequence; indexed with plain integers.
        full_scale: the divisor for integer data; None leaves integers unchanged. By default byte images
            are divided by 255.
        source: where the items come from, for messages.
        transform: see above.
        is_ragged: for a `CollatedDataset` around it.

    Raises:
        DataError: if there are no items, or the first is not valid.
    """

    # two threads must not read Gluon's record files at once, and several data sets may share one
    _reading: ClassVar[Any] = threading.RLock()

    def __init__(
        self,
        items: Items,
        full_scale: Scales | str = "default",
        source: str = "data",
        transform: Transform | None = None,
        is_ragged: bool = False,
    ) -> None:
        """Read the first item; the others must be like it."""
        self.items = items
        self.source = source
        self.transform = transform
        self.is_ragged = is_ragged
        self.num_classes: int | None = None
        self.seeding: Seeding | None = None
        self.workers: ReadItems | None = None
        if len(items) == 0:
            raise DataError(f"{source}: no samples; a split needs at least one, so omit an empty split")
        self.first_readings: dict[int, Reading] = {}
        self._probed = frozenset(probed_indices(len(items)).tolist())
        self._first = self.read(0)
        if isinstance(full_scale, str):
            full_scale = default_scales(each_leaf(lambda leaf: leaf[None], self._first[0]))
        self.full_scale: Scales = full_scale
        self._check_first()

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.items)

    def take(self, indices: Indices, *draws: int) -> tuple[Data, Data]:
        """New arrays with the data and the labels of these items, in this order.

        Args:
            indices: which items.
            draws: epoch and seed, which together with the item's index determine random numbers; by default epoch 0, as
                in evaluation, and the seed of `seeding`, and a transform gets no generator.
        """
        if self.is_ragged:
            return Stack()(self.samples(indices, *draws), None)
        data, label = (
            each_leaf(lambda one: np.empty((len(indices), *one.shape), one.dtype), first) for first in self._first
        )
        parts = (*leaves_of(data), *leaves_of(label))

        def fill(row: int, leaves: list[Array]) -> None:
            for part, one in zip(parts, leaves, strict=True):
                part[row] = one

        self._read_each(indices, draws, fill)
        if self.num_classes is not None and isinstance(label, np.ndarray):
            self._refuse_classes(indices, label, self.num_classes)
        return data, label

    def samples(self, indices: Indices, *draws: int) -> list[Sample]:
        """Data and label of each of these items, which may differ in shape if the data set is ragged.

        Args:
            indices: which items.
            draws: as for `take`.
        """
        data, label = self._first
        num_data = len(leaves_of(data))
        found: list[Sample] = [self._first] * len(indices)

        def keep(row: int, leaves: list[Array]) -> None:
            copies = [leaf.copy() for leaf in leaves]  # an item may be read into the memory of the one before
            found[row] = pack(copies[:num_data], data), pack(copies[num_data:], label)

        self._read_each(indices, draws, keep)
        if self.num_classes is not None and isinstance(label, np.ndarray):
            for index, (_, one) in zip(indices, found, strict=True):
                (leaf,) = leaves_of(one)
                self._refuse_classes(np.array([index]), leaf[None], self.num_classes)
        return found

    def subset(self, indices: Indices) -> Subset:
        """A data set of these items, without copying them."""
        return Subset(self, indices)

    def labels(self) -> None:
        """None: reading them all would mean reading every item."""
        return

    def with_scale(self, full_scale: Scales) -> SequenceDataset:
        """The same items with another divisor."""
        other = copy.copy(self)
        other.full_scale = full_scale
        other._check_first()
        return other

    def ragged(self) -> SequenceDataset:
        """The same items, which may have other shapes than the first."""
        other = copy.copy(self)
        other.is_ragged = True
        return other

    def seeded(self, seeding: Seeding) -> SequenceDataset:
        """The same items, with the global generators seeded before each read."""
        other = copy.copy(self)
        other.seeding = seeding
        return other

    def read_by(self, workers: ReadItems) -> SequenceDataset:
        """The same items, which others read."""
        other = copy.copy(self)
        other.workers = workers
        return other

    def _check_first(self) -> None:
        data, label = (each_leaf(lambda leaf: leaf[None], first) for first in self._first)
        check_sample(self.source, data, label, self.full_scale, is_ragged=self.is_ragged)

    def _read_each(self, indices: Indices, draws: tuple[int, ...], accept: Callable[[int, list[Array]], None]) -> None:
        """Read items, here or in workers, and hand over the row and the arrays of each."""
        if self.workers is not None:
            self.workers(indices, draws, accept)
            return
        with kept_generators(self.seeding):
            for row, leaves in enumerate(self.leaves(indices, draws)):
                accept(row, leaves)

    def leaves(self, indices: Indices, draws: tuple[int, ...] = ()) -> Iterator[list[Array]]:
        """The arrays of each item, data before labels, like those of the first; read in this process.

        Args:
            indices: which items.
            draws: as for `take`; global generators are seeded for each item, and not put back.
        """
        for index in indices.tolist():
            if self.seeding is not None:
                self.seeding.begin(index, *draws)
            random = None
            if self.transform is not None and draws:
                epoch, seed = draws
                random = generator_of(f"transform/{seed}/{epoch}/{index}")
            yield self._checked(index, self.read(index, random))

    def read(self, index: int, random: np.random.Generator | None = None) -> Sample:
        """Data and label of one item, of any shape.

        Args:
            index: its number.
            random: what a transform draws from; None as in evaluation.

        Raises:
            DataError: if reading it raises, or it is not valid.
        """
        item = self.read_raw(index)
        if self.transform is not None:
            return self.transform(item, random, index)
        with self._reading:
            pair: Sample = self._explained(index, lambda: pair_of(f"{self.source}: item {index}", item))
        return pair

    def read_raw(self, index: int) -> Any:
        """One item as the sequence holds it, before a transform.

        Raises:
            DataError: if reading it raises.
        """

        def read() -> Any:
            if index not in self._probed or index in self.first_readings:
                return self.items[index]
            before = states()
            item = self.items[index]
            digest = self._digest_of(index, item)
            self.first_readings[index] = Reading(digest, states() != before)
            return item

        with self._reading:
            return self._explained(index, read)

    def digest(self, index: int) -> bytes:
        """16 bytes that depend on the values of one item, before a transform; it is read for that."""
        with self._reading:
            digest: bytes = self._explained(index, lambda: self._digest_of(index, self.read_raw(index)))
        return digest

    def _digest_of(self, index: int, item: Any) -> bytes:
        if self.transform is not None:
            return digest_of_any(item)
        return digest_of(*pair_of(f"{self.source}: item {index}", item))

    def _explained(self, index: int, work: Callable[[], Any]) -> Any:
        """Turn whatever a user's code raises into one sentence."""
        try:
            return work()
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(
                f"{self.source}: reading item {index} raised {type(error).__name__}: {error} "
                f"(at {where_raised(error)}); fix it, or leave the item out"
            ) from error

    def _checked(self, index: int, item: Sample) -> list[Array]:
        """The leaves of an item, data before labels, each like that of item 0."""
        parts = []
        for what, part, first in zip(("data", "label"), item, self._first, strict=True):
            names = names_of(first, what)
            found = dict(zip(names_of(part, what), leaves_of(part), strict=True))
            if found.keys() != set(names):
                raise DataError(
                    f"{self._where}: item {index} has {', '.join(found)}, but item 0 has {', '.join(names)}; give all "
                    "items the same structure"
                )
            for name, wanted in zip(names, leaves_of(first), strict=True):
                got = found[name]
                if self.is_ragged and got.size == 0:
                    got = got.astype(wanted.dtype)  # an empty list has no type of its own
                if got.dtype != wanted.dtype or (got.shape != wanted.shape and not self.is_ragged):
                    advice = "" if self.is_ragged else " and shape" if got.dtype != wanted.dtype else _OR_PADDED
                    raise DataError(
                        f"{self._where}: the {name} of item {index} is {got.dtype} {got.shape}, but that of item 0 is "
                        f"{wanted.dtype} {wanted.shape}; give all items the same type{advice}"
                    )
                parts.append(got)
        return parts

    @property
    def _where(self) -> str:
        return self.source if self.transform is None else f"{self.source}: {self.transform.where}"

    def _refuse_classes(self, indices: Indices, label: Array, num_classes: int) -> None:
        bad = np.argwhere((label < 0) | (label >= num_classes))
        if len(bad):
            place = tuple(bad[0].tolist())
            raise DataError(
                f"{self.source}: the label of item {indices[place[0]]} is {label[place]}, which is not in "
                f"0..{num_classes - 1}; fix it, or set num_classes"
            )


def probed_indices(count: int) -> Indices:
    """The items to probe: the first, the last, and some evenly spaced between them."""
    return np.unique(np.linspace(0, count - 1, NUM_PROBED).astype(np.int64))


def samples_of(dataset: Dataset, indices: Indices, *draws: int) -> list[Sample]:
    """Data and label of each of these samples by itself.

    Args:
        dataset: any but a collated one.
        indices: which samples.
        draws: epoch and seed in training; none in evaluation.
    """
    while isinstance(dataset, Subset):
        indices = dataset.indices[indices]
        dataset = dataset.dataset
    if isinstance(dataset, SequenceDataset):
        return dataset.samples(indices, *draws)
    data, label = dataset.take(indices)
    return [(row_of(data, row), row_of(label, row)) for row in range(len(indices))]
