"""A split over anything with a length and an index, such as a `gluon.data.Dataset`, read item by item.

Knows what an item may look like; `purity.py` checks whether items are functions of their index.
"""

from __future__ import annotations

import copy
import hashlib
import threading
import traceback
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from harness.data.arrays import Indices, Scales, Subset, as_array, check_sample, default_scales, scales_of
from harness.data.generators import Reading, Seeding, kept_generators, states
from harness.data.leaves import Array, Data, leaves_of, pack
from harness.errors import DataError, HarnessError
from harness.named import kind_of

NUM_PROBED = 16
_PAIR = "an item is a pair (data, label), or with several inputs ((a, b), label) or (a, b, label)"


@runtime_checkable
class Items(Protocol):
    """What `SequenceDataset` wraps; a `gluon.data.Dataset` is one."""

    def __len__(self) -> int:
        """The number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """One item: a pair `(data, label)`."""


class SequenceDataset:
    """A split over items, read one by one in one thread; an `ArrayDataset` is many times faster.

    An item is a pair `(data, label)` of NumPy arrays, numbers, or MXNet arrays. For a network with several inputs it is
    `((a, b), label)` or `(a, b, label)`: a tuple of arrays is one array per input, a list of numbers is one array.
    All items must have the types and shapes of the first.

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
        data, label = self.read(0)
        self._is_several = isinstance(data, tuple)
        self._first = [*leaves_of(data), label]
        if isinstance(full_scale, str):
            full_scale = default_scales(tuple(leaf[None] for leaf in data) if isinstance(data, tuple) else data[None])
        self.full_scale: Scales = full_scale
        inputs = [(leaf.dtype, leaf.shape) for leaf in self._first[:-1]]
        check_sample(source, inputs, label.dtype, scales_of(full_scale, len(inputs)))

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.items)

    def take(self, indices: Indices, *draws: int) -> tuple[Data, Array]:
        """New arrays with the data and the labels of these items, in this order.

        Args:
            indices: which items.
            draws: epoch and seed, which together with the item's index determine random numbers; by default epoch 0, as
                in evaluation, and the seed of `seeding`.
        """
        parts = [np.empty((len(indices), *one.shape), one.dtype) for one in self._first]
        with kept_generators(self.seeding):
            for row, index in enumerate(indices.tolist()):
                if self.seeding is not None:
                    self.seeding.begin(index, *draws)
                data, label = self.read(index)
                for part, one in zip(parts, self._checked(index, [*leaves_of(data), label]), strict=True):
                    part[row] = one
        self._refuse_classes(indices, parts[-1])
        return pack(parts[:-1], self._is_several), parts[-1]

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
        check_sample(
            self.source,
            [(leaf.dtype, leaf.shape) for leaf in self._first[:-1]],
            self._first[-1].dtype,
            scales_of(full_scale, len(self._first) - 1),
        )
        return other

    def seeded(self, seeding: Seeding) -> SequenceDataset:
        """The same items, with the global generators seeded before each read."""
        other = copy.copy(self)
        other.seeding = seeding
        return other

    def read(self, index: int) -> tuple[Data, Array]:
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

    def _parts(self, index: int, item: Any) -> tuple[Data, Array]:
        if not isinstance(item, tuple | list) or len(item) < 2:
            found = f"{kind_of(item)} of {len(item)}" if isinstance(item, tuple | list) else kind_of(item)
            raise DataError(f"{self.source}: item {index} is {found}; {_PAIR}")
        *inputs, label = item
        if len(inputs) == 1:
            if not (isinstance(inputs[0], tuple) and any(map(_is_no_number, inputs[0]))):
                return self._array(index, inputs[0]), self._array(index, label)
            inputs = list(inputs[0])
        return tuple(self._array(index, one) for one in inputs), self._array(index, label)

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

    def _checked(self, index: int, parts: list[Array]) -> list[Array]:
        if len(parts) != len(self._first):
            raise DataError(
                f"{self.source}: item {index} has {len(parts) - 1} inputs, but item 0 has {len(self._first) - 1}; give "
                f"all items the same number"
            )
        for number, (got, wanted) in enumerate(zip(parts, self._first, strict=True)):
            if got.shape != wanted.shape or got.dtype != wanted.dtype:
                is_label = number == len(parts) - 1
                name = "label" if is_label else f"input {number + 1}" if self._is_several else "data"
                raise DataError(
                    f"{self.source}: the {name} of item {index} is {got.dtype} {got.shape}, but that of item 0 is "
                    f"{wanted.dtype} {wanted.shape}; give all items the same type and shape"
                )
        return parts

    def _refuse_classes(self, indices: Indices, label: Array) -> None:
        if self.num_classes is None:
            return
        bad = np.argwhere((label < 0) | (label >= self.num_classes))
        if len(bad):
            place = tuple(bad[0].tolist())
            raise DataError(
                f"{self.source}: the label of item {indices[place[0]]} is {label[place]}, which is not in "
                f"0..{self.num_classes - 1}; fix it, or set num_classes"
            )


def probed_indices(count: int) -> Indices:
    """The items to probe: the first, the last, and some evenly spaced between them."""
    return np.unique(np.linspace(0, count - 1, NUM_PROBED).astype(np.int64))


def digest_of(data: Data, label: Array) -> bytes:
    """16 bytes that depend on types, shapes and values of one item."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (*leaves_of(data), label):
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _is_no_number(value: Any) -> bool:
    """Whether an element of a tuple or list is an array or a list rather than a number."""
    return not isinstance(value, int | float | complex | np.generic | str | bytes) and (
        not hasattr(value, "shape") or value.shape != ()
    )
