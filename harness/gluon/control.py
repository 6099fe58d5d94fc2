"""Control values: a few numbers that every rank adds to the sum of an update, so that all ranks decide alike."""

from __future__ import annotations

from typing import Any, NamedTuple

from harness.data import GlobalBatch


class Requests(NamedTuple):
    """What a rank asks of all ranks.

    Attributes:
        save: to write a checkpoint; rank 0's clock decides it.
        failure: to end, because rank 0 could not write a checkpoint.
        stop: to save and end; any rank may be told to.
    """

    save: bool = False
    failure: bool = False
    stop: bool = False

    def __or__(self, other: object) -> Requests:
        """What either asks."""
        if not isinstance(other, Requests):
            return NotImplemented
        return Requests(*(one or another for one, another in zip(self, other, strict=True)))


class ControlValues(NamedTuple):
    """What ranks say of an update, summed over shards and ranks: the base of every shared decision.

    As float32, in which they travel, they count exactly to 16 million.

    Attributes:
        loss_sum: sum of the samples' losses.
        num_samples: samples in the global batch.
        num_shards: shards that were not empty.
        save: whether rank 0 asks for a checkpoint.
        failure: whether rank 0 could not write one.
        stop: how many ranks were asked to stop.
    """

    loss_sum: float
    num_samples: float
    num_shards: float
    save: float
    failure: float
    stop: float

    @classmethod
    def of(cls, batch: GlobalBatch, ask: Requests) -> ControlValues:
        """What one rank says before it has processed its shards, whose losses are not known yet."""
        counts = [shard.count for shard in batch.batches]
        return cls(0.0, sum(counts), sum(map(bool, counts)), *ask)

    @property
    def requests(self) -> Requests:
        """What any rank asks."""
        return Requests(self.save > 0, self.failure > 0, self.stop > 0)


class Loss:
    """The mean loss of a global batch, perhaps not computed yet: `float()` of it waits."""

    def __init__(self, measured: Any, num_samples: int) -> None:
        """Bind what `NormCheck.measure` returned, whose first number is the sum over the batch's samples."""
        self._measured = measured
        self._num_samples = num_samples

    def __float__(self) -> float:
        """The mean."""
        return float(self._measured.asnumpy()[0]) / self._num_samples
