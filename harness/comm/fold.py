"""Sums the ranks' arrays in the order of `tree`, by what two ranks send each other; knows neither MPI nor MXNet.

For a power of two of ranks it is recursive halving and doubling (R. Thakur, R. Rabenseifner, W. Gropp: Optimization of
Collective Communication Operations in MPICH, 2005), with the partners that the tree names, so the bits are the same on
any number of them.

For other numbers of ranks every rank adds up a slice of its own, in the order of the ranks: as little to send, one
message to each of the others, and the same bits every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.comm.tree import is_power_of_two, partners

Array = npt.NDArray[Any]
# exchange(sent, received, to, source): send one array and receive another at the same time
Exchange = Callable[[Array, Array, int, int], None]

WHOLE_BYTES = 1 << 14  # up to here sending everything at each step is faster than halving
BLOCK_BYTES = 1 << 21  # what is folded at a time, so that it is added and sent on while it is in the cache


class RankFold:
    """Folds arrays over ranks, in place; every rank calls it with the same shapes and dtypes, in the same order."""

    def __init__(self, rank: int, size: int, exchange: Exchange) -> None:
        """Bind the ranks.

        Args:
            rank: this one.
            size: how many there are.
            exchange: sends to one rank while it receives from another.
        """
        self._rank = rank
        self._size = size
        self._exchange = exchange
        self._received = np.empty(0, np.uint8)

    @property
    def is_tree(self) -> bool:
        """Whether the bits do not depend on the number of ranks."""
        return is_power_of_two(self._size)

    def fold(self, array: Array) -> None:
        """Replace a contiguous one-dimensional array by its sum over ranks."""
        if self._size == 1 or array.size == 0:
            return
        if not self.is_tree:
            self._fold_slices(array)
        elif array.nbytes <= WHOLE_BYTES or array.size < self._size:
            self._fold_whole(array)
        else:
            block = BLOCK_BYTES // array.itemsize
            for begin in range(0, array.size, block):
                self._fold_halves(array[begin : begin + block])

    def _fold_whole(self, array: Array) -> None:
        received = self._room(array, array.size)
        for partner in partners(self._rank, self._size):
            self._exchange(array, received, partner, partner)
            np.add(array, received, out=array)

    def _fold_halves(self, array: Array) -> None:
        low, high = 0, array.size
        received = self._room(array, (array.size + 1) // 2)
        steps = []
        for partner in partners(self._rank, self._size):
            middle = (low + high) // 2
            halves = (array[low:middle], array[middle:high])
            own, other = halves if self._rank < partner else halves[::-1]
            low, high = (low, middle) if self._rank < partner else (middle, high)
            incoming = received[: own.size]
            self._exchange(other, incoming, partner, partner)
            np.add(own, incoming, out=own)
            steps.append((own, other, partner))
        for own, other, partner in reversed(steps):
            self._exchange(own, other, partner, partner)

    def _fold_slices(self, array: Array) -> None:
        rank, size = self._rank, self._size
        ends = [array.size * i // size for i in range(size + 1)]
        slices = [array[begin:end] for begin, end in pairwise(ends)]
        own = slices[rank]
        received = self._room(array, size * own.size).reshape(size, own.size)
        terms = [own if source == rank else received[source] for source in range(size)]
        for to, source in self._others():
            self._exchange(slices[to], terms[source], to, source)
        total = terms[0]
        for term in terms[1:]:
            target = own if term is own else total
            np.add(total, term, out=target)
            total = target
        if total is not own:
            own[:] = total
        for to, source in self._others():
            self._exchange(own, slices[source], to, source)

    def _others(self) -> Iterator[tuple[int, int]]:
        for step in range(1, self._size):
            yield (self._rank + step) % self._size, (self._rank - step) % self._size

    def _room(self, array: Array, count: int) -> Array:
        """Memory for `count` numbers of an array's kind; it is kept, so that no update allocates."""
        num_bytes = count * array.itemsize
        if self._received.nbytes < num_bytes:
            self._received = np.empty(num_bytes, np.uint8)
        return self._received[:num_bytes].view(array.dtype)
