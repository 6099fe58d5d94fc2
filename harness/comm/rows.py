"""Sums of rows: gradients of tables of which a shard touches few rows. Pure NumPy; it knows neither MPI nor MXNet.

A row is added up over the shards that have it, in the order of `tree`, as if those without were left out of the tree:
where one of two terms has no such row, the other is copied, and not added to 0, which would turn -0 into 0. So the bits
depend on the shards alone, whoever adds. Each rank folds its shards, gathers the partial sums of all ranks, and
finishes the tree by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.comm.tree import Assignment

Array = npt.NDArray[Any]


class Rows(NamedTuple):
    """Some rows of a table.

    Attributes:
        indices: which ones, `(k,)`, int64, ascending, each once.
        values: `(k, width)`, float32.
    """

    indices: Array
    values: Array

    @classmethod
    def none(cls, width: int) -> Rows:
        """No rows."""
        return cls(np.empty(0, np.int64), np.empty((0, width), np.float32))

    def plus(self, other: Rows) -> Rows:
        """The rows of both, added where both have one.

        >>> one, two = (Rows(np.array(k), np.ones((2, 1), "f")) for k in ([1, 4], [0, 4]))
        >>> one.plus(two).indices.tolist(), one.plus(two).values.tolist()
        ([0, 1, 4], [[1.0], [1.0], [2.0]])
        """
        if not self.indices.size or not other.indices.size:
            return self if self.indices.size else other
        indices = np.union1d(self.indices, other.indices)
        values = np.empty((indices.size, self.values.shape[1]), np.float32)
        own, its = (np.searchsorted(indices, one.indices) for one in (self, other))
        values[own] = self.values
        is_new = np.ones(indices.size, bool)
        is_new[own] = False
        new = is_new[its]
        values[its[new]] = other.values[new]
        values[its[~new]] += other.values[~new]
        return Rows(indices, values)

    @property
    def square(self) -> float:
        """The sum of the squares of all numbers, in float64."""
        flat = self.values.reshape(-1).astype(np.float64)
        return float(np.dot(flat, flat))


Term = tuple[Rows, ...]  # of one shard, or of a partial sum: rows of each table


class RowFold:
    """Sums the rows that the shards of a worker leave, as `harness.gluon.gradient_buffer.Fold` sums what is dense."""

    def __init__(self, merges: Sequence[int]) -> None:
        """Prepare to fold.

        Args:
            merges: `Assignment.merges` of this worker.
        """
        self._merges = merges
        self._waiting: list[Term] = []
        self._position = 0

    @property
    def parts(self) -> list[Term]:
        """The partial sums, in the order in which they were completed."""
        return list(self._waiting)

    def begin(self) -> None:
        """Start over."""
        self._waiting.clear()
        self._position = 0

    def push(self, shard: Term) -> None:
        """Take in the next shard."""
        for _ in range(self._merges[self._position]):
            shard = added(self._waiting.pop(), shard)
        self._waiting.append(shard)
        self._position += 1


def added(one: Term, other: Term) -> Term:
    """The sum of two terms, table by table."""
    return tuple(rows.plus(its) for rows, its in zip(one, other, strict=True))


def finish(terms: Sequence[Term], assignment: Assignment) -> Term:
    """Finish the tree over the partial sums of all workers, in their order."""
    sums = list(terms)
    for into, what in assignment.additions:
        sums[into] = added(sums[into], sums[what])
    return sums[0]


def pack(parts: Sequence[Term]) -> Array:
    """Partial sums as bytes, `(n,)`: how many rows of each table each has, all indices, all values."""
    rows = [one for part in parts for one in part]
    counts = np.array([one.indices.size for one in rows], np.int64)
    arrays = [counts, *(one.indices for one in rows), *(one.values for one in rows)]
    return np.concatenate([np.ascontiguousarray(one).reshape(-1).view(np.uint8) for one in arrays])


def unpack(message: Array, widths: Sequence[int], num_parts: int) -> list[Term]:
    """What `pack` has packed.

    Args:
        message: its bytes.
        widths: of a row of each table.
        num_parts: how many partial sums they are.
    """
    pieces = _Pieces(message)
    counts = pieces.take(np.int64, num_parts * len(widths)).tolist()
    indices = [pieces.take(np.int64, count) for count in counts]
    all_widths = list(widths) * num_parts
    values = [
        pieces.take(np.float32, count * width).reshape(count, width)
        for count, width in zip(counts, all_widths, strict=True)
    ]
    rows = iter(map(Rows, indices, values))
    return [tuple(_next(rows, len(widths))) for _ in range(num_parts)]


class _Pieces:
    """Reads arrays out of bytes, one behind the other."""

    def __init__(self, message: Array) -> None:
        self._message, self._position = message, 0

    def take(self, dtype: Any, count: int) -> Array:
        begin, size = self._position, np.dtype(dtype).itemsize * count
        self._position += size
        return self._message[begin : begin + size].copy().view(dtype)  # a copy is aligned


def _next(rows: Iterator[Rows], count: int) -> Iterator[Rows]:
    for _ in range(count):
        yield next(rows)
