"""Paths of a million files in one block of bytes: 35 bytes each and 8 for its end, where texts of Python take 130."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from harness.data.arrays import Indices

_AT_ONCE = 512  # paths that are encoded together


class Paths:
    r"""Paths by their number.

    >>> found = Paths.of(["b/1.jpg", "a/2.jpg"])
    >>> len(found), found[0], list(found.ordered(np.array([1, 0])))
    (2, 'b/1.jpg', ['a/2.jpg', 'b/1.jpg'])
    """

    def __init__(self, block: bytes | bytearray, ends: Indices, order: Indices | None = None) -> None:
        r"""Take them as they are.

        Args:
            block: each path as the file system has it, and `\0`.
            ends: the place of each `\0`, rising.
            order: which path comes at each place; by default as they lie.
        """
        self._block, self._ends, self._order = block, ends, order

    @classmethod
    def of(cls, paths: Iterable[str]) -> Paths:
        r"""Take those of an iteration, none of which has a `\0` in it."""
        block, few = bytearray(), list[str]()
        for path in paths:
            few.append(path)
            if len(few) == _AT_ONCE:
                block += _encoded(few)
                few.clear()
        block += _encoded(few)
        return cls(block, _ends_in(block))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ends if self._order is None else self._order)

    def __getitem__(self, number: int) -> str:
        """The path at a place, from 0."""
        place = range(len(self))[number] if self._order is None else int(self._order[number])
        start = int(self._ends[place - 1]) + 1 if place else 0
        return os.fsdecode(bytes(self._block[start : int(self._ends[place])]))

    def __iter__(self) -> Iterator[str]:
        """All of them."""
        return (self[number] for number in range(len(self)))

    def blocks(self) -> Iterator[bytes | bytearray]:
        r"""All of them in their order, each with `\0` behind it, many at a time."""
        if self._order is None:
            yield self._block
            return
        for first in range(0, len(self._order), _AT_ONCE):
            places = self._order[first : first + _AT_ONCE]
            starts, ends = (np.where(places > 0, self._ends[places - 1] + 1, 0), self._ends[places] + 1)
            parts = zip(starts.tolist(), ends.tolist(), strict=True)
            yield b"".join([self._block[start:end] for start, end in parts])

    def ordered(self, order: Indices) -> Paths:
        """The same in another order.

        Args:
            order: the place here of each path there.
        """
        return Paths(self._block, self._ends, order if self._order is None else self._order[order])


def _encoded(paths: list[str]) -> bytes:
    return os.fsencode("".join(f"{path}\0" for path in paths))


def _ends_in(block: bytearray) -> Indices:
    """Where the zeros are, looked for in parts, since what a comparison gives is as long as the block."""
    held, step = np.frombuffer(block, np.uint8), 1 << 22
    found = [np.flatnonzero(held[first : first + step] == 0) + first for first in range(0, len(held), step)]
    return np.concatenate(found) if found else np.empty(0, np.int64)
