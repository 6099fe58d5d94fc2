"""Checks of every split: labels are classes, and numbers are finite and fit their new type.

Data in memory is checked completely, in blocks; otherwise the first and last sample, and the others when they are read.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.data.arrays import ArrayDataset, Dataset, Subset, scales_for
from harness.data.collated import innermost, uncollated
from harness.data.dtypes import as_they_are, counted, refuse_lossy, refuse_non_finite
from harness.data.leaves import Array, Data, leaves_of, names_of, rows_of
from harness.data.sequences import SequenceDataset
from harness.errors import DataError

_BLOCK = 4096  # samples to check at a time


def named_split(name: str, split: Dataset) -> str:
    """How messages name a split."""
    return split.source if split.source != "data" else f"the {name} split"


def check_labels(where: str, split: Dataset, num_classes: int | None) -> None:
    """Check all available labels, or the first and last, for valid classes and usable numbers.

    Args:
        where: the split, for messages.
        split: has the labels.
        num_classes: None if labels are numbers; items check their labels when they are read.

    Raises:
        DataError: naming the first sample with an unusable label.
    """
    split = uncollated(split)
    labels = split.labels()
    if labels is None:
        for index in (0, len(split) - 1):  # one by one, because they may differ in shape
            _check_leaves(where, split.take(np.array([index]))[1], num_classes, index)
        items = innermost(split)
        if isinstance(items, SequenceDataset):
            items.num_classes = num_classes
        return
    if (
        isinstance(labels, np.ndarray) and labels.dtype.kind == "f" and num_classes is not None
    ):  # Gluon's record files have float classes
        raise DataError(
            f"{where}: labels are {labels.dtype}, but there are {num_classes} classes; give classes as integers, or "
            "for regression give float labels in every split and no num_classes"
        )
    _check_leaves(where, labels, num_classes)


def _check_leaves(where: str, labels: Data, num_classes: int | None, start: int = 0) -> None:
    """Check labels, of which only a single array has classes; which of several are classes, only the loss knows."""
    is_one = isinstance(labels, np.ndarray)
    for name, leaf in zip(names_of(labels, "label"), leaves_of(labels), strict=True):
        _check_labels(where, name, leaf, num_classes if is_one else None, start)


def _check_labels(where: str, what: str, labels: Array, num_classes: int | None, start: int) -> None:
    num_bad, first = 0, ""
    for begin in range(0, len(labels), _BLOCK):  # in blocks, because the comparisons need memory too
        block, number = labels[begin : begin + _BLOCK], start + begin
        name = counted(f"{where}: {what}" if what == "label" else f"{where}: {what} of sample", number)
        refuse_non_finite(block, name)
        as_they_are(block, name)
        if num_classes is not None:
            bad = np.argwhere((block < 0) | (block >= num_classes))
            num_bad += len(bad)
            if len(bad) and not first:
                first = f"label {block[tuple(bad[0])]} of sample {number + int(bad[0][0])}"
    if num_classes is not None and num_bad:
        raise DataError(
            f"{where}: {first} is not in 0..{num_classes - 1} ({num_bad} such labels); fix the labels, or set "
            "num_classes if the data set accepts it"
        )


def check_values(where: str, split: Dataset) -> None:
    """Check data in memory completely, otherwise the first and last sample; others are checked when they are read."""
    split = uncollated(split)
    if _is_in_memory(split):
        for start in range(0, len(split), _BLOCK):
            _check_block(where, split, np.arange(start, min(start + _BLOCK, len(split))))
        return
    for index in (0, len(split) - 1):
        _check_block(where, split, np.array([index]))


def _check_block(where: str, split: Dataset, indices: npt.NDArray[np.int64]) -> None:
    if isinstance(split, ArrayDataset):
        data = rows_of(split.data, slice(indices[0], indices[-1] + 1))  # without a copy
    else:
        data = split.take(indices)[0]
    names = names_of(data, "data")
    for what, leaf, scale in zip(names, leaves_of(data), scales_for(split.full_scale, data), strict=True):
        name = counted(f"{where}: sample" if len(names) == 1 else f"{where}: {what} of sample", int(indices[0]))
        refuse_non_finite(leaf, name)
        if leaf.dtype.kind == "f" or scale == 1:
            refuse_lossy(leaf, name)
        elif scale is None:
            as_they_are(leaf, name)


def become_floats(split: Dataset, sample: Data) -> list[bool]:
    """Whether the network gets floats, for each input; integers otherwise."""
    scales = scales_for(split.full_scale, sample)
    return [leaf.dtype.kind == "f" or scale is not None for leaf, scale in zip(leaves_of(sample), scales, strict=True)]


def _is_in_memory(split: Dataset) -> bool:
    while isinstance(split, Subset):
        split = split.dataset
    return isinstance(split, ArrayDataset) and not any(map(is_mapped, leaves_of(split.data)))


def is_mapped(array: Array) -> bool:
    """Whether an array lies in a file and is read on use."""
    return isinstance(array, np.memmap)
