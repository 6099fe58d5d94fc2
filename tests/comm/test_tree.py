"""The order of addition, without any numbers: what is added to what, whoever does it."""

from __future__ import annotations

import pytest

from harness.comm import SingleWorld, shards_of_rank
from harness.comm.tree import merges_after, partners, processing_order

POWERS = [1, 2, 4, 8, 16, 32]
WAYS = [
    (shards, ranks, devices) for shards in POWERS for ranks in POWERS for devices in POWERS if ranks * devices <= shards
]


class Rank(SingleWorld):
    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size = rank, size


def add(one, another):
    """A sum that remembers its terms: addition commutes, and does not associate."""
    return frozenset([one, another])


def definition(terms):
    """Element i takes element i + n/2; repeat on the first half."""
    while len(terms) > 1:
        half = len(terms) // 2
        terms = [add(terms[i], terms[i + half]) for i in range(half)]
    return terms[0]


def folded(shards):
    """What a worker has after its shards, in the order in which it processes them."""
    waiting = []
    for position, shard in enumerate(shards):
        total = shard
        for _ in range(merges_after(position)):
            total = add(total, waiting.pop())
        waiting.append(total)
        assert len(waiting) <= len(shards).bit_length()
    total = waiting.pop()
    while waiting:
        total = add(total, waiting.pop())
    return total


def between(sums):
    """What every rank has after it has added its partners' sums, step by step."""
    for step in range(len(partners(0, len(sums)))):
        sums = [add(own, sums[partners(rank, len(sums))[step]]) for rank, own in enumerate(sums)]
    assert len(set(sums)) == 1
    return sums[0]


@pytest.mark.parametrize(("shards", "ranks", "devices"), WAYS)
def test_shards_devices_and_ranks_add_up_to_one_tree(shards, ranks, devices):
    own = [shards_of_rank(shards, Rank(rank, ranks), devices) for rank in range(ranks)]
    assert sorted(shard for one in own for shard in one) == list(range(shards))
    of_ranks = [between([folded(one[device::devices]) for device in range(devices)]) for one in own]
    assert between(of_ranks) == definition(list(range(shards)))


@pytest.mark.parametrize("count", [3, 5, 6, 7, 12])
def test_other_numbers_have_one_fixed_order(count):
    assert processing_order(count) == list(range(count))
    assert folded(list(range(count))) != definition(list(range(count // 2 * 2)))


def test_six_shards_are_folded_by_fours_and_twos():
    assert folded(range(6)) == add(add(add(0, 1), add(2, 3)), add(4, 5))
