"""The splits of a data set, the checks that all of them pass, and holding samples out for validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from harness.data.arrays import ArrayDataset, Dataset, Subset, scales_of
from harness.data.dtypes import Scale, as_they_are, counted, refuse_lossy, refuse_non_finite
from harness.data.leaves import Array, Data, Shape, leaves_of, sample_shape_of
from harness.data.order import permutation
from harness.data.sequences import SequenceDataset
from harness.errors import DataError

_NUM_TASTED = 64
_LARGEST_BYTES = 1 << 30  # of arrays in memory that are read whole
_BLOCK = 4096  # samples that are checked at a time


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set, ready to be read.

    Attributes:
        train: the training samples.
        validation: samples to choose by, or None.
        test: samples to report on, or None.
        num_classes: the number of classes, or None for regression.
        sample_shape: the shape of one sample, `(channels, height, width)` for images; of several inputs a tuple with
            the shape of each.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    num_classes: int | None
    sample_shape: Shape | tuple[Shape, ...]

    def fingerprint(self) -> str:
        """sha256 of the training set: arrays in memory whole, of files and of larger ones all labels and a few samples.

        Of a sequence, whose items may be transformed at random, a few labels are taken.

        It tells whether a run that goes on sees the data that it began with, wherever they lie now.
        """
        count = len(self.train)
        labels = self.train.labels()
        data, tasted = self.train.take(np.unique(np.linspace(0, count - 1, _NUM_TASTED).astype(np.int64)))
        total = hashlib.sha256(f"{count} {self.sample_shape} {self.num_classes}".encode())
        train = self.train
        if isinstance(train, ArrayDataset):
            whole, few = leaves_of(train.data), leaves_of(data)
            is_small = not any(map(_is_mapped, whole)) and sum(leaf.nbytes for leaf in whole) <= _LARGEST_BYTES
            data = whole if is_small else few
        for array in [tasted] if labels is None else [labels, *leaves_of(data)]:
            total.update(f"{array.dtype.str} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()


def make_splits(
    train: Dataset, validation: Dataset | None = None, test: Dataset | None = None, num_classes: int | None = None
) -> Splits:
    """Put checked splits together.

    Args:
        train: the training samples.
        validation: the validation samples, or None.
        test: the test samples, or None.
        num_classes: the number of classes. With None, float labels mean regression, and integer classes are counted
            as the largest training label + 1.

    Raises:
        DataError: if the splits have different shapes, a label is not in `[0, num_classes)`, or a number is NaN or
            infinite. Labels in arrays are all looked at, data in memory too; of others the first and last.
    """
    sample, label = train.take(np.arange(1))
    if num_classes is None:
        num_classes = _count_classes(train, label)
    shapes = sample_shape_of(sample), label.shape[1:]
    for name, split in (("train", train), ("validation", validation), ("test", test)):
        if split is None:
            continue
        where = split.source if split.source != "data" else f"the {name} split"
        _check_labels(where, split, num_classes)
        _check_values(where, split)
        got_sample, got_label = split.take(np.arange(1))
        got = sample_shape_of(got_sample), got_label.shape[1:]
        if got != shapes:
            raise DataError(
                f"{where}: sample and label have the shapes {got[0]} and {got[1]}, those of the training split "
                f"{shapes[0]} and {shapes[1]}; give all splits the same"
            )
        if _become_floats(split, got_sample) != _become_floats(train, sample):
            raise DataError(
                f"{where}: data are {leaves_of(got_sample)[0].dtype}, those of the training split "
                f"{leaves_of(sample)[0].dtype}; give all splits the same, since integers stay integers (data.scale)"
            )
    return Splits(train, validation, test, num_classes, shapes[0])


def rescaled(splits: Splits, scale: float | str | None) -> Splits:
    """The same data with `data.scale` in place of what their reader divides by.

    Args:
        splits: the data.
        scale: what integers are divided by; `"keep"` leaves all integers as they are; None changes nothing.

    Raises:
        DataError: where it would have no effect, or it is not clear what it is for.
    """
    if scale is None:
        return splits
    leaves = leaves_of(splits.train.take(np.arange(1))[0])
    where = f"data.scale: {scale}"
    if all(leaf.dtype.kind == "f" for leaf in leaves):
        raise DataError(f"{where}: no effect on float data, which are used as they are; leave it out")
    if len(leaves) > 1 and scale != "keep":
        raise DataError(f"{where}: samples have {len(leaves)} inputs, and it is for one; divide where they are made")
    scales = tuple(1.0 if leaf.dtype.kind == "f" else None if scale == "keep" else float(scale) for leaf in leaves)

    def of(dataset: Dataset | None) -> Dataset | None:
        if isinstance(dataset, Subset):
            inner = of(dataset.dataset)
            return None if inner is None else replace(dataset, dataset=inner)
        if isinstance(dataset, ArrayDataset | SequenceDataset):
            return dataset.with_scale(scales if len(scales) > 1 else scales[0])
        return dataset

    train = of(splits.train)
    assert train is not None  # it was not None before
    return replace(splits, train=train, validation=of(splits.validation), test=of(splits.test))


def describe_scale(dataset: Dataset) -> str:
    """What is done to integer data, in words; empty where data are floats.

    >>> describe_scale(ArrayDataset(np.zeros((2, 3, 8, 8), np.uint8), np.zeros(2), 255.0))
    'bytes / 255'
    """
    leaves = leaves_of(dataset.take(np.arange(1))[0])
    words = [
        _words(leaf, scale) for leaf, scale in zip(leaves, scales_of(dataset.full_scale, len(leaves)), strict=True)
    ]
    if len(leaves) == 1:
        return words[0]
    return ", ".join(f"input {number} {word}" for number, word in enumerate(words, start=1) if word)


def _words(leaf: Array, scale: Scale) -> str:
    if leaf.dtype.kind == "f":
        return ""
    if scale is None:
        return f"{leaf.dtype.name} as they are"
    return f"{'bytes' if leaf.dtype == np.uint8 else leaf.dtype.name} / {scale:g}"


def holdout_size(num_samples: int, validation: float) -> int:
    """How many of the training samples `data.validation` takes away, halves rounded up.

    >>> holdout_size(60000, 0.1), holdout_size(60000, 5000), holdout_size(60000, 0)
    (6000, 5000, 0)

    Raises:
        DataError: if `validation` is neither a count nor a fraction, or leaves nothing on one of the two sides.
    """
    allowed = "allowed are 0 (none), a number of samples, or a fraction between 0 and 1"
    if isinstance(validation, bool) or not isinstance(validation, int | float) or not 0 <= validation < np.inf:
        raise DataError(f"data.validation: {validation!r} is no size; {allowed}")
    if validation == 0:
        return 0
    if isinstance(validation, int):
        size = validation
    elif validation < 1:
        # of the number as it is written: 0.3 of 5 is 1.5, which the binary 0.3 just misses
        size = int(Fraction(repr(validation)) * num_samples + Fraction(1, 2))
    else:
        raise DataError(f"data.validation: {validation!r} is neither a fraction nor a whole number; {allowed}")
    if not 1 <= size < num_samples:
        raise DataError(
            f"data.validation: {validation!r} holds out {size} of {num_samples} training samples; at least one must be "
            "held out and one left"
        )
    return size


def hold_out(train: Dataset, size: int, seed: int) -> tuple[Dataset, Dataset]:
    """Split training samples in `(train, validation)`.

    The first `size` of a permutation keyed by `seed` (stream `"validation"`, epoch 0) are held out. Both parts keep
    the order of the data set, so the split depends on `seed` and the number of samples only.
    """
    order = permutation(len(train), seed, "validation", 0)
    return train.subset(np.sort(order[size:])), train.subset(np.sort(order[:size]))


def as_num_classes(where: str, value: object) -> int | None:
    """Read a number of classes that a user gave; None stays None.

    Raises:
        DataError: if it is not a whole number above 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise DataError(f"{where}: num_classes {value!r} is not a number of classes; give a whole number above 0")
    return int(value)


