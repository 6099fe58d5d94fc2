"""Sums the ranks' arrays in the order of `tree`, by what two ranks send each other; knows neither MPI nor MXNet.

Where every rank is left with one partial sum, and these are a row of the tree over a power of two, it is recursive
halving and doubling (R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in
MPICH, 2005), with the partners that the tree names.

Otherwise each rank owns a slice: it receives that slice of every other rank's partial sums, adds them in the order of
the tree, and sends the result to all. Where each has one partial sum that is as little to send.

Gradients in 16 bits (`half`) always go the second way. What one shard left and what all left are sent as 16 bits; a
partial sum over several shards has more bits, and goes as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from harness.comm.half import HalfForm, HalfPrecision
from harness.comm.tree import Assignment, assign, partners

Array = npt.NDArray[Any]
# exchange(sent, received, to, source): send one array and receive another at the same time; an empty one is no message
Exchange = Callable[[Array, Array, int, int], None]

WHOLE_BYTES = 1 << 14  # up to here sending everything at each step is faster than halving
BLOCK_BYTES = 1 << 21  # what is folded at a time, so that it is added and sent on while it is in the cache


class Form(Protocol):
    """How numbers travel."""

    def settle(self, values: Array) -> None:
        """Change numbers in place to what can be packed."""

    def packed(self, values: Array) -> Array:
        """What is sent, until the next call."""

    def room(self, values: Array) -> Array:
        """Memory for what is received, until the next call."""

    def unpack(self, received: Array, values: Array) -> None:
        """Write the numbers that were received."""


class AsTheyAre(Form):
    """Numbers travel as they lie in memory."""

    @override
    def settle(self, values: Array) -> None:
        return

    @override
    def packed(self, values: Array) -> Array:
        return values

    @override
    def room(self, values: Array) -> Array:
        return values

    @override
    def unpack(self, received: Array, values: Array) -> None:
        """They are there already."""


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
        self._plain = AsTheyAre()
        self._forms: dict[int, HalfForm] = {}  # by exponent, of which a run has two at most

    def fold(self, array: Array) -> None:
        """Replace a contiguous one-dimensional array by its sum over ranks: a tree over as many terms as ranks."""
        self.finish([array], assign(self._size, self._size))

    def finish(self, parts: Sequence[Array], assignment: Assignment, half: HalfPrecision | None = None) -> None:
        """Finish the tree over the partial sums of all ranks; its sum is then in the last one of each rank.

        Args:
            parts: this rank's, contiguous and one-dimensional, in the order of the assignment; all are overwritten.
            assignment: whose workers are the ranks.
            half: which numbers travel in 16 bits: those of one shard are rounded already, their sum is rounded here.
        """
        if half is not None:
            self._finish_half([part[: half.count] for part in parts], assignment, half.exponent)
            parts = [part[half.count :] for part in parts]
        array = parts[-1]
        if self._size == 1 or array.size == 0:
            return
        block = array.size if array.nbytes <= WHOLE_BYTES else BLOCK_BYTES // array.itemsize
        for begin in range(0, array.size, block):
            blocks = [part[begin : begin + block] for part in parts]
            if not assignment.is_row:
                self._finish_slices(blocks, assignment, self._plain)
            elif array.nbytes <= WHOLE_BYTES or array.size < self._size:
                self._fold_whole(blocks[0])
            else:
                self._fold_halves(blocks[0])

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

    def _finish_half(self, parts: Sequence[Array], assignment: Assignment, exponent: int) -> None:
        if exponent not in self._forms:
            self._forms[exponent] = HalfForm(exponent)
        form = self._forms[exponent]
        array, block = parts[-1], BLOCK_BYTES // parts[-1].itemsize
        if self._size == 1:
            form.settle(array)
            return
        # what is too large for 16 bits becomes infinite, which the update's check sees
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(0, array.size, block):
                self._finish_slices([part[begin : begin + block] for part in parts], assignment, form)

    def _finish_slices(self, parts: Sequence[Array], assignment: Assignment, form: Form) -> None:
        """Finish a block; `form` is that of a partial sum over one shard, and that of the result."""
        rank, size, held = self._rank, self._size, assignment.held
        forms = [[form if shards == 1 else self._plain for shards in own] for own in assignment.terms]
        count = parts[-1].size
        slices = [slice(count * i // size, count * (i + 1) // size) for i in range(size)]
        numbers = [range(end - one, end) for end, one in zip(accumulate(held), held, strict=True)]
        total = parts[-1][slices[rank]]
        # What this rank adds: its own partial sums where they are, and room for those of the others.
        num_others = sum(held) - held[rank]
        others = iter(self._room(total, num_others * total.size).reshape(num_others, total.size))
        own = iter(parts)
        terms = [next(own)[slices[rank]] if number in numbers[rank] else next(others) for number in range(sum(held))]
        nothing = total[:0]
        for to, source in self._others():
            for i in range(max(held)):
                sent = forms[rank][i].packed(parts[i][slices[to]]) if i < held[rank] else nothing
                if i < held[source]:
                    its, term = forms[source][i], terms[numbers[source][i]]
                    received = its.room(term)
                    self._exchange(sent, received, to, source)
                    its.unpack(received, term)
                else:
                    self._exchange(sent, nothing, to, source)
        for into, what in assignment.additions[:-1]:
            np.add(terms[into], terms[what], out=terms[into])
        into, what = assignment.additions[-1]
        np.add(terms[into], terms[what], out=total)
        form.settle(total)
        packed = form.packed(total)
        for to, source in self._others():
            other = parts[-1][slices[source]]
            received = form.room(other)
            self._exchange(packed, received, to, source)
            form.unpack(received, other)

    def _others(self) -> Iterator[tuple[int, int]]:
        for step in range(1, self._size):
            yield (self._rank + step) % self._size, (self._rank - step) % self._size

    def _room(self, array: Array, count: int) -> Array:
        """Memory for `count` numbers of an array's kind; it is kept, so that no update allocates."""
        num_bytes = count * array.itemsize
        if self._received.nbytes < num_bytes:
            self._received = np.empty(num_bytes, np.uint8)
        return self._received[:num_bytes].view(array.dtype)
