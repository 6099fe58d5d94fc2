"""What a user gives to have batches of alike samples: buckets of lengths, or batches by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.data.arrays import ArrayDataset, Dataset, Indices, Subset
from harness.data.collated import innermost, uncollated
from harness.data.functions import own_function
from harness.data.generators import kept_generators
from harness.data.grouping import BatchesFunction, Buckets, Grouping, OwnBatches
from harness.data.items import Sample
from harness.data.leaves import Array, leaves_of, names_of
from harness.data.sequences import samples_of
from harness.errors import DataError, HarnessError
from harness.named import brief

_AT_ONCE = 1024  # samples that are read at a time


@dataclass(frozen=True, eq=False)
class LengthBy:
    """What the length of a sample is.

    Attributes:
        name: of an array, as messages name it (`data`, `data[1]`, `label['ids']`): the length of its first axis, or its
            value if it is a single number.
        function: of the user's own instead, which maps a sample `(data, label)` to its length.
        where: how messages begin.
    """

    name: str
    function: Callable[[Sample], int] | None
    where: str

    @classmethod
    def of(cls, by: object, key: str) -> LengthBy:
        """Read a name or a function.

        Args:
            by: an array's name, `module:function`, or a function.
            key: of the setting, for messages.

        Raises:
            ConfigError: if there is no such function.
        """
        if isinstance(by, str) and ":" not in by:
            return cls(by, None, f"{key}: {by!r}")
        function, where = own_function(by, key, ("item",))
        return cls("", function, where)

    def __call__(self, dataset: Dataset, first: int = 0, step: int = 1) -> Indices:
        """The lengths of every `step`-th sample, from `first` on, as in evaluation.

        Args:
            dataset: the samples; those of arrays are not read one by one.
            first: the first sample.
            step: the distance to the next.

        Raises:
            DataError: if there is no such array, or a length is not a whole number from 0.
        """
        dataset = uncollated(dataset)
        arrays = innermost(dataset)
        if self.function is None and isinstance(arrays, ArrayDataset):
            return self._of_arrays(dataset, arrays)[first::step]
        indices = np.arange(first, len(dataset), step)
        found = np.empty(len(indices), np.int64)
        with kept_generators():
            for begin in range(0, len(indices), _AT_ONCE):
                part = indices[begin : begin + _AT_ONCE]
                for row, (index, sample) in enumerate(zip(part.tolist(), samples_of(dataset, part), strict=True)):
                    found[begin + row] = self._whole(self._of_sample(sample, index), index)
        return found

    def _of_arrays(self, dataset: Dataset, arrays: ArrayDataset) -> Indices:
        leaf, indices = self._leaf((arrays.data, arrays.label)), np.arange(len(dataset))
        while isinstance(dataset, Subset):
            indices = dataset.indices[indices]
            dataset = dataset.dataset
        if leaf.ndim > 1:
            return np.full(len(indices), leaf.shape[1], np.int64)
        values = leaf[indices]
        bad = np.flatnonzero((values < 0) | (values != np.floor(values)))
        if len(bad):
            self._whole(values[bad[0]], int(indices[bad[0]]))
        whole: Indices = values.astype(np.int64)
        return whole

    def _of_sample(self, sample: Sample, index: int) -> Any:
        if self.function is None:
            leaf = self._leaf(sample)
            return leaf.shape[0] if leaf.ndim else leaf[()]
        try:
            return self.function(sample)
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(f"{self.where}: raised {type(error).__name__}: {error} for item {index}") from error

    def _leaf(self, sample: Sample) -> Array:
        named: dict[str, Array] = {}
        for what, part in zip(("data", "label"), sample, strict=True):
            named.update(zip(names_of(part, what), leaves_of(part), strict=True))
            named.setdefault(what, leaves_of(part)[0])  # the first of several
        if self.name not in named:
            raise DataError(f"{self.where}: there is no such array; items have {', '.join(named)}")
        return named[self.name]

    def _whole(self, value: Any, index: int) -> int:
        is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not is_number or not 0 <= value < np.inf or value != int(value):
            raise DataError(f"{self.where}: gave {brief(value)} for item {index}; a length is a whole number from 0")
        return int(value)


@dataclass(frozen=True, eq=False)
class GroupBy:
    """Which samples of an epoch are to come together in a batch.

    Attributes:
        length: what the length of a sample is.
        widths: of buckets, or their number; None for batches of the user's own.
        batches: the user's function, and how messages about it begin.
        where: how messages about buckets begin.
    """

    length: LengthBy
    widths: Sequence[int] | int | None
    batches: tuple[BatchesFunction, str] | None
    where: str

    @classmethod
    def of(cls, bucket: Mapping[str, Any] | None, batches: object, begin: str = "data.") -> GroupBy | None:
        """Read what a configuration or a program gives.

        Args:
            bucket: `by` and `widths`, either of which may be missing, or None.
            batches: `module:function`, a function, or None.
            begin: what messages say before `bucket` and `batches`.

        Returns:
            None if neither is given.

        Raises:
            ConfigError: if there is no such function, or it does not take three arguments.
        """
        if bucket is None and batches is None:
            return None
        given = dict(bucket or {})
        length = LengthBy.of(given.get("by", "data"), f"{begin}bucket.by")
        own = None
        if batches is not None:
            own = own_function(batches, f"{begin}batches", ("lengths", "epoch", "seed"))
        return cls(length, given.get("widths"), own, f"{begin}bucket")

    def make(self, lengths: Indices, most: int) -> Grouping:
        """The batches of samples of these lengths.

        Args:
            lengths: of the samples.
            most: samples in a global batch.

        Raises:
            DataError: if a sample is too long, or the user's function or its batches do not do.
        """
        if self.batches is not None:
            return OwnBatches(self.batches[0], lengths, most, self.batches[1])
        assert self.widths is not None
        return Buckets.of(lengths, self.widths, self.where)