def _count_classes(train: Dataset, label: Array) -> int | None:
    if label.dtype.kind == "f":
        return None
    labels = train.labels()
    if labels is None:
        raise DataError(
            f"{train.source}: the labels are integers, and counting their classes would read every sample; say how "
            "many there are (`num_classes`)"
        )
    return int(labels.max()) + 1


def _check_labels(where: str, split: Dataset, num_classes: int | None) -> None:
    labels = split.labels()
    complete = labels is not None
    if labels is None:
        labels = split.take(np.array([0, len(split) - 1]))[1]
        inner = split.dataset if isinstance(split, Subset) else split
        if isinstance(inner, SequenceDataset):
            inner.num_classes = num_classes
    if labels.dtype.kind == "f" and num_classes is not None and complete:  # record files of Gluon have float classes
        raise DataError(
            f"{where}: labels are {labels.dtype}, but there are {num_classes} classes; give classes as integers, "
            "or for regression float labels in every split and no num_classes"
        )
    num_bad, first = 0, ""
    for start in range(0, len(labels), _BLOCK):  # in blocks: the comparisons need memory too
        block = labels[start : start + _BLOCK]
        name = counted(f"{where}: label", start)
        refuse_non_finite(block, name)
        as_they_are(block, name)
        if num_classes is not None:
            bad = np.argwhere((block < 0) | (block >= num_classes))
            num_bad += len(bad)
            if len(bad) and not first:
                first = f"label {block[tuple(bad[0])]} of sample {start + int(bad[0][0])}"
    if num_classes is not None and num_bad:
        raise DataError(
            f"{where}: {first} is not in 0..{num_classes - 1} ({num_bad} such labels); mend the labels, or set "
            "num_classes where the data set takes it"
        )


