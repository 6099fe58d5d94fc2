"""How an evaluation reads samples as streams, whose rows carry state from batch to batch. Pure counting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.data.arrays import Indices


@dataclass(frozen=True)
class EvaluationStreams:
    """The batches of an evaluation in which each row reads consecutive samples, one in every batch.

    Of n samples, `streams` rows read `n // streams` each, in groups of at most `rows`, and what is left is one more row
    that is a group by itself. Groups have a batch each in every step, so batch `step * width + group` is the next of
    its group; where groups have ended, or there are fewer than `width`, there is none. `width` is a multiple of the
    ranks, so all batches of a group are the same rank's, and their order depends neither on the ranks nor on `width`.

    >>> order = EvaluationStreams(num_samples=8, streams=3, rows=2, ranks=2)
    >>> len(order), [None if part is None else part.tolist() for part in map(order.part, range(len(order)))]
    (8, [[0, 2], [4], [6], None, [1, 3], [5], [7], None])

    Attributes:
        num_samples: n, every one of which is read once.
        streams: rows of all groups but the last.
        rows: of a group at most.
        ranks: that share the groups.
    """

    num_samples: int
    streams: int
    rows: int
    ranks: int

    def __len__(self) -> int:
        """Batches, those included that do not exist."""
        return self.width * max(self._length if self._num_full else 0, self._rest)

    @property
    def width(self) -> int:
        """The distance from one batch of a group to the next."""
        groups = self._num_full + (self._rest > 0)
        return -(-groups // self.ranks) * self.ranks

    def group(self, number: int) -> int:
        """The group of a batch."""
        return number % self.width

    def part(self, number: int) -> Indices | None:
        """The samples of a batch, one for each of its rows; `None` where there is no such batch."""
        step, group = divmod(number, self.width)
        if group < self._num_full:
            first = group * self.rows
            rows = np.arange(first, min(first + self.rows, self.streams))
            return rows * self._length + step if step < self._length else None
        if group == self._num_full and step < self._rest:
            return np.array([self.num_samples - self._rest + step])
        return None

    @property
    def _length(self) -> int:
        return self.num_samples // self.streams

    @property
    def _rest(self) -> int:
        return self.num_samples % self.streams

    @property
    def _num_full(self) -> int:
        return -(-self.streams // self.rows) if self._length else 0
