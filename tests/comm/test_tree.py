"""The order of addition, without any numbers: what is added to what, whoever does it."""

from __future__ import annotations

import random

import pytest

from harness.comm import SingleWorld, shards_of_rank
from harness.comm.tree import assign, is_power_of_two, partners, take_turns, tree_order

SMALL = [(shards, workers) for shards in range(1, 13) for workers in range(1, shards + 1)]
DRAWN = [(shards, random.Random(shards).randint(1, shards)) for shards in range(13, 65)]


class Rank(SingleWorld):
    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size = rank, size


def add(one, another):
    """A sum that remembers its terms: addition commutes, and does not associate."""
    return frozenset([one, another])


def definition(shards):
    """Element i takes element i + h, where there is one, for h half of them, rounded up; repeat on the first h."""
    terms = list(range(shards))
    while len(terms) > 1:
        half = -(-len(terms) // 2)
        terms = [add(terms[i], terms[i + half]) if i + half < len(terms) else terms[i] for i in range(half)]
    return terms[0]


def folded(shards, merges):
    """The partial sums that a worker is left with."""
    waiting = []
    for shard, count in zip(shards, merges, strict=True):
        total = shard
        for _ in range(count):
            total = add(total, waiting.pop())
        waiting.append(total)
    return waiting


def finished(assignment):
    """The sum of everything, by the additions."""
    workers = zip(assignment.shards, assignment.merges, strict=True)
    parts = [part for shards, merges in workers for part in folded(shards, merges)]
    assert len(assignment.additions) == len(parts) - 1
    for into, what in assignment.additions:
        parts[into], parts[what] = add(parts[into], parts[what]), None
    return parts[0]


@pytest.mark.parametrize(("shards", "workers"), SMALL + DRAWN)
def test_any_number_of_workers_adds_up_to_one_tree(shards, workers):
    assignment = assign(shards, workers)
    assert sorted(shard for own in assignment.shards for shard in own) == list(range(shards))
    sizes = [len(own) for own in assignment.shards]
    assert len(sizes) == workers == assignment.workers
    assert max(sizes) - min(sizes) <= 1
    assert finished(assignment) == definition(shards)
    for held, own, merges in zip(assignment.held, assignment.shards, assignment.merges, strict=True):
        assert len(folded(own, merges)) == held


@pytest.mark.parametrize(("shards", "workers"), SMALL + DRAWN)
def test_partners_finish_the_tree_where_the_workers_are_a_row_of_it(shards, workers):
    assignment = assign(shards, workers)
    if is_power_of_two(shards) and is_power_of_two(workers):
        assert assignment.is_row
    if not assignment.is_row:
        return
    sums = [folded(own, merges)[0] for own, merges in zip(assignment.shards, assignment.merges, strict=True)]
    for step in range(len(partners(0, workers))):
        sums = [add(own, sums[partners(rank, workers)[step]]) for rank, own in enumerate(sums)]
    assert set(sums) == {definition(shards)}


def test_which_are_rows():
    assert [(shards, workers) for shards, workers in SMALL if workers > 1 and assign(shards, workers).is_row] == [
        (2, 2), (3, 2), (4, 2), (4, 4), (5, 2), (7, 2), (7, 4), (8, 2), (8, 4), (8, 8)
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16])
def test_workers_of_a_power_of_two_have_every_so_manieth_shard(workers):
    """So it was from the first version on, so that digests stay."""
    for worker, own in enumerate(assign(16, workers).shards):
        assert sorted(own) == list(range(worker, 16, workers))


@pytest.mark.parametrize(("shards", "workers", "most"), [(8, 3, 2), (8, 5, 1), (16, 3, 3), (64, 3, 5), (64, 9, 3)])
def test_few_partial_sums_are_left(shards, workers, most):
    assert max(assign(shards, workers).held) == most


@pytest.mark.parametrize(("shards", "ranks", "devices"), [(8, 1, 1), (8, 2, 2), (8, 1, 3), (6, 2, 2), (7, 1, 5)])
def test_devices_take_turns(shards, ranks, devices):
    assignment = assign(shards, ranks * devices)
    for rank in range(ranks):
        own = assignment.shards[rank * devices :][:devices]
        turns = take_turns(own)
        assert [shard for _, shard in turns] == shards_of_rank(shards, Rank(rank, ranks), devices)
        for device, of_device in enumerate(own):
            assert tuple(shard for turn, shard in turns if turn == device) == of_device
        assert [device for device, _ in turns[:devices]] == list(range(devices))


@pytest.mark.parametrize("shards", [1, 2, 5, 8])
def test_one_worker_processes_the_shards_from_left_to_right(shards):
    assert list(assign(shards, 1).shards[0]) == tree_order(shards) == shards_of_rank(shards, SingleWorld())


@pytest.mark.parametrize(("shards", "workers"), [(3, 4), (0, 0), (4, 0), (0, 1)])
def test_every_worker_has_a_shard(shards, workers):
    with pytest.raises(ValueError, match=f"^{workers} workers cannot share {shards} shards$"):
        assign(shards, workers)