def _check_values(where: str, split: Dataset) -> None:
    """Look at data in memory whole, at others' first and last sample; the rest are looked at when they are read."""
    if _is_in_memory(split):
        for start in range(0, len(split), _BLOCK):
            _check_block(where, split, np.arange(start, min(start + _BLOCK, len(split))))
        return
    for index in (0, len(split) - 1):
        _check_block(where, split, np.array([index]))


def _check_block(where: str, split: Dataset, indices: npt.NDArray[np.int64]) -> None:
    if isinstance(split, ArrayDataset):
        leaves = tuple(leaf[indices[0] : indices[-1] + 1] for leaf in leaves_of(split.data))  # without a copy
    else:
        leaves = leaves_of(split.take(indices)[0])
    name = counted(f"{where}: sample", int(indices[0]))
    for leaf, scale in zip(leaves, scales_of(split.full_scale, len(leaves)), strict=True):
        refuse_non_finite(leaf, name)
        if leaf.dtype.kind == "f" or scale == 1:
            refuse_lossy(leaf, name)
        elif scale is None:
            as_they_are(leaf, name)


def _become_floats(split: Dataset, sample: Data) -> list[bool]:
    """Which inputs are floats for the network, and which integers."""
    leaves = leaves_of(sample)
    scales = scales_of(split.full_scale, len(leaves))
    return [leaf.dtype.kind == "f" or scale is not None for leaf, scale in zip(leaves, scales, strict=True)]


def _is_in_memory(split: Dataset) -> bool:
    while isinstance(split, Subset):
        split = split.dataset
    return isinstance(split, ArrayDataset) and not any(map(_is_mapped, leaves_of(split.data)))


def _is_mapped(array: Array) -> bool:
    return isinstance(array, np.memmap)
