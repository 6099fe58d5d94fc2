"""Which samples make up global batch `t`: a pure function of the settings and `t`.

There is no iterator, so there is no position to save: a resumed run requests the next `t`, and a run on another
number of ranks requests other shards of the same batches. Knows nothing about the samples themselves.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.data.batching import Batching
from harness.data.grouping import Buckets, OwnBatches, seed_of_stream
from harness.errors import DataError

if TYPE_CHECKING:
    from harness.data.arrays import Indices
    from harness.data.grouping import Grouping


def permutation(num_samples: int, seed: int, stream: str, epoch: int) -> Indices:
    """A random order of `range(num_samples)` that depends only on the arguments.

    The order sorts the raw output of the counter-based generator Philox (J. Salmon et al., Parallel Random Numbers:
    As Easy as 1, 2, 3, SC 2011), keyed by a hash of `(stream, seed, epoch)`. Both steps are specified to the bit, so
    unlike `Generator.permutation` the result cannot change with NumPy's version.

    >>> permutation(8, seed=0, stream="train", epoch=1)
    array([0, 6, 4, 3, 5, 7, 1, 2])
    """
    text = f"{stream}/{seed}/{epoch}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
    draws = np.random.Philox(key=key).random_raw(num_samples)
    return np.argsort(draws, kind="stable")


@dataclass(frozen=True)
class Order:
    """The order in which a run uses its samples.

    Every epoch has one permutation of all samples. Global batch `t`, counted from 1 through all epochs, is the next
    slice of it, as long as `Batching` says, and shard `s` is the slice `[s * batch_size, (s + 1) * batch_size)` of
    it. With buckets the permutation is one that brings samples of alike lengths together. Batches of the user's own
    may have any size, and are divided among the shards as evenly as possible.

    As streams, nothing is shuffled: the samples are cut into as many pieces of `iterations_per_epoch` samples as a
    global batch has rows, and every row reads its piece from front to back. What is left at the end is never read.

    >>> streams = Order(num_samples=13, shards=2, batch_size=2, seed=0, are_streams=True)
    >>> [streams.shard_indices(t, 0).tolist() for t in (1, 2, 3, 4)], streams.shard_indices(1, 1).tolist()
    ([[0, 3], [1, 4], [2, 5], [0, 3]], [6, 9])

    Attributes:
        num_samples: the size of the training set.
        shards: S, the shards of a global batch.
        batch_size: b, the samples of a shard.
        seed: the run's seed.
        last_batch: `"drop"` or `"keep"`.
        stream: a name; orders of different streams have nothing in common, but where they read streams of samples: then
            they begin at another place.
        are_streams: whether each row of a shard reads consecutive samples, one in every batch.
        grouping: which samples come together in a batch; None leaves that to chance.
        batching: the geometry of the batches, made of the above.

    Raises:
        DataError: if there are fewer samples than one global batch, or a setting is invalid.
    """

    num_samples: int
    shards: int
    batch_size: int
    seed: int
    last_batch: str = "drop"
    stream: str = "train"
    are_streams: bool = False
    grouping: Grouping | None = None
    batching: Batching = field(init=False, repr=False, compare=False)
    # The batches of the two most recent epochs, and what makes sure that only one thread computes any.
    _known: dict[int, list[Indices]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _computing: ClassVar[Any] = threading.Lock()

    def __post_init__(self) -> None:
        """Refuse settings that do not give a single full global batch, and streams of unequal lengths."""
        own = self.grouping.num_batches if isinstance(self.grouping, OwnBatches) else None
        batching = Batching(self.num_samples, self.shards, self.batch_size, self.last_batch, own)
        if self.are_streams and self.grouping is not None:
            raise DataError(
                "samples that are read as streams (network.state) come in their own order; leave out data.bucket and "
                "data.batches"
            )
        if self.are_streams and self.last_batch != "drop":
            raise DataError(
                f"last_batch is {self.last_batch!r}, but rows that read streams of samples are equally many in every "
                "batch; choose 'drop'"
            )
        object.__setattr__(self, "batching", batching)

    @property
    def global_batch(self) -> int:
        """Samples in a full global batch."""
        return self.batching.global_batch

    @property
    def iterations_per_epoch(self) -> int:
        """Global batches in an epoch."""
        return self.batching.iterations_per_epoch

    def epoch(self, t: int) -> int:
        """The epoch that iteration `t` belongs to."""
        return self.batching.epoch(t)

    def global_count(self, t: int) -> int:
        """The number of samples in global batch `t`."""
        if isinstance(self.grouping, OwnBatches):
            return len(self.global_indices(t))
        return self.batching.count(t)

    def global_indices(self, t: int) -> Indices:
        """The samples of global batch `t`, shard after shard, as a read-only array."""
        epoch, number = self.batching.place(t)
        return self.prepare(epoch)[number]

    def prepare(self, epoch: int) -> list[Indices]:
        """The samples of each global batch of an epoch; computed ahead of time, its first batch need not wait."""
        batches = self._known.get(epoch)
        if batches is None:
            with self._computing:
                batches = self._known.get(epoch)
                if batches is None:
                    batches = self._batches(epoch)
                    for old in list(self._known)[:-1]:
                        del self._known[old]
                    self._known[epoch] = batches
        return batches

    def begins(self, t: int) -> bool:
        """Whether global batch `t` is the first of its epoch, with which states that are carried begin anew."""
        return self.batching.place(t)[1] == 0

    def shard_indices(self, t: int, shard: int) -> Indices:
        """The samples of one shard (from 0) of global batch `t`; with `"keep"` there may be few, or none."""
        if not 0 <= shard < self.shards:
            raise ValueError(f"shard {shard} is not one of 0 to {self.shards - 1}")
        samples = self.global_indices(t)
        if isinstance(self.grouping, OwnBatches):
            return np.array_split(samples, self.shards)[shard]
        start = shard * self.batch_size
        return samples[start : start + self.batch_size]

    def _batches(self, epoch: int) -> list[Indices]:
        """The global batches of an epoch."""
        grouping = self.grouping
        if isinstance(grouping, OwnBatches):
            batches = grouping.epoch(epoch, seed_of_stream(self.stream, self.seed))
        else:
            samples = self._samples(epoch)
            if isinstance(grouping, Buckets):
                samples = grouping.arrange(
                    samples,
                    self.global_batch,
                    self.last_batch == "keep",
                    lambda count: permutation(count, self.seed, f"{self.stream}/batches", epoch),
                )
            starts = range(0, self.iterations_per_epoch * self.global_batch, self.global_batch)
            batches = [samples[start : start + self.global_batch] for start in starts]
        for batch in batches:
            batch.setflags(write=False)
        return batches

    def _samples(self, epoch: int) -> Indices:
        """All samples in the order of an epoch, before they are grouped."""
        return self._streams() if self.are_streams else permutation(self.num_samples, self.seed, self.stream, epoch)

    def _streams(self) -> Indices:
        """Batch after batch, one sample of each stream in each; of another name they begin elsewhere, and go round."""
        rows, length = self.global_batch, self.iterations_per_epoch
        order = np.arange(rows * length).reshape(rows, length).T.reshape(-1)
        if self.stream == "train":
            return order
        return (order + int(permutation(rows * length, self.seed, self.stream, 0)[0])) % (rows * length)


def sweep_order(order: Order, sweep: int) -> tuple[Order, int]:
    """The order of one sweep of the finder, which none of training's iterations has, and a seed for its augmentation.

    Args:
        order: of training.
        sweep: its number, from 0.
    """
    other = replace(order, last_batch="drop", stream=f"finder/{sweep}")
    return other, zlib.crc32(f"{other.stream}/{order.seed}".encode()) >> 1
