"""What a data set is: something with a length that returns the requested rows as NumPy arrays.

Knows nothing about the origin of data, about batches, or about the order in which samples are used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.data.dtypes import Scale, default_scale, refuse_dtype, refuse_scale
from harness.data.leaves import Array, Data, count_of, leaves_of, names_of, rows_of
from harness.errors import DataError

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Scales = Scale | tuple[Scale, ...]


class Dataset(Protocol):
    """One split of a data set: `ArrayDataset`, `SequenceDataset` or `Subset`."""

    @property
    def full_scale(self) -> Scales:
        """The divisor for integer data of each input; None leaves integers unchanged; 1 for float data."""

    @property
    def source(self) -> str:
        """Where the samples come from, for messages."""

    def __len__(self) -> int:
        """The number of samples."""

    def take(self, indices: Indices, *draws: int) -> tuple[Data, Data]:
        """New arrays with the data and the labels of these rows, in this order.

        For random items, `draws` is the epoch and the seed to draw for.
        """

    def subset(self, indices: Indices) -> Dataset:
        """A data set of these rows, without copying them."""

    def labels(self) -> Data | None:
        """All labels if reading them costs almost nothing, else None."""


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """A split held in arrays, which may be memory-mapped and are never copied entirely.

    Attributes:
        data: `(N, channels, height, width)` images, or any `(N, ...)`; integers or floats. For several inputs a tuple
            or a dict of such arrays.
        label: `(N,)` integer classes, `(N, ...)` a class for every position, or `(N, ...)` floats for regression; or a
            tuple or a dict of such arrays.
        full_scale: the divisor for integer data: 255 for images, 16 for `digits`; None leaves integers
            unchanged; 1 for float data. With several inputs, one for all or a tuple with one for each, in their order.
        source: where the arrays come from, for messages.

    Raises:
        DataError: if the arrays do not have these types and shapes.
    """

    data: Data
    label: Data
    full_scale: Scales = None
    source: str = "data"

    def __post_init__(self) -> None:
        """Refuse arrays that cannot make a batch."""
        first, *labels = _named(self.label, "label", "labels")
        for name, leaf in (*_named(self.data, "data", "data"), *labels):
            if leaf.ndim < 1 or first[1].ndim < 1 or len(leaf) != len(first[1]):
                raise DataError(
                    f"{self.source}: {name} has shape {leaf.shape} and {first[0]} {first[1].shape}; the first "
                    "dimension is the number of samples, so give one label for each sample"
                )
        if len(first[1]) == 0:
            raise DataError(f"{self.source}: no samples; a split needs at least one, so omit an empty split")
        check_sample(self.source, rows_of(self.data, slice(1)), rows_of(self.label, slice(1)), self.full_scale)

    def __len__(self) -> int:
        """The number of samples."""
        return count_of(self.label)

    def take(self, indices: Indices, *draws: int) -> tuple[Data, Data]:
        """New arrays with the data and the labels of these rows, in this order; `draws` is ignored."""
        return rows_of(self.data, indices), rows_of(self.label, indices)

    def subset(self, indices: Indices) -> Subset:
        """A data set of these rows, without a copy of them."""
        return Subset(self, indices)

    def labels(self) -> Data:
        """All labels."""
        return self.label

    def with_scale(self, full_scale: Scales) -> ArrayDataset:
        """The same arrays with another divisor."""
        return replace(self, full_scale=full_scale)


@dataclass(frozen=True, eq=False)
class Subset:
    """Some rows of another data set: an index, no copy."""

    dataset: Dataset
    indices: Indices

    @property
    def full_scale(self) -> Scales:
        """The divisor for integer data."""
        return self.dataset.full_scale

    @property
    def source(self) -> str:
        """Where the samples come from."""
        return self.dataset.source

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.indices)

    def take(self, indices: Indices, *draws: int) -> tuple[Data, Data]:
        """New arrays with the data and the labels of these rows of the subset, in this order.

        Args:
            indices: of the subset.
            draws: epoch and seed for random items; see `SequenceDataset`.
        """
        return self.dataset.take(self.indices[indices], *draws)

    def subset(self, indices: Indices) -> Subset:
        """A data set of these rows of the subset."""
        return Subset(self.dataset, self.indices[indices])

    def labels(self) -> Data | None:
        """All labels of the subset, if the data set can provide them."""
        labels = self.dataset.labels()
        return None if labels is None else rows_of(labels, self.indices)


def scales_for(full_scale: Scales, data: Data) -> tuple[Scale, ...]:
    """One scale for each input."""
    num_inputs = len(leaves_of(data))
    if not isinstance(full_scale, tuple):
        return (full_scale,) * num_inputs
    if len(full_scale) != num_inputs:
        raise DataError(f"full_scale: {len(full_scale)} numbers for {num_inputs} inputs; give one for each, or one")
    return full_scale


def default_scales(data: Data) -> Scales:
    """The default divisor of each input: 255 for byte images."""
    scales = tuple(default_scale(leaf.dtype, leaf.shape[1:]) for leaf in leaves_of(data))
    return scales[0] if isinstance(data, np.ndarray) else scales


def check_sample(source: str, data: Data, label: Data, full_scale: Scales, is_ragged: bool = False) -> None:
    """Raise a `DataError` unless such samples can make batches.

    Args:
        source: where they come from.
        data: of one sample, `(1, ...)`.
        label: its labels, `(1, ...)`.
        full_scale: the divisor of each input, or of all.
        is_ragged: whether samples may have any shape, because they are collated.
    """
    for name, leaf, scale in zip(names_of(data, "data"), leaves_of(data), scales_for(full_scale, data), strict=True):
        allowed = "allowed are integers, float32 and float64 (float16 is widened)"
        refuse_dtype(f"{source}: {name} is", leaf.dtype, allowed)
        refuse_scale(source, leaf.dtype, scale)
    for name, leaf in _named(label, "label", "labels"):
        verb = "are" if name == "labels" else "is"
        refuse_dtype(f"{source}: {name} {verb}", leaf.dtype, "give integer classes, or floats for regression")
    if is_ragged:
        return
    if isinstance(data, np.ndarray) and data.ndim == 1:
        raise DataError(
            f"{source}: a sample is a single number; give every sample at least one dimension, (features,) "
            "or (channels, height, width)"
        )
    for name, leaf in (*_named(data, "data", "a sample"), *_named(label, "label", "a label")):
        if 0 in leaf.shape[1:]:
            raise DataError(
                f"{source}: {name} has the shape {leaf.shape[1:]}, which is empty; leave out empty dimensions"
            )


def _named(data: Data, what: str, plain: str) -> list[tuple[str, Array]]:
    """The leaves, with what messages call them; `plain` for what is one array."""
    names = (plain,) if isinstance(data, np.ndarray) else names_of(data, what)
    return list(zip(names, leaves_of(data), strict=True))


def as_array(value: Any) -> Array:
    """A NumPy array of anything array-like; MXNet's arrays are recognised by their `asnumpy`."""
    return np.asanyarray(value.asnumpy() if hasattr(value, "asnumpy") else value)
