"""The order of addition: one tree over the shards of a global batch. Pure; it knows no MPI and no MXNet.

Floating-point addition commutes, but it does not associate: the bits of a sum depend on which partial sums are added to
each other. So the tree is fixed. Of S shards, shard s is added to shard s + S/2; of the S/2 partial sums, each is added
to the one S/4 further on; and so on. For S = 8:

    shards          0    1    2    3    4    5    6    7
    distance 4      0+4  1+5  2+6  3+7
    distance 2      0+4+2+6   1+5+3+7
    distance 1      all eight

A worker (a device of a rank) takes every W-th shard of W workers. Those are a whole part of the tree, so a worker folds
its own shards to one partial sum, and the W partial sums are the same tree over W leaves. Each fold takes its order
from here:

- within a worker: `processing_order` says which shard comes when, and `merges_after` which partial sums it completes;
- over the devices of a process: `additions` says which partial sum is added to which;
- over ranks: `partners` says who adds to whom at each step.

All of this holds for powers of two. Other numbers of shards per worker are folded in the order in which they are given,
and other numbers of workers in the order of the workers: the same bits every time, though not those of another number.
Horovod adds more than two ranks in an order of its own (`comm/horovod.py`), which knows nothing of this one.
"""

from __future__ import annotations

from harness.comm.world import World


def is_power_of_two(number: int) -> bool:
    """Whether a positive number is 1, 2, 4, ..., for which the tree has no loose ends.

    >>> [number for number in range(1, 10) if is_power_of_two(number)]
    [1, 2, 4, 8]
    """
    return number & (number - 1) == 0


def shards_of_rank(shards: int, world: World, num_devices: int = 1) -> list[int]:
    """The shards that a rank processes, in the order in which it processes them: its devices take turns.

    Args:
        shards: S, a multiple of the number of workers.
        world: the ranks, seen from this one.
        num_devices: the devices of each rank.

    >>> from harness.comm import SingleWorld
    >>> shards_of_rank(8, SingleWorld())
    [0, 4, 2, 6, 1, 5, 3, 7]
    >>> shards_of_rank(8, SingleWorld(), num_devices=2)  # the first has 0, 4, 2, 6; the second 1, 5, 3, 7
    [0, 1, 4, 5, 2, 3, 6, 7]
    """
    workers = world.size * num_devices
    of_devices = [range(world.rank + world.size * device, shards, workers) for device in range(num_devices)]
    return [own[position] for position in processing_order(len(of_devices[0])) for own in of_devices]


def processing_order(count: int) -> list[int]:
    """The order in which a worker processes its `count` shards, such that few partial sums wait at a time.

    >>> processing_order(8)
    [0, 4, 2, 6, 1, 5, 3, 7]
    >>> processing_order(6)  # not a power of two: no tree to keep, but still one fixed order
    [0, 1, 2, 3, 4, 5]
    """
    if not is_power_of_two(count):
        return list(range(count))
    order = [0]
    while len(order) < count:
        half = len(order)
        order = [shard for first in order for shard in (first, first + half)]
    return order


def merges_after(position: int) -> int:
    """How many waiting partial sums, the newest first, are added to what is processed at a position, from 0.

    It is a binary counter: partial sums of equally many shards are added to each other, so of n shards at most log2(n)
    partial sums wait. What still waits after the last shard is added in the same order, the newest first.

    >>> [merges_after(position) for position in range(8)]
    [0, 1, 0, 2, 0, 1, 0, 3]
    """
    merges = 0
    while position & (1 << merges):
        merges += 1
    return merges


def partners(rank: int, size: int) -> list[int]:
    """The ranks whose partial sums a rank adds to its own, step by step; `size` is a power of two.

    >>> partners(0, 8), partners(3, 8)
    ([4, 2, 1], [7, 1, 2])
    """
    return [rank ^ distance for distance in _distances(size)]


def additions(size: int) -> list[tuple[int, int]]:
    """What one process adds to get the sum of several workers: pairs (into, what), in order; the sum is in the first.

    >>> additions(4), additions(3)
    ([(0, 2), (1, 3), (0, 1)], [(0, 1), (0, 2)])
    """
    if not is_power_of_two(size):
        return [(0, worker) for worker in range(1, size)]
    return [(worker, worker + distance) for distance in _distances(size) for worker in range(distance)]


def _distances(size: int) -> list[int]:
    """How far apart partial sums are that are added, step by step."""
    return [size >> step for step in range(1, size.bit_length())]
