"""How samples make up global batches: their number, the epochs, and where in its epoch each begins. Pure counting."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import DataError


@dataclass(frozen=True)
class Batching:
    """The geometry of a run's batches.

    A global batch is S shards of b samples. Of n samples an epoch makes `n / (S b)` global batches; what is left is
    dropped, or with `"keep"` makes one more, smaller batch, whose last shards may be short or empty. Batches of the
    user's own (`num_batches`) may have any size up to `S b`. Iterations and epochs count from 1.

    >>> kept = Batching(num_samples=28, shards=2, batch_size=5, last_batch="keep")
    >>> kept.global_batch, kept.iterations_per_epoch, [kept.count(t) for t in (1, 2, 3, 4)]
    (10, 3, [10, 10, 8, 10])

    Attributes:
        num_samples: n, the training samples.
        shards: S, the shards of a global batch.
        batch_size: b, the samples of a shard.
        last_batch: `"drop"` or `"keep"`.
        num_batches: global batches in an epoch where the user's own function says which they are, or None.

    Raises:
        DataError: if there are fewer samples than one global batch, or a setting is invalid.
    """

    num_samples: int
    shards: int
    batch_size: int
    last_batch: str = "drop"
    num_batches: int | None = None

    def __post_init__(self) -> None:
        """Refuse settings without a single full global batch."""
        if self.shards < 1 or self.batch_size < 1:
            shards, size = self.shards, self.batch_size
            raise DataError(f"a global batch is {shards} shards x {size} samples; both must be at least 1")
        if self.last_batch not in ("drop", "keep"):
            raise DataError(f"last_batch is {self.last_batch!r}; choose 'drop' or 'keep'")
        if self.num_samples < self.global_batch and self.num_batches is None:
            raise DataError(
                f"a global batch is {self.shards} shards x {self.batch_size} = {self.global_batch} samples, but there "
                f"are only {self.num_samples} training samples; lower batch.size, or use fewer shards or workers"
            )

    @property
    def global_batch(self) -> int:
        """Samples in a full global batch."""
        return self.shards * self.batch_size

    @property
    def iterations_per_epoch(self) -> int:
        """Global batches in an epoch."""
        if self.num_batches is not None:
            return self.num_batches
        full, rest = divmod(self.num_samples, self.global_batch)
        return full + (rest > 0 and self.last_batch == "keep")

    def epoch(self, t: int) -> int:
        """The epoch that iteration `t` belongs to."""
        return self.place(t)[0]

    def count(self, t: int) -> int:
        """Samples in global batch `t`; not those of the user's own, which only their function knows."""
        return min(self.global_batch, self.num_samples - self.place(t)[1] * self.global_batch)

    def place(self, t: int) -> tuple[int, int]:
        """The epoch of global batch `t`, and its number in the epoch, from 0.

        Raises:
            ValueError: if `t` is less than 1.
        """
        if t < 1:
            raise ValueError(f"iteration {t}: iterations count from 1")
        epochs, batches = divmod(t - 1, self.iterations_per_epoch)
        return epochs + 1, batches
