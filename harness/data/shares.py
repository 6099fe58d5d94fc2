"""The batches of an evaluation, and which of them a rank reads. Knows ranks as numbers alone."""

from __future__ import annotations

from collections.abc import Iterator

from harness.data.arrays import Dataset
from harness.data.augment import Augmentation
from harness.data.batches import EvaluationBatch, chosen_batches, evaluation_batches
from harness.data.streams import EvaluationStreams


class EvaluationShare:
    """The batches of an evaluation by their number among those of all ranks, of which each rank reads its own.

    Args:
        dataset: the validation or test set.
        batch_size: the samples of a batch.
        augmentation: only its normalisation is applied.
        rank: whose batches are read.
        ranks: how many there are.
        rows: that read consecutive samples, for a network that carries state; `None` for one that does not.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, augmentation: Augmentation, rank: int, ranks: int, rows: int | None
    ) -> None:
        """Nothing is read yet."""
        self._dataset, self._batch_size, self._augmentation = dataset, batch_size, augmentation
        self._rank, self._ranks = rank, ranks
        self._streams = None if rows is None else EvaluationStreams(len(dataset), rows, batch_size, ranks)

    def __len__(self) -> int:
        """The batches of all ranks, those included that do not exist."""
        return -(-len(self._dataset) // self._batch_size) if self._streams is None else len(self._streams)

    def exists(self, number: int) -> bool:
        """Whether there is a batch of this number."""
        return number < len(self) if self._streams is None else self._streams.part(number) is not None

    def group(self, number: int) -> int:
        """Which batches carry state to each other."""
        return 0 if self._streams is None else self._streams.group(number)

    def read(self) -> Iterator[EvaluationBatch]:
        """This rank's, reading ahead.

        Raises:
            DataError: if the augmentation does not suit the samples.
        """
        first, step = self._rank, self._ranks
        if self._streams is None:
            return evaluation_batches(self._dataset, self._batch_size, self._augmentation, first=first, step=step)
        parts = ((number, self._streams.part(number)) for number in range(first, len(self._streams), step))
        own = ((number, part) for number, part in parts if part is not None)
        return chosen_batches(self._dataset, own, self._augmentation)
