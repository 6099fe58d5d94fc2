"""The fold: one tree for any number of ranks."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from harness.gluon.reduce import Control, Fold, Gauge, Measured, visiting_order


def tree_sum(values: list[np.ndarray]) -> np.ndarray:
    """Shard s with s + S/2, then S/4, ...: the definition, written as such."""
    while len(values) > 1:
        half = len(values) // 2
        values = [values[s] + values[s + half] for s in range(half)]
    return values[0]


def fold(values: list[np.ndarray], own: list[int]) -> np.ndarray:
    array = mx.nd.zeros(values[0].shape)
    folder = Fold([array])
    for position in visiting_order(len(own)):
        folder.make_room()
        array[:] = mx.nd.array(values[own[position]])
        folder.push()
    folder.finish()
    return array.asnumpy()


@pytest.fixture
def values():
    random = np.random.default_rng(0)
    return [(random.normal(size=37) * 10.0 ** random.integers(-4, 4, 37)).astype(np.float32) for _ in range(16)]


@pytest.mark.parametrize(("shards", "ranks"), [(2**s, 2**r) for s in range(5) for r in range(s + 1)])
def test_ranks_and_their_shards_add_up_to_the_bits_of_the_tree(values, shards, ranks):
    of_ranks = [fold(values[:shards], list(range(rank, shards, ranks))) for rank in range(ranks)]
    np.testing.assert_array_equal(tree_sum(of_ranks), tree_sum(values[:shards]))


def test_the_order_of_additions_matters_for_these_values(values):
    sequential = values[0]
    for value in values[1:]:
        sequential = sequential + value
    assert not np.array_equal(sequential, tree_sum(values))


@pytest.mark.parametrize("shards", [3, 5, 6, 7, 12])
def test_other_counts_give_the_sum_and_always_the_same(values, shards):
    first, second = (fold(values[:shards], list(range(shards))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, np.sum(np.float64(values[:shards]), axis=0), rtol=1e-4, atol=1e-3)


def test_a_fold_is_used_again_and_keeps_few_copies(values):
    array = mx.nd.zeros(37)
    folder = Fold([array])
    for _ in range(3):
        for position in visiting_order(16):
            folder.make_room()
            array[:] = mx.nd.array(values[position])
            folder.push()
        folder.finish()
        np.testing.assert_array_equal(array.asnumpy(), tree_sum(values))
    assert len(folder._spare) == 4  # log2(16)


@pytest.mark.parametrize("count", [1, 2, 4, 8, 32, 3, 6, 10])
def test_each_shard_is_visited_once(count):
    assert sorted(visiting_order(count)) == list(range(count))


def test_a_gauge_measures_sums_without_losing_the_control_vector():
    gradients = [mx.nd.array([[3.0, 0.0]]), mx.nd.array([4.0])]
    control = mx.nd.array([1 + 2.0**-40, 2.0**40 + 1, 3, 1, 0, 2], dtype=np.float64)
    gauge = Gauge(gradients, [mx.nd.ones(5)], control)
    assert gauge.read(gauge.take()) == Measured(Control(1 + 2.0**-40, 2.0**40 + 1, 3, 1, 0, 2), 5.0, True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gauge_sees_one_bad_element(bad):
    gradient, statistic = mx.nd.ones((50, 50)), mx.nd.ones(5)
    gauge = Gauge([gradient], [statistic], mx.nd.zeros(6, dtype=np.float64))
    gradient[17, 31] = bad
    assert not np.isfinite(gauge.read(gauge.take()).gradient_norm)
    statistic[2] = bad
    assert not gauge.read(gauge.take()).statistics_finite
