"""The fold over ranks, played by threads that hand each other arrays: its order, its bits, its exactness."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import numpy as np
import pytest

from harness.comm.fold import RankFold


def fold_of(arrays: list[np.ndarray], times: int = 1) -> list[np.ndarray]:
    """What every rank holds after folding; each rank is a thread."""
    size = len(arrays)
    wires = {(a, b): SimpleQueue() for a in range(size) for b in range(size)}
    held = [array.copy() for array in arrays]
    failures = []

    def play(rank: int) -> None:
        def exchange(sent, received, to, source):
            assert rank not in (to, source)
            wires[rank, to].put(sent.copy())
            got = wires[source, rank].get(timeout=10)
            assert got.shape == received.shape
            received[:] = got

        try:
            folder = RankFold(rank, size, exchange)
            for _ in range(times):
                held[rank][:] = arrays[rank]
                folder.fold(held[rank])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=play, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    return held


def tree_sum(values: list[np.ndarray]) -> np.ndarray:
    """Rank r with r + size/2, then size/4, ...: the definition, written as such."""
    while len(values) > 1:
        half = len(values) // 2
        values = [values[r] + values[r + half] for r in range(half)]
    return values[0]


def values_of(size: int, count: int, dtype: type = np.float32) -> list[np.ndarray]:
    random = np.random.default_rng(count)
    return [(random.normal(size=count) * 10.0 ** random.integers(-4, 4, count)).astype(dtype) for _ in range(size)]


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("count", [0, 1, 3, 5000, 4097, 30011])
def test_a_power_of_two_of_ranks_gets_the_bits_of_the_tree(size, count):
    values = values_of(size, count)
    for held in fold_of(values, times=2):
        np.testing.assert_array_equal(held, tree_sum(values))


@pytest.mark.parametrize("size", [3, 5, 6, 7, 12])
@pytest.mark.parametrize("count", [1, 2, 5, 5000, 30011])
def test_other_numbers_of_ranks_add_in_the_order_of_the_ranks(size, count):
    values = values_of(size, count)
    expected = values[0]
    for value in values[1:]:
        expected = expected + value
    for held in fold_of(values, times=2):
        np.testing.assert_array_equal(held, expected)


def test_the_order_of_additions_matters_for_these_values():
    values = values_of(8, 5000)
    assert not np.array_equal(tree_sum(values), np.sum(values, axis=0))


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint8])
def test_any_type_of_number_is_summed(size, dtype):
    values = [np.full(6001, rank + 1, dtype) for rank in range(size)]
    for held in fold_of(values):
        np.testing.assert_array_equal(held, np.full(6001, size * (size + 1) // 2, dtype))


def test_nothing_is_allocated_after_the_first_update():
    array, memory = np.zeros(100_000, np.float32), []

    def exchange(sent, received, to, source):
        received[:] = 0
        if not np.shares_memory(received, array):
            memory.append(received)
            assert received.nbytes <= array.nbytes // 2

    fold = RankFold(0, 2, exchange)
    fold.fold(array)
    fold.fold(array)
    fold.fold(array[:10])
    assert len(memory) == 3
    assert all(np.shares_memory(part, memory[0]) for part in memory)
