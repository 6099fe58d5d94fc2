"""Which samples of an epoch come together in a global batch, where that is not left to chance.

`Buckets` puts samples of alike lengths together, `OwnBatches` those that the user's function names. Both are functions
of `(lengths, epoch, seed)`, and give the same number of batches in every epoch.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.data.arrays import Indices
from harness.data.generators import kept_generators, number_of, seed_generators, states
from harness.errors import DataError, HarnessError
from harness.named import where_raised

BatchesFunction = Callable[[Indices, int, int], Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Buckets:
    """Samples by the width of the narrowest bucket that holds them.

    Attributes:
        numbers: the bucket of each sample, `(N,)`.
        digest: of it, as resumed runs compare it.
    """

    numbers: Indices
    digest: str

    @property
    def num_batches(self) -> None:
        """None: as many as there would be without buckets."""
        return

    @classmethod
    def of(cls, lengths: Indices, widths: Sequence[int] | int, where: str = "bucket") -> Buckets:
        """Sort samples into buckets.

        Args:
            lengths: of the samples.
            widths: of the buckets, each larger than the last; or how many of equal steps from the shortest sample to
                the longest.
            where: how messages begin.

        Raises:
            DataError: if a sample is longer than the widest bucket.

        >>> Buckets.of(np.array([3, 9, 5, 6]), [5, 10]).numbers.tolist()
        [0, 1, 0, 1]
        """
        if isinstance(widths, int):
            least, most = int(lengths.min()), int(lengths.max())
            widths = [least - (least - most) * k // widths for k in range(1, widths + 1)]  # rounded up
        longest = int(np.argmax(lengths))
        if lengths[longest] > widths[-1]:
            raise DataError(
                f"{where}: sample {longest} has a length of {lengths[longest]}, more than the widest bucket, "
                f"{widths[-1]}; add a wider one, or cut items in data.transform"
            )
        numbers = np.searchsorted(np.asarray(widths), lengths).astype(np.int64)
        return cls(numbers, hashlib.sha256(numbers.tobytes()).hexdigest())

    def arrange(
        self, samples: Indices, global_batch: int, is_kept: bool, shuffled: Callable[[int], Indices]
    ) -> Indices:
        """Samples in an order whose slices of a global batch hold alike ones.

        Shuffled samples are sorted by bucket, and cut into batches, which are shuffled. What is left of an epoch is of
        one bucket too, and comes last, or (dropped) is left out by chance before.

        Args:
            samples: a permutation of all.
            global_batch: samples in a global batch.
            is_kept: whether the remainder of an epoch is kept.
            shuffled: a permutation of so many batches.
        """
        full, rest = divmod(len(samples), global_batch)
        if not is_kept:
            dropped, samples, rest = samples[full * global_batch :], samples[: full * global_batch], 0
        else:
            dropped = samples[:0]
        samples = samples[np.argsort(self.numbers[samples], kind="stable")]
        order = shuffled(full + (rest > 0))
        begin = int(order[-1]) * global_batch if rest else 0  # where the short one is cut out
        short = samples[begin : begin + rest]
        others = np.concatenate([samples[:begin], samples[begin + rest :]]).reshape(full, global_batch)
        if rest:
            last = order[-1]
            order = order[:-1] - (order[:-1] > last)
        return np.concatenate([others[order].ravel(), short, dropped])


@dataclass(frozen=True, eq=False)
class OwnBatches:
    """Global batches that the user's function names.

    Attributes:
        function: `function(lengths, epoch, seed)` returns the global batches of an epoch, each the numbers of its
            samples.
        lengths: of the samples, read-only.
        most: samples that a global batch may have.
        where: how messages begin.
        num_batches: in every epoch.
        digest: of the first two epochs, as resumed runs compare it.
    """

    function: BatchesFunction
    lengths: Indices
    most: int
    where: str = "batches"
    num_batches: int = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Make sure that the function is one of its arguments, by the first two epochs.

        Raises:
            DataError: if it is not, or its batches cannot be trained.
        """
        self.lengths.setflags(write=False)
        object.__setattr__(self, "num_batches", 0)
        with kept_generators():
            first, second = self._probed(1), self._probed(2)
            if self._probed(1, again=1) != first:
                raise DataError(
                    f"{self.where}: was called twice for epoch 1 with the same seed, and gave different batches; make "
                    "it a function of (lengths, epoch, seed), which draws from np.random.default_rng([seed, epoch])"
                )
        object.__setattr__(self, "num_batches", len(first))
        self._refuse_other_number(2, len(second))
        text = ";".join(str([batch.tolist() for batch in epoch]) for epoch in (self.epoch(1, 0), self.epoch(2, 0)))
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    def epoch(self, epoch: int, seed: int) -> list[Indices]:
        """The global batches of an epoch, from 1.

        Raises:
            DataError: if the function raises, or its batches cannot be trained.
        """
        try:
            found = self.function(self.lengths, epoch, seed)
            batches = [np.asarray(batch) for batch in found]
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(
                f"{self.where}: raised {type(error).__name__}: {error} for epoch {epoch} (at {where_raised(error)})"
            ) from error
        for number, batch in enumerate(batches):
            self._check(f"{self.where}: batch {number} of epoch {epoch}", batch)
        if not batches:
            raise DataError(f"{self.where}: gave no batches for epoch {epoch}; give at least one")
        if self.num_batches:
            self._refuse_other_number(epoch, len(batches))
        return [batch.astype(np.int64) for batch in batches]

    def _check(self, where: str, batch: Any) -> None:
        if batch.ndim != 1 or batch.dtype.kind not in "iu" or not len(batch):
            found = f"is {batch.dtype} of the shape {batch.shape}" if batch.size else "is empty"
            raise DataError(f"{where} {found}; give the numbers of its samples, at least one")
        if len(batch) > self.most:
            raise DataError(
                f"{where} has {len(batch)} samples, but a global batch has at most {self.most} (batch.size for each "
                "shard); raise batch.size, or give smaller ones"
            )
        if batch.min() < 0 or batch.max() >= len(self.lengths):
            bad = batch[(batch < 0) | (batch >= len(self.lengths))][0]
            raise DataError(f"{where}: there is no sample {bad}; samples are 0 to {len(self.lengths) - 1}")

    def _refuse_other_number(self, epoch: int, found: int) -> None:
        if found != self.num_batches:
            raise DataError(
                f"{self.where}: gave {found} batches for epoch {epoch}, but {self.num_batches} for epoch 1; give "
                "equally many in every epoch, from which iterations are counted"
            )

    def _probed(self, epoch: int, again: int = 0) -> list[list[int]]:
        """The batches of an epoch, with seeded global generators, from which nothing may be drawn."""
        seed_generators(number_of(f"probe/batches/{again}"), None)
        before = states()
        found = [batch.tolist() for batch in self.epoch(epoch, 0)]
        if states() != before:
            raise DataError(
                f"{self.where}: draws from the global generators of random or np.random; draw from "
                "np.random.default_rng([seed, epoch])"
            )
        return found


Grouping = Buckets | OwnBatches


def seed_of_stream(stream: str, seed: int) -> int:
    """What an own function is told as the seed: the run's in training, another one in each sweep of the finder."""
    return seed if stream == "train" else zlib.crc32(f"{stream}/{seed}".encode()) >> 1
