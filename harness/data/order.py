"""Which samples make up global batch `t`: a pure function of the settings and `t`.

There is no iterator, so there is no position to save: a resumed run requests the next `t`, and a run on another
number of ranks requests other shards of the same batches. Knows nothing about the samples themselves.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import DataError

if TYPE_CHECKING:
    from harness.data.arrays import Indices


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
    slice of it, `shards * batch_size` long, and shard `s` is the slice `[s * batch_size, (s + 1) * batch_size)` of
    it. The remainder of an epoch is dropped, or with `"keep"` becomes one more global batch, whose last shards
    may be short or empty.

    Attributes:
        num_samples: the size of the training set.
        shards: S, the number of shards in a global batch.
        batch_size: b, the number of samples in a shard.
        seed: the run's seed.
        last_batch: `"drop"` or `"keep"`.
        stream: a name; orders of different streams have nothing in common.

    Raises:
        DataError: if there are fewer samples than one global batch, or a setting is invalid.
    """

    num_samples: int
    shards: int
    batch_size: int
    seed: int
    last_batch: str = "drop"
    stream: str = "train"
    # The most recent permutation. A single reference is replaced, so threads need no lock: at worst they
    # both compute it.
    _last: tuple[int, Indices] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse settings that do not give a single full global batch."""
        if self.shards < 1 or self.batch_size < 1:
            raise DataError(f"data order: {self.shards} shards of {self.batch_size} samples; both must be at least 1")
        if self.last_batch not in ("drop", "keep"):
            raise DataError(f"data order: last_batch is {self.last_batch!r}; choose 'drop' or 'keep'")
        if self.num_samples < self.global_batch:
            raise DataError(
                f"data order: {self.num_samples} training samples are fewer than one global batch of "
                f"{self.global_batch} ({self.shards} shards of {self.batch_size}); use a smaller batch.size, fewer "
                "shards, or more samples"
            )

    @property
    def global_batch(self) -> int:
        """The number of samples in a full global batch, `shards * batch_size`."""
        return self.shards * self.batch_size

    @property
    def iterations_per_epoch(self) -> int:
        """`num_samples / global_batch`, rounded down for `"drop"` and up for `"keep"`."""
        full, rest = divmod(self.num_samples, self.global_batch)
        return full + (rest > 0 and self.last_batch == "keep")

    def epoch(self, t: int) -> int:
        """The epoch, from 1, that iteration `t`, from 1, belongs to."""
        return self._position(t)[0] + 1

    def global_count(self, t: int) -> int:
        """The number of samples in global batch `t`."""
        _, start = self._position(t)
        return min(self.global_batch, self.num_samples - start)

    def global_indices(self, t: int) -> Indices:
        """The samples of global batch `t`, shard after shard, as a read-only array."""
        epoch, start = self._position(t)
        return self._permutation(epoch + 1)[start : start + self.global_batch]

    def shard_indices(self, t: int, shard: int) -> Indices:
        """The samples of one shard (from 0) of global batch `t`; with `"keep"` there may be few, or none."""
        if not 0 <= shard < self.shards:
            raise ValueError(f"shard {shard} is not one of 0 to {self.shards - 1}")
        start = shard * self.batch_size
        return self.global_indices(t)[start : start + self.batch_size]

    def _position(self, t: int) -> tuple[int, int]:
        """The epoch, from 0, and the position in its permutation where global batch `t` starts."""
        if t < 1:
            raise ValueError(f"iteration {t}: iterations count from 1")
        epoch, batch = divmod(t - 1, self.iterations_per_epoch)
        return epoch, batch * self.global_batch

    def _permutation(self, epoch: int) -> Indices:
        last = self._last
        if last is None or last[0] != epoch:
            order = permutation(self.num_samples, self.seed, self.stream, epoch)
            order.setflags(write=False)
            last = (epoch, order)
            object.__setattr__(self, "_last", last)
        return last[1]
