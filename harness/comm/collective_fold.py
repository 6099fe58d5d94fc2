"""Finishes the tree of `tree` by collectives of all ranks, on whatever device the partial sums lie; knows no Horovod.

Each rank owns a slice: an all-to-all gives it that slice of everybody's partial sums, it adds them in the order of the
tree, and an allgather gives the sums to all. A small array is not worth two collectives: there every rank receives all
partial sums, and adds them by itself. Two partial sums can be added in one order only, and so by anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np

from harness.comm.tree import Assignment
from harness.comm.world import Array, Buffer

WHOLE_BYTES = 1 << 21  # of all partial sums; up to here one collective is faster than two
BLOCK_BYTES = 1 << 17  # what is added at a time, so that partial sums are still in the cache when they are needed again


class Collectives(Protocol):
    """What ranks do together with one-dimensional arrays of a device.

    Every method returns at once; the engine of MXNet knows which arrays are read and written. Nothing is allocated:
    `received` has the right size, and its caller keeps it until everything is received.
    """

    def alltoall(self, sent: Any, counts: Sequence[int], received: Any, name: str) -> None:
        """Send the first `counts[0]` numbers to rank 0, the next `counts[1]` to rank 1, and so on."""

    def allgather(self, sent: Any, received: Any, name: str) -> None:
        """Put the ranks' arrays, whose lengths may differ, one behind the other."""

    def allreduce(self, array: Any, name: str) -> None:
        """Replace an array by its sum over ranks, in an order of the library's own."""


class CollectiveFold:
    """Finishes sums over ranks, in place; its memory is kept from one sum to the next."""

    def __init__(self, rank: int, collectives: Collectives) -> None:
        """Bind the ranks.

        Args:
            rank: this one.
            collectives: of all.
        """
        self._rank = rank
        self._collectives = collectives
        self._key: object = None  # the kind of sum that there is memory for
        self._memory: _Whole | _Slices | None = None
        self._total: Any = None

    def finish(self, parts: Sequence[Buffer], assignment: Assignment, name: str) -> None:
        """Finish the tree over the partial sums of all ranks. May return before that is done.

        Args:
            parts: this rank's, in the order of the assignment; the last one gets the sum.
            assignment: whose workers are the ranks.
            name: of the collectives.
        """
        total = parts[-1]
        if assignment.workers == 1 or total.array.size == 0:
            return
        if sum(assignment.held) == 2:
            self._collectives.allreduce(total.array, name)
            return
        key = (total.array.size, total.array.dtype, total.array.context, assignment)
        if self._memory is None or self._key != key or self._total is not total.array:
            self._release()
            all_bytes = sum(assignment.held) * total.array.size * np.dtype(total.array.dtype).itemsize
            is_small = all_bytes <= WHOLE_BYTES or total.array.size < assignment.workers
            self._memory = (_Whole if is_small else _Slices)(self._rank, total, assignment)
            self._key, self._total = key, total.array
        self._memory.finish(parts, self._collectives, name)

    def _release(self) -> None:
        """Give memory back; a collective that is under way would write to it."""
        if self._memory is not None:
            for array in (*(received.array for received in self._memory.received), self._total):
                array.wait_to_read()
        self._memory = self._total = None


class _Piece(NamedTuple):
    """A part of a buffer."""

    array: Any
    host: Array | None


class _Whole:
    """Every rank receives all partial sums."""

    def __init__(self, rank: int, total: Buffer, assignment: Assignment) -> None:
        count, held = total.array.size, assignment.held
        self._additions = assignment.additions
        self.received = [total.like(sum(held) * count)]
        self._terms = _pieces(self.received[0], [count] * sum(held))
        # Several partial sums of a rank are sent as one array.
        self._sent = total.like(held[rank] * count) if held[rank] > 1 else None
        self._copies = [] if self._sent is None else _pieces(self._sent, [count] * held[rank])

    def finish(self, parts: Sequence[Buffer], collectives: Collectives, name: str) -> None:
        for part, copy in zip(parts, self._copies, strict=False):
            part.array.copyto(copy.array)
        sent = parts[-1] if self._sent is None else self._sent
        collectives.allgather(sent.array, self.received[0].array, name)
        _add(self.received, self._terms, self._additions)
        self._terms[0].array.copyto(parts[-1].array)


class _Slices:
    """Every rank receives its slice of all partial sums, and then the slices of the sum."""

    def __init__(self, rank: int, total: Buffer, assignment: Assignment) -> None:
        held, size = assignment.held, assignment.workers
        ends = [total.array.size * (i + 1) // size for i in range(size)]
        counts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        self._additions = assignment.additions
        # One all-to-all for the first partial sums of all ranks, one for their second, and so on; a rank that has no
        # more of them sends nothing.
        self._counts = [counts if i < held[rank] else [0] * size for i in range(max(held))]
        self.received: list[Buffer] = []
        terms: dict[int, _Piece] = {}
        first = [end - one for end, one in zip(accumulate(held), held, strict=True)]
        for i in range(max(held)):
            numbers = [number + i for number, one in zip(first, held, strict=True) if i < one]
            self.received.append(total.like(len(numbers) * counts[rank]))
            terms |= zip(numbers, _pieces(self.received[i], [counts[rank]] * len(numbers)), strict=True)
        self._terms = [terms[number] for number in range(len(terms))]

    def finish(self, parts: Sequence[Buffer], collectives: Collectives, name: str) -> None:
        for i, (counts, received) in enumerate(zip(self._counts, self.received, strict=True)):
            sent = parts[min(i, len(parts) - 1)]
            collectives.alltoall(sent.array, counts, received.array, f"{name}.{i}")
        _add(self.received, self._terms, self._additions)
        collectives.allgather(self._terms[0].array, parts[-1].array, name)


def _pieces(buffer: Buffer, counts: Sequence[int]) -> list[_Piece]:
    places = [slice(end - count, end) for end, count in zip(accumulate(counts), counts, strict=True)]
    return [_Piece(buffer.array[place], None if buffer.host is None else buffer.host[place]) for place in places]


def _add(received: Sequence[Buffer], terms: Sequence[_Piece], additions: Sequence[tuple[int, int]]) -> None:
    """Leave the sum of all terms in the first: by NumPy on the CPU, where MXNet's kernels are not vectorised."""
    hosts = [term.host for term in terms if term.host is not None]
    if len(hosts) < len(terms):
        for into, what in additions:
            array = terms[into].array
            array += terms[what].array
        return
    for buffer in received:
        buffer.array.wait_to_read()
    block = BLOCK_BYTES // hosts[0].itemsize
    for begin in range(0, hosts[0].size, block):
        blocks = [host[begin : begin + block] for host in hosts]
        for into, what in additions:
            np.add(blocks[into], blocks[what], out=blocks[into])
