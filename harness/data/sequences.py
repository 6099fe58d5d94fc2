"""A split over anything with a length and an index, such as a `gluon.data.Dataset`, read item by item.

Knows what an item may look like; `purity.py` checks whether items are functions of their index.
"""

from __future__ import annotations

import copy
import hashlib
import threading
import traceback
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from harness.data.arrays import Indices, Scales, Subset, as_array, check_sample, default_scales
from harness.data.generators import Reading, Seeding, kept_generators, states
from harness.data.leaves import Array, Data, each_leaf, leaves_of, names_of
from harness.errors import DataError, HarnessError
from harness.named import kind_of

NUM_PROBED = 16
_PAIR = (
    "an item is a pair (data, label), or with several inputs ((a, b), label), (a, b, label) or "
    "({'a': a, 'b': b}, label)"
)


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
    a list are one array. All items must have the structure, types and shapes of the first.

    Attributes:
        num_classes: if set, classes are checked when they are read.
        first_readings: the results of the very first reading of the probed items, by index: a cached item
            draws only in that reading.
        seeding: seeds the global generators before an item is read; None if items do not draw from them.

    Args:
        items: the sequence; indexed with plain integers.
        full_scale: the divisor for integer data; None leaves integers unchanged. By default byte images
            are divided by 255.
        source: where the items come from, for messages.

    Raises:
        DataError: if there are no items, or the first is not valid.
    """

    # two threads must not read Gluon's record files at once, and several data sets may share one
    _reading: ClassVar[Any] = threading.RLock()

    def __init__(self, items: Items, full_scale: Scales | str = "default", source: str = "data") -> None:
        """Read the first item; the others must be like it."""
        self.items = items
        self.source = source
        self.num_classes: int | None = None
        self.seeding: Seeding | None = None
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
                in evaluation, and the seed of `seeding`.
        """
        data, label = (
            each_leaf(lambda one: np.empty((len(indices), *one.shape), one.dtype), first) for first in self._first
        )
        parts = (*leaves_of(data), *leaves_of(label))
        with kept_generators(self.seeding):
            for row, index in enumerate(indices.tolist()):
                if self.seeding is not None:
                    self.seeding.begin(index, *draws)
                for part, one in zip(parts, self._checked(index, self.read(index)), strict=True):
                    part[row] = one
        if self.num_classes is not None and isinstance(label, np.ndarray):
            self._refuse_classes(indices, label, self.num_classes)
        return data, label

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

    def seeded(self, seeding: Seeding) -> SequenceDataset:
        """The same items, with the global generators seeded before each read."""
        other = copy.copy(self)
        other.seeding = seeding
        return other

    def _check_first(self) -> None:
        data, label = (each_leaf(lambda leaf: leaf[None], first) for first in self._first)
        check_sample(self.source, data, label, self.full_scale)

    def read(self, index: int) -> tuple[Data, Data]:
        """Data and label of one item, unchanged.

        Raises:
            DataError: if reading it raises, or it is not valid.
        """
        try:
            with self._reading:
                if index not in self._probed or index in self.first_readings:
                    return self._parts(index, self.items[index])
                before = states()
                data, label = self._parts(index, self.items[index])
                drew = states() != before
                self.first_readings[index] = Reading(digest_of(data, label), drew)
                return data, label
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise DataError(
                f"{self.source}: reading item {index} raised {type(error).__name__}: {error} "
                f"(at {last.filename}:{last.lineno}); fix it, or leave the item out"
            ) from error

    def _parts(self, index: int, item: Any) -> tuple[Data, Data]:
        if not isinstance(item, tuple | list) or len(item) < 2:
            found = f"{kind_of(item)} of {len(item)}" if isinstance(item, tuple | list) else kind_of(item)
            raise DataError(f"{self.source}: item {index} is {found}; {_PAIR}")
        *inputs, label = item
        if len(inputs) > 1:
            return tuple(self._array(index, one) for one in inputs), self._nested(index, label)
        return self._nested(index, inputs[0]), self._nested(index, label)

    def _nested(self, index: int, value: Any) -> Data:
        if isinstance(value, Mapping) and value:
            return {str(key): self._array(index, one) for key, one in value.items()}
        if isinstance(value, tuple) and any(map(_is_no_number, value)):
            return tuple(self._array(index, one) for one in value)
        return self._array(index, value)

    def _array(self, index: int, value: Any) -> Array:
        if isinstance(value, list | tuple) and any(map(_is_no_number, value)):
            arrays = [self._array(index, one) for one in value]
            if len({one.shape for one in arrays}) > 1:
                raise DataError(
                    f"{self.source}: item {index} has {kind_of(value)} of arrays of the shapes "
                    f"{', '.join(str(one.shape) for one in arrays[:3])}, which cannot form an array; {_PAIR}"
                )
            return np.asanyarray(arrays)
        array = as_array(value)
        if array.dtype.kind == "O":
            raise DataError(
                f"{self.source}: item {index} has {kind_of(value)}, which is not an array of numbers; {_PAIR}"
            )
        return array

    def _checked(self, index: int, item: tuple[Data, Data]) -> list[Array]:
        """The leaves of an item, data before labels, each like that of item 0."""
        parts = []
        for what, part, first in zip(("data", "label"), item, self._first, strict=True):
            names = names_of(first, what)
            found = dict(zip(names_of(part, what), leaves_of(part), strict=True))
            if found.keys() != set(names):
                raise DataError(
                    f"{self.source}: item {index} has {', '.join(found)}, but item 0 has {', '.join(names)}; give all "
                    "items the same structure"
                )
            for name, wanted in zip(names, leaves_of(first), strict=True):
                got = found[name]
                if got.shape != wanted.shape or got.dtype != wanted.dtype:
                    raise DataError(
                        f"{self.source}: the {name} of item {index} is {got.dtype} {got.shape}, but that of item 0 is "
                        f"{wanted.dtype} {wanted.shape}; give all items the same type and shape"
                    )
                parts.append(got)
        return parts

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


def digest_of(data: Data, label: Data) -> bytes:
    """16 bytes that depend on types, shapes and values of one item."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (*leaves_of(data), *leaves_of(label)):
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _is_no_number(value: Any) -> bool:
    """Whether an element of a tuple or list is an array or a list rather than a number."""
    return not isinstance(value, int | float | complex | np.generic | str | bytes) and (
        not hasattr(value, "shape") or value.shape != ()
    )
