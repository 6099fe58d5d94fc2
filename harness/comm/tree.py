"""The order of addition: one tree over the shards of a global batch, whoever adds. Pure; it knows no MPI and no MXNet.

Floating-point addition commutes, but it does not associate: the bits of a sum depend on which partial sums are added to
each other. So the tree is fixed, by the number of shards alone. Of n terms, term i is added to term i + h, where there
is one, with h = n/2 rounded up; of the h partial sums, each is added to the one h/2 further on; until one is left:

    shards       0    1    2    3    4    5    6    7                  0    1    2    3    4    5
    distance 4   0+4  1+5  2+6  3+7                      distance 3    0+3  1+4  2+5
    distance 2   0+4+2+6   1+5+3+7                       distance 2    0+3+2+5   1+4
    distance 1   all eight                               distance 1    all six

A worker is a device of a rank. `assign` gives each worker shards that stand beside each other in the tree (0, 4, 2, 6,
1, 5, 3, 7 for eight), so that it adds up most of them by itself and is left with few partial sums: with one wherever
the numbers of shards and workers are powers of two. What is left is added in the order of `Assignment.additions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, zip_longest
from typing import NamedTuple, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Assignment:
    """Who adds what: the tree over the shards, divided among workers.

    Partial sums are numbered worker by worker: first those of worker 0, in the order in which it completes them.

    Attributes:
        shards: of each worker, in the order in which it processes them.
        merges: of each worker, for each of its shards: to how many waiting partial sums, the newest first, the shard's
            gradient is added.
        additions: how the tree is finished: pairs (into, what) of numbers of partial sums, in order; the sum of
            everything is then in partial sum 0.
        is_row: whether the workers' partial sums are one row of a tree over a power of two, which `partners` finishes.
    """

    shards: tuple[tuple[int, ...], ...]
    merges: tuple[tuple[int, ...], ...]
    additions: tuple[tuple[int, int], ...]
    is_row: bool

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self.shards)

    @property
    def held(self) -> tuple[int, ...]:
        """With how many partial sums each worker is left."""
        return tuple(len(own) - sum(merges) for own, merges in zip(self.shards, self.merges, strict=True))

    @property
    def terms(self) -> tuple[tuple[int, ...], ...]:
        """Over how many shards each partial sum is that a worker is left with.

        >>> assign(8, 3).terms
        ((2, 1), (1, 2), (2,))
        """
        return tuple(_terms(merges) for merges in self.merges)


@lru_cache(maxsize=64)
def assign(shards: int, workers: int) -> Assignment:
    """Divide shards among workers as evenly as possible, such that each is left with few partial sums.

    The workers that get one more are those whose shards come first in the tree. Of all ways to choose them that leaves
    the fewest, but for 64 shards on 5 workers (4 at most instead of 5).

    Args:
        shards: S, from 1.
        workers: from 1 to S.

    >>> assign(8, 2).shards, assign(8, 2).merges
    (((0, 4, 2, 6), (1, 5, 3, 7)), ((0, 1, 0, 2), (0, 1, 0, 2)))
    >>> assign(8, 3).shards, assign(8, 3).held  # left are 0+4 and 2; 6 and 1+5; 3+7
    (((0, 4, 2), (6, 1, 5), (3, 7)), (2, 2, 1))
    >>> assign(8, 3).additions
    ((1, 2), (0, 1), (3, 4), (0, 3))
    """
    if not 1 <= workers <= shards:
        raise ValueError(f"{workers} workers cannot share {shards} shards")
    order = tree_order(shards)
    shares = _shares(order, workers)
    owners = {shard: worker for worker, share in enumerate(shares) for shard in share}
    merges = dict.fromkeys(order, 0)
    left: list[int] = []  # the first shards of what no worker adds to another partial sum of its own
    additions: list[tuple[int, int]] = []  # the first shards of both

    def add(into: _Part, what: _Part) -> _Part:
        worker = into.worker if into.worker == what.worker else None
        if worker is not None:
            merges[what.last] += 1
        else:
            left.extend(part.first for part in (into, what) if part.worker is not None)
            additions.append((into.first, what.first))
        return _Part(worker, into.first, what.last)

    whole = _fold([_Part(owners[shard], shard, shard) for shard in range(shards)], add)
    if whole.worker is not None:
        left.append(whole.first)
    position = {shard: position for position, shard in enumerate(order)}
    left.sort(key=lambda first: (owners[first], position[first]))
    numbers = {first: number for number, first in enumerate(left)}
    finish = tuple((numbers[into], numbers[what]) for into, what in additions)
    return Assignment(
        shares,
        tuple(tuple(merges[shard] for shard in share) for share in shares),
        finish,
        is_row=len(left) == workers and is_power_of_two(workers) and finish == _row(workers),
    )


def tree_order(shards: int) -> list[int]:
    """The shards as they stand beside each other in the tree, from left to right.

    >>> tree_order(8), tree_order(6)
    ([0, 4, 2, 6, 1, 5, 3, 7], [0, 3, 2, 5, 1, 4])
    """
    return _fold([[shard] for shard in range(shards)], lambda into, what: into + what)


def take_turns(own: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The order in which a process starts the shards of its devices: (device, shard), one of each device at a time.

    >>> take_turns([(0, 4, 2), (6, 1)])
    [(0, 0), (1, 6), (0, 4), (1, 1), (0, 2)]
    """
    turns = zip_longest(*own)
    return [(device, shard) for turn in turns for device, shard in enumerate(turn) if shard is not None]


def partners(rank: int, size: int) -> list[int]:
    """The ranks whose partial sums a rank adds to its own, step by step; `size` is a power of two.

    >>> partners(0, 8), partners(3, 8)
    ([4, 2, 1], [7, 1, 2])
    """
    return [rank ^ distance for distance in _distances(size)]


def is_power_of_two(number: int) -> bool:
    """Whether a positive number is 1, 2, 4, ...

    >>> [number for number in range(1, 10) if is_power_of_two(number)]
    [1, 2, 4, 8]
    """
    return number & (number - 1) == 0


class _Part(NamedTuple):
    """A part of the tree: the worker that adds it up alone, if one does, and its first and last shard."""

    worker: int | None
    first: int
    last: int


def _fold(terms: list[T], add: Callable[[T, T], T]) -> T:
    """The definition of the tree: add term i + h to term i, for h half of the terms, until one is left."""
    while len(terms) > 1:
        half = (len(terms) + 1) // 2
        terms = [*map(add, terms[: len(terms) - half], terms[half:]), *terms[len(terms) - half : half]]
    return terms[0]


def _shares(order: Sequence[int], workers: int) -> tuple[tuple[int, ...], ...]:
    """Consecutive parts, as even as possible; a worker's number is its place in a row of the tree."""
    even, larger = divmod(len(order), workers)
    ends = [even * worker + min(worker, larger) for worker in range(workers + 1)]
    return tuple(sorted((tuple(order[begin:end]) for begin, end in pairwise(ends)), key=min))


def _terms(merges: Sequence[int]) -> tuple[int, ...]:
    waiting: list[int] = []
    for number in merges:
        waiting.append(1 + sum(waiting.pop() for _ in range(number)))
    return tuple(waiting)


def _row(size: int) -> tuple[tuple[int, int], ...]:
    """What is added over a row of a power of two of terms."""
    return tuple((term, term + distance) for distance in _distances(size) for term in range(distance))


def _distances(size: int) -> list[int]:
    """How far apart the terms are that are added, step by step."""
    return [size >> step for step in range(1, size.bit_length())]
