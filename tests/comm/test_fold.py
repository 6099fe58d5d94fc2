"""The fold over ranks, played by threads that hand each other arrays: its order, its bits, its exactness."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import pytest

from harness.comm.fold import BLOCK_BYTES, WHOLE_BYTES, RankFold
from harness.comm.half import HalfPrecision, HalfRounder
from harness.comm.tree import assign
from tests.comm.trees import adversarial, partial_sums, tree_sum


def played(size: int, work: Callable[[int, RankFold], None]) -> None:
    """Do `work` on every rank; each is a thread."""
    wires = {(a, b): SimpleQueue() for a in range(size) for b in range(size)}
    failures = []

    def play(rank: int) -> None:
        def exchange(sent, received, to, source):
            assert rank not in (to, source)
            if sent.size:
                wires[rank, to].put(sent.copy())
            if received.size:
                got = wires[source, rank].get(timeout=10)
                assert got.shape == received.shape
                received[:] = got

        try:
            work(rank, RankFold(rank, size, exchange))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=play, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert all(wire.empty() for wire in wires.values())


def fold_of(arrays: list[np.ndarray], times: int = 1) -> list[np.ndarray]:
    """What every rank holds after folding one array each."""
    held = [array.copy() for array in arrays]

    def work(rank: int, fold: RankFold) -> None:
        for _ in range(times):
            held[rank][:] = arrays[rank]
            fold.fold(held[rank])

    played(len(arrays), work)
    return held


def finished(arrays: list[np.ndarray], ranks: int, half: HalfPrecision | None = None) -> list[np.ndarray]:
    """What every rank holds after it has folded its shards, and all have finished the tree."""
    assignment = assign(len(arrays), ranks)
    totals = [np.empty(0)] * ranks

    def work(rank: int, fold: RankFold) -> None:
        parts = partial_sums(arrays, assignment, rank)
        fold.finish(parts, assignment, half)
        totals[rank] = parts[-1]

    played(ranks, work)
    return totals


def bits(array: np.ndarray) -> bytes:
    """What makes two arrays equal, signs of zeros included."""
    return array.tobytes()


def values_of(size: int, count: int, dtype: type = np.float32) -> list[np.ndarray]:
    random = np.random.default_rng(count)
    return [(random.normal(size=count) * 10.0 ** random.integers(-4, 4, count)).astype(dtype) for _ in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16])
@pytest.mark.parametrize("count", [0, 1, 3, 5000, 4097, 30011])
def test_any_number_of_ranks_gets_the_bits_of_the_tree(size, count):
    values = values_of(size, count)
    for held in fold_of(values, times=2):
        assert bits(held) == bits(tree_sum(values))


DRAWN = [
    (shards, random.Random(f"{shards} {i}").randint(1, min(shards, 16))) for shards in range(1, 65) for i in (1, 2)
]


@pytest.mark.parametrize(("shards", "ranks"), DRAWN)
def test_any_number_of_ranks_finishes_the_tree_over_any_number_of_shards(shards, ranks):
    for count in (1, 7, 4101):
        values = adversarial(shards, count, seed=shards)
        expected = bits(tree_sum(values))
        assert {bits(total) for total in finished(values, ranks)} == {expected}


@pytest.mark.parametrize(("shards", "ranks"), [(8, 3), (6, 3), (8, 4), (7, 2)])
@pytest.mark.parametrize("num_bytes", [WHOLE_BYTES, WHOLE_BYTES + 4, BLOCK_BYTES, BLOCK_BYTES + 4, 2 * BLOCK_BYTES + 8])
def test_every_size_of_block_gives_the_bits_of_the_tree(shards, ranks, num_bytes):
    values = adversarial(shards, num_bytes // 4, seed=num_bytes)
    expected = bits(tree_sum(values))
    assert {bits(total) for total in finished(values, ranks)} == {expected}


def test_another_order_shows_in_adversarial_values():
    values = adversarial(8, 4101, seed=8)
    in_order = values[0]
    for value in values[1:]:
        in_order = in_order + value
    assert bits(in_order) != bits(tree_sum(values))


def test_the_order_of_additions_matters_for_these_values():
    values = values_of(8, 5000)
    assert not np.array_equal(tree_sum(values), np.sum(values, axis=0))


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint8])
def test_any_type_of_number_is_summed(size, dtype):
    values = [np.full(6001, rank + 1, dtype) for rank in range(size)]
    for held in fold_of(values):
        np.testing.assert_array_equal(held, np.full(6001, size * (size + 1) // 2, dtype))


@pytest.mark.parametrize(("shards", "ranks"), [(2, 2), (3, 3), (8, 3)])
def test_nothing_is_allocated_after_the_first_update(shards, ranks, monkeypatch):
    assignment = assign(shards, ranks)
    parts = [np.zeros(100_000, np.float32) for _ in range(assignment.held[0])]
    fold = RankFold(0, ranks, lambda sent, received, to, source: received.fill(0))
    fold.finish(parts, assignment)
    half = HalfPrecision(90_000, exponent=2)
    fold.finish(parts, assignment, half)
    monkeypatch.setattr(np, "empty", None)
    fold.finish(parts, assignment)
    fold.finish([part[:10] for part in parts], assignment)
    fold.finish(parts, assignment, half)


def rounded(array: np.ndarray, half: HalfPrecision) -> np.ndarray:
    array = array.copy()
    HalfRounder()(array, half)
    return array


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 6, 8, 13])
@pytest.mark.parametrize("count", [1, 7, 5000])
def test_16_bits_have_the_bits_of_rounded_shards_and_a_rounded_sum_on_any_number_of_ranks(shards, count):
    half = HalfPrecision(count * 3 // 4, exponent=2)  # the rest is statistics and control values
    values = [rounded(np.clip(value, -1e3, 1e3), half) for value in adversarial(shards, count, seed=count)]
    expected = bits(rounded(tree_sum(values), half))
    for ranks in range(1, shards + 1):
        assert {bits(total) for total in finished(values, ranks, half)} == {expected}


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_rank_sees_the_same_where_16_bits_do_not_suffice(ranks):
    half = HalfPrecision(100, exponent=2)
    values = [np.zeros(120, np.float32) for _ in range(4)]
    for shard, value in enumerate(values):
        value[:4] = 16000, [np.inf, -np.inf][shard % 2], np.nan, -16000
    totals = finished(values, ranks, half)
    assert {bits(total) for total in totals} == {bits(totals[0])}
    assert not np.isfinite(totals[0][:4]).any()
    assert not totals[0][4:].any()


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_16_bits_in_blocks(ranks):
    half = HalfPrecision(BLOCK_BYTES // 4 + 5, exponent=2)
    values = [rounded(value, half) for value in values_of(4, half.count + 3)]
    expected = bits(rounded(tree_sum(values), half))
    assert {bits(total) for total in finished(values, ranks, half)} == {expected}


@pytest.mark.parametrize(
    ("shards", "ranks", "share"), [(2, 2, 0.5), (3, 3, 0.5), (8, 8, 0.5), (4, 2, 0.75), (8, 2, 0.75)]
)
def test_16_bits_send_half_where_every_rank_has_one_shard(shards, ranks, share):
    def sent_with(half):
        sent: list[int] = []

        def exchange(array, received, to, source):
            received[:] = 0
            sent.append(array.nbytes)

        assignment = assign(shards, ranks)
        parts = [np.zeros(240_000, np.float32) for _ in range(assignment.held[0])]
        RankFold(0, ranks, exchange).finish(parts, assignment, half)
        return sum(sent)

    assert sent_with(HalfPrecision(240_000, 2)) == share * sent_with(None)
