"""What a data set is here: something with a length that hands out the rows asked for, as NumPy arrays.

Knows nothing about where data come from, about batches, or about the order in which samples are used.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from harness.errors import DataError, HarnessError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Dataset(Protocol):
    """One split of a data set: `ArrayDataset`, `SequenceDataset` or `Subset`."""

    @property
    def full_scale(self) -> float:
        """What integer data are divided by; 1 for float data."""

    @property
    def source(self) -> str:
        """Where the samples come from, for messages."""

    def __len__(self) -> int:
        """The number of samples."""

    def take(self, indices: Indices) -> tuple[Array, Array]:
        """Fresh arrays with the data and the labels of these rows, in this order."""

    def subset(self, indices: Indices) -> Dataset:
        """A data set of these rows, without a copy of them."""

    def labels(self) -> Array | None:
        """All labels if reading them costs next to nothing, else None."""


@runtime_checkable
class Items(Protocol):
    """What `SequenceDataset` wraps; a `gluon.data.Dataset` is one."""

    def __len__(self) -> int:
        """The number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """One pair `(data, label)`."""


def default_full_scale(dtype: np.dtype[Any]) -> float:
    """255 for bytes, which are taken for pixels, and 1 for floats."""
    return 255.0 if dtype == np.uint8 else 1.0


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """A split held in two arrays, which may be memory-mapped and are never copied as a whole.

    Attributes:
        data: `(N, channels, height, width)` images, or `(N, ...)` anything; uint8, float32 or float64.
        label: `(N,)` integer classes, or `(N, ...)` floats for regression.
        full_scale: what integer data are divided by: 255 for images, 16 for `digits`; 1 for float data.
        source: where the arrays come from, for messages.

    Raises:
        DataError: if the arrays are not of these types and shapes.
    """

    data: Array
    label: Array
    full_scale: float
    source: str = "data"

    def __post_init__(self) -> None:
        """Refuse arrays that no batch could be made of."""
        if self.data.ndim < 1 or self.label.ndim < 1 or len(self.data) != len(self.label):
            raise DataError(
                f"{self.source}: data have shape {self.data.shape} and labels {self.label.shape}; the first dimension "
                "counts the samples, so give one label for each sample"
            )
        if len(self.data) == 0:
            raise DataError(f"{self.source}: no samples; a split has at least one, so leave an empty split out")
        _check_types(self.data.dtype, self.label.dtype, self.full_scale, self.source)
        _check_shapes(self.data.shape[1:], self.label.shape[1:], self.label.dtype, self.source)

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.data)

    def take(self, indices: Indices) -> tuple[Array, Array]:
        """Fresh arrays with the data and the labels of these rows, in this order."""
        return self.data[indices], self.label[indices]

    def subset(self, indices: Indices) -> Subset:
        """A data set of these rows, without a copy of them."""
        return Subset(self, indices)

    def labels(self) -> Array:
        """All labels."""
        return self.label


@dataclass(frozen=True, eq=False)
class Subset:
    """Some rows of another data set: an index, no copy."""

    dataset: Dataset
    indices: Indices

    @property
    def full_scale(self) -> float:
        """What integer data are divided by."""
        return self.dataset.full_scale

    @property
    def source(self) -> str:
        """Where the samples come from."""
        return self.dataset.source

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.indices)

    def take(self, indices: Indices) -> tuple[Array, Array]:
        """Fresh arrays with the data and the labels of these rows of the subset, in this order."""
        return self.dataset.take(self.indices[indices])

    def subset(self, indices: Indices) -> Subset:
        """A data set of these rows of the subset."""
        return Subset(self.dataset, self.indices[indices])

    def labels(self) -> Array | None:
        """All labels of the subset if the data set has them at hand."""
        labels = self.dataset.labels()
        return None if labels is None else labels[self.indices]


