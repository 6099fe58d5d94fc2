"""The splits of a data set, their common checks, and holding out samples for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from harness.data.arrays import ArrayDataset, Dataset
from harness.data.checks import become_floats, check_labels, check_values, is_mapped, named_split
from harness.data.collated import innermost, uncollated, unmixed, with_functions
from harness.data.functions import Functions
from harness.data.leaves import Array, Data, Shape, described_types, each_leaf, leaves_of, sample_shape_of
from harness.data.order import permutation
from harness.data.sequences import SequenceDataset, samples_of
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
            dict with the shape of each. Of samples that are collated, that of the first, before.
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
        train = uncollated(self.train)
        count = len(train)
        labels = train.labels()
        few = np.unique(np.linspace(0, count - 1, _NUM_TASTED).astype(np.int64))
        total = hashlib.sha256(f"{count} {self.sample_shape} {self.num_classes}".encode())
        if is_ragged(train):
            for _, label in samples_of(train, few):
                _add(total, leaves_of(label))
            return total.hexdigest()
        data, tasted = train.take(few)
        if isinstance(train, ArrayDataset):
            whole = leaves_of(train.data)
            is_small = not any(map(is_mapped, whole)) and sum(leaf.nbytes for leaf in whole) <= _LARGEST_BYTES
            data = whole if is_small else leaves_of(data)
        if not isinstance(tasted, np.ndarray):
            total.update(f"{sample_shape_of(tasted)}".encode())
        _add(total, leaves_of(tasted) if labels is None else (*leaves_of(labels), *leaves_of(data)))
        return total.hexdigest()


def _add(total: Any, arrays: Iterable[Array]) -> None:
    """Add arrays to a hash."""
    for array in arrays:
        total.update(f"{array.dtype.str} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)


def is_ragged(dataset: Dataset) -> bool:
    """Whether samples may differ in shape."""
    items = innermost(dataset)
    return isinstance(items, SequenceDataset) and items.is_ragged


def make_splits(
    train: Dataset,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    num_classes: int | None = None,
    count_classes: bool | None = True,
) -> Splits:
    """Check splits and combine them.

    Args:
        train: the training samples.
        validation: the validation samples, or None.
        test: the test samples, or None.
        num_classes: the number of classes. With None, float labels mean regression, and integer classes are counted
            as the largest training label + 1; labels too large to be classes (above 1,000, and
            ten times their number) are numbers.
        count_classes: if False, and if `num_classes` is None, integer labels are numbers; if None, they are where
            counting would read every sample.

    Raises:
        DataError: if the splits have different shapes, a label is not in `[0, num_classes)`, or a number is NaN or
            infinite. Labels in arrays and data in memory are all checked; otherwise the first and last sample. Where
            training labels are shares of classes, those of the other splits may be classes.
    """
    sample, label = uncollated(train).take(np.arange(1))
    if num_classes is None and (count_classes or (count_classes is None and uncollated(train).labels() is not None)):
        num_classes = _count_classes(uncollated(train), label)
    shapes = sample_shape_of(sample), sample_shape_of(label)
    form = _form(train, sample, label)
    for name, split in (("train", train), ("validation", validation), ("test", test)):
        if split is None:
            continue
        where = named_split(name, split)
        got_sample, got_label = uncollated(split).take(np.arange(1))
        shared = _classes_shared(label, got_label)
        check_labels(where, split, shared or num_classes)
        check_values(where, split)
        if _form(train, got_sample, label if shared else got_label) != form:
            raise DataError(
                f"{where}: sample and label have the shapes {sample_shape_of(got_sample)} and "
                f"{sample_shape_of(got_label)}, but in the training split {shapes[0]} and {shapes[1]}; give all splits "
                f"{'arrays of as many dimensions' if is_ragged(train) else 'the same shapes'}"
            )
        if become_floats(split, got_sample) != become_floats(train, sample):
            raise DataError(
                f"{where}: data is {described_types(got_sample)}, but in the training split "
                f"{described_types(sample)}; give all splits the same type, because integers stay integers "
                f"(data.scale)"
            )
    return Splits(train, validation, test, num_classes, shapes[0])


def splits_with(splits: Splits, functions: Functions) -> Splits:
    """The same data with the functions of a job.

    Labels stay classes if a transform leaves their shape and type as they were.

    Raises:
        DataError: if a function fails, or what it gives does not suit.
    """
    if functions == Functions():
        return splits
    functions = functions.for_classes(splits.num_classes)
    held_out = {name: getattr(splits, name) for name in ("validation", "test")}
    made = {name: None if one is None else unmixed(with_functions(one, functions)) for name, one in held_out.items()}
    train = with_functions(splits.train, functions)
    num_classes = splits.num_classes
    if functions.transform is not None:
        before, after = (uncollated(one).take(np.arange(1))[1] for one in (splits.train, train))
        is_class = isinstance(after, np.ndarray) and after.dtype.kind in "iu"
        is_alike = isinstance(before, np.ndarray) and sample_shape_of(before) == sample_shape_of(after)
        num_classes = num_classes if is_class and is_alike else None
    return make_splits(train, made["validation"], made["test"], num_classes, count_classes=False)


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
    return train.subset(np.sort(order[size:])), unmixed(train.subset(np.sort(order[:size])))


def most_classes(num_samples: int) -> int:
    """How many classes labels can tell of where nothing else does; numbers above are hardly classes.

    >>> most_classes(20), most_classes(60000)
    (1000, 600000)
    """
    return max(_MANY_CLASSES, 10 * num_samples)


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


def _form(train: Dataset, sample: Data, label: Data) -> object:
    """What splits have in common: shapes, or only their lengths where samples differ in shape."""
    parts = sample, label
    if is_ragged(train):
        return [each_leaf(lambda leaf: leaf.ndim, part) for part in parts]
    return [sample_shape_of(part) for part in parts]


def is_soft(label: Data) -> bool:
    """Whether labels `(n, ...)` look like shares of classes, `(n, classes)`."""
    return isinstance(label, np.ndarray) and label.dtype.kind == "f" and label.ndim == 2


def _classes_shared(label: Data, other: Data) -> int | None:
    """How many classes training labels are shares of, where those of another split are classes; `None` elsewhere.

    Args:
        label: of a training sample.
        other: of a sample of the other split.
    """
    is_class = isinstance(other, np.ndarray) and other.dtype.kind in "iu" and other.ndim == 1
    return int(leaves_of(label)[0].shape[1]) if is_class and is_soft(label) else None


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
    return None if count > most_classes(labels.size) else count
