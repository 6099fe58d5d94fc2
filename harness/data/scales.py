"""The user's divisor for integer data, and its description."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.data.arrays import ArrayDataset, Dataset, Subset, scales_for
from harness.data.checks import check_values, named_split
from harness.data.collated import CollatedDataset, uncollated
from harness.data.dtypes import Scale
from harness.data.leaves import Array, leaves_of, names_of
from harness.data.sequences import SequenceDataset
from harness.data.splits import Splits
from harness.errors import DataError


def rescaled(splits: Splits, scale: float | str | None) -> Splits:
    """The same data with `data.scale` instead of the reader's divisor.

    Args:
        splits: the data.
        scale: the divisor for integers; `"keep"` leaves all integers unchanged; None changes nothing.

    Raises:
        DataError: if it would have no effect, or it is unclear which input it applies to.
    """
    if scale is None:
        return splits
    leaves = leaves_of(uncollated(splits.train).take(np.arange(1))[0])
    where = f"data.scale: {scale}"
    if all(leaf.dtype.kind == "f" for leaf in leaves):
        raise DataError(f"{where}: no effect on float data, which is never rescaled; remove it")
    if len(leaves) > 1 and scale != "keep":
        raise DataError(
            f"{where}: samples have {len(leaves)} inputs, but it applies to one; divide where they are created"
        )
    scales = tuple(1.0 if leaf.dtype.kind == "f" else None if scale == "keep" else float(scale) for leaf in leaves)

    def of(dataset: Dataset | None) -> Dataset | None:
        if isinstance(dataset, Subset | CollatedDataset):
            inner = of(dataset.dataset)
            return None if inner is None else replace(dataset, dataset=inner)
        if isinstance(dataset, ArrayDataset | SequenceDataset):
            return dataset.with_scale(scales if len(scales) > 1 else scales[0])
        return dataset

    train = of(splits.train)
    assert train is not None  # because it was not None before
    changed = replace(splits, train=train, validation=of(splits.validation), test=of(splits.test))
    for name, split in (("train", changed.train), ("validation", changed.validation), ("test", changed.test)):
        if split is not None:
            check_values(named_split(name, split), split)
    return changed


def describe_scale(dataset: Dataset) -> str:
    """A description of the divisor for integer data; empty if data is floats.

    >>> describe_scale(ArrayDataset(np.zeros((2, 3, 8, 8), np.uint8), np.zeros(2), 255.0))
    'bytes / 255'
    """
    data = uncollated(dataset).take(np.arange(1))[0]
    scales = scales_for(dataset.full_scale, data)
    words = [_words(leaf, scale) for leaf, scale in zip(leaves_of(data), scales, strict=True)]
    if len(words) == 1:
        return words[0]
    return ", ".join(f"{name} {word}" for name, word in zip(names_of(data, "data"), words, strict=True) if word)


def _words(leaf: Array, scale: Scale) -> str:
    if leaf.dtype.kind == "f":
        return ""
    if scale is None:
        return f"{leaf.dtype.name} unchanged"
    return f"{'bytes' if leaf.dtype == np.uint8 else leaf.dtype.name} / {scale:g}"