class SequenceDataset:
    """A split over anything that can be counted and indexed, such as a `gluon.data.Dataset`.

    An item is a pair `(data, label)` of NumPy arrays, numbers, or MXNet arrays, and all items have one shape. Items
    are read one by one, by the thread that assembles batches: an `ArrayDataset` is many times faster.

    Attributes:
        num_classes: classes are looked at when they are read, where there is such a number.

    Args:
        items: the sequence; it is indexed with plain integers.
        full_scale: what integer data are divided by; None means 255 for bytes and 1 for floats.
        source: where the items come from, for messages.

    Raises:
        DataError: if there are no items, or the first is not such a pair.
    """

    def __init__(self, items: Items, full_scale: float | None = None, source: str = "data") -> None:
        """Look at the first item; the others must be like it."""
        self.items = items
        self.source = source
        self.num_classes: int | None = None
        if len(items) == 0:
            raise DataError(f"{source}: no samples; a split has at least one, so leave an empty split out")
        data, label = self._first = self._item(0)
        self.full_scale = default_full_scale(data.dtype) if full_scale is None else full_scale
        _check_types(data.dtype, label.dtype, self.full_scale, source)
        _check_shapes(data.shape, label.shape, label.dtype, source)

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.items)

    def take(self, indices: Indices) -> tuple[Array, Array]:
        """Fresh arrays with the data and the labels of these items, in this order."""
        first_data, first_label = self._first
        data = np.empty((len(indices), *first_data.shape), first_data.dtype)
        label = np.empty((len(indices), *first_label.shape), first_label.dtype)
        for row, index in enumerate(indices.tolist()):
            item = self._item(index)
            for name, got, wanted in zip(("data", "label"), item, self._first, strict=True):
                if got.shape != wanted.shape or got.dtype != wanted.dtype:
                    raise DataError(
                        f"{self.source}: the {name} of item {index} is {got.dtype} {got.shape}, that of item 0 "
                        f"{wanted.dtype} {wanted.shape}; give all items one type and one shape"
                    )
            data[row], label[row] = item
        if self.num_classes is not None:
            bad = np.flatnonzero((label < 0) | (label >= self.num_classes))
            if len(bad):
                raise DataError(
                    f"{self.source}: the label of item {indices[bad[0]]} is {label[bad[0]]}, which is not in "
                    f"0..{self.num_classes - 1}; mend it, or set num_classes"
                )
        return data, label

    def subset(self, indices: Indices) -> Subset:
        """A data set of these items, without a copy of them."""
        return Subset(self, indices)

    def labels(self) -> None:
        """None: reading them all would mean reading every item."""
        return

    def _item(self, index: int) -> tuple[Array, Array]:
        try:
            item = self.items[index]
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise DataError(
                f"{self.source}: reading item {index} raised {type(error).__name__}: {error} "
                f"(at {last.filename}:{last.lineno}); mend it, or leave the item out"
            ) from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"{self.source}: item {index} is a {type(item).__name__}; an item is a pair (data, label)")
        return as_array(item[0]), as_array(item[1])


def as_array(value: Any) -> Array:
    """A NumPy array of anything array-like; MXNet's arrays are recognised by their `asnumpy`."""
    return np.asanyarray(value.asnumpy() if hasattr(value, "asnumpy") else value)


def _check_types(data: np.dtype[Any], label: np.dtype[Any], full_scale: float, source: str) -> None:
    if data.kind not in "iu" and not (data.kind == "f" and data.itemsize in (4, 8)):
        raise DataError(f"{source}: data are {data}; allowed are integers, float32 and float64, so convert them first")
    if label.kind not in "iuf":
        raise DataError(f"{source}: labels are {label}; give integer classes, or floats for regression")
    if not 0 < full_scale < np.inf:
        raise DataError(f"{source}: full_scale is {full_scale}; it is what integer data are divided by, above 0")
    if data.kind == "f" and full_scale != 1:
        raise DataError(f"{source}: full_scale is {full_scale}, but float data are not rescaled; leave it at 1")


def _check_shapes(sample: tuple[int, ...], label: tuple[int, ...], label_type: np.dtype[Any], source: str) -> None:
    if not sample:
        raise DataError(
            f"{source}: a sample is a single number; give every sample at least one dimension of its own, (features,) "
            "or (channels, height, width)"
        )
    if label and label_type.kind in "iu":
        raise DataError(
            f"{source}: the label of a sample is {label_type} of shape {label}; a class is one integer, and labels of "
            "regression are floats of any shape"
        )
