"""The splits of a data set, their common checks, and holding out samples for validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from harness.data.arrays import ArrayDataset, Dataset
from harness.data.checks import become_floats, check_labels, check_values, is_mapped, named_split
from harness.data.leaves import Data, Shape, described_types, leaves_of, sample_shape_of
from harness.data.order import permutation
from harness.errors import DataError

_NUM_TASTED = 64  # samples
_LARGEST_BYTES = 1 << 30  # of arrays in memory that are hashed completely
_MANY_CLASSES = 1000


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set, ready for use.

    Attributes:
        train: the training samples.
        validation: samples for model selection, or None.
        test: samples to report on, or None.
        num_classes: the number of classes, or None for regression.
        sample_shape: the shape of one sample, `(channels, height, width)` for images; for several inputs a tuple or
            dict with the shape of each.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    num_classes: int | None
    sample_shape: Shape | tuple[Shape, ...] | dict[str, Shape]

    def fingerprint(self) -> str:
        """sha256 of the training set: all of arrays in memory; of files and large arrays all labels and a few samples.

        Of a sequence, whose items may be random, only a few labels.

        It shows whether a resumed run sees its original data, wherever that is stored now.
        """
        count = len(self.train)
        labels = self.train.labels()
        data, tasted = self.train.take(np.unique(np.linspace(0, count - 1, _NUM_TASTED).astype(np.int64)))
        total = hashlib.sha256(f"{count} {self.sample_shape} {self.num_classes}".encode())
        train = self.train
        if isinstance(train, ArrayDataset):
            whole, few = leaves_of(train.data), leaves_of(data)
            is_small = not any(map(is_mapped, whole)) and sum(leaf.nbytes for leaf in whole) <= _LARGEST_BYTES
            data = whole if is_small else few
        if not isinstance(tasted, np.ndarray):
            total.update(f"{sample_shape_of(tasted)}".encode())
        for array in leaves_of(tasted) if labels is None else (*leaves_of(labels), *leaves_of(data)):
            total.update(f"{array.dtype.str} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()


def make_splits(
    train: Dataset,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    num_classes: int | None = None,
    count_classes: bool = True,
) -> Splits:
    """Check splits and combine them.

    Args:
        train: the training samples.
        validation: the validation samples, or None.
        test: the test samples, or None.
        num_classes: the number of classes. With None, float labels mean regression, and integer classes are counted
            as the largest training label + 1; labels too large to be classes (above 1,000, and
            ten times their number) are numbers.
        count_classes: if False, and if `num_classes` is None, integer labels are numbers.

    Raises:
        DataError: if the splits have different shapes, a label is not in `[0, num_classes)`, or a number is NaN or
            infinite. Labels in arrays and data in memory are all checked; otherwise the first and last sample.
    """
    sample, label = train.take(np.arange(1))
    if num_classes is None and count_classes:
        num_classes = _count_classes(train, label)
    shapes = sample_shape_of(sample), sample_shape_of(label)
    for name, split in (("train", train), ("validation", validation), ("test", test)):
        if split is None:
            continue
        where = named_split(name, split)
        check_labels(where, split, num_classes)
        check_values(where, split)
        got_sample, got_label = split.take(np.arange(1))
        got = sample_shape_of(got_sample), sample_shape_of(got_label)
        if got != shapes:
            raise DataError(
                f"{where}: sample and label have the shapes {got[0]} and {got[1]}, but in the training split "
                f"{shapes[0]} and {shapes[1]}; give all splits the same shapes"
            )
        if become_floats(split, got_sample) != become_floats(train, sample):
            raise DataError(
                f"{where}: data is {described_types(got_sample)}, but in the training split "
                f"{described_types(sample)}; give all splits the same type, because integers stay integers "
                f"(data.scale)"
            )
    return Splits(train, validation, test, num_classes, shapes[0])


def holdout_size(num_samples: int, validation: float) -> int:
    """How many of the training samples `data.validation` holds out, halves rounded up.

    >>> holdout_size(60000, 0.1), holdout_size(60000, 5000), holdout_size(60000, 0)
    (6000, 5000, 0)

    Raises:
        DataError: if `validation` is neither a count nor a fraction, or leaves one of the two parts empty.
    """
    allowed = "allowed are 0 (none), a number of samples, or a fraction between 0 and 1"
    if isinstance(validation, bool) or not isinstance(validation, int | float) or not 0 <= validation < np.inf:
        raise DataError(f"data.validation: {validation!r} is not a valid size; {allowed}")
    if validation == 0:
        return 0
    if isinstance(validation, int):
        size = validation
    elif validation < 1:
        # use the decimal as written: 0.3 of 5 is 1.5, which the binary 0.3 just misses
        size = int(Fraction(repr(validation)) * num_samples + Fraction(1, 2))
    else:
        raise DataError(f"data.validation: {validation!r} is neither a fraction nor a whole number; {allowed}")
    if not 1 <= size < num_samples:
        raise DataError(
            f"data.validation: {validation!r} holds out {size} of {num_samples} training samples; at least one must be "
            "held out and one must remain"
        )
    return size


def hold_out(train: Dataset, size: int, seed: int) -> tuple[Dataset, Dataset]:
    """Split training samples into `(train, validation)`.

    The first `size` of a permutation keyed by `seed` (stream `"validation"`, epoch 0) are held out. Both parts keep
    the order of the data set, so the split depends only on `seed` and the number of samples.
    """
    order = permutation(len(train), seed, "validation", 0)
    return train.subset(np.sort(order[size:])), train.subset(np.sort(order[:size]))


def as_num_classes(where: str, value: object) -> int | None:
    """Check a user's number of classes; None stays None.

    Raises:
        DataError: if it is not a whole number above 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise DataError(f"{where}: num_classes {value!r} is not a number of classes; give a whole number above 0")
    return int(value)


def _count_classes(train: Dataset, label: Data) -> int | None:
    if not isinstance(label, np.ndarray) or label.dtype.kind == "f":
        return None
    labels = train.labels()
    if not isinstance(labels, np.ndarray):
        raise DataError(
            f"{train.source}: the labels are integers, and counting their classes would read every sample; give the "
            "number of classes (`num_classes`)"
        )
    count = int(labels.max()) + 1
    return None if count > max(_MANY_CLASSES, 10 * labels.size) else count
