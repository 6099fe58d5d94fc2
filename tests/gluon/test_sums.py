"""The fold: one tree for any number of ranks."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from harness.comm.tree import processing_order
from harness.gluon.control import ControlValues, NormCheck, PendingUpdate
from harness.gluon.gradient_buffer import Fold, GradientBuffer


def tree_sum(values: list[np.ndarray]) -> np.ndarray:
    """Shard s with s + S/2, then S/4, ...: the definition, written as such."""
    while len(values) > 1:
        half = len(values) // 2
        values = [values[s] + values[s + half] for s in range(half)]
    return values[0]


def fold(values: list[np.ndarray], own: list[int]) -> np.ndarray:
    array = mx.nd.zeros(values[0].shape)
    folder = Fold([array])
    for position in processing_order(len(own)):
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


def test_a_fold_is_used_again_and_keeps_few_copies(values, monkeypatch):
    made, empty = [], mx.nd.empty
    monkeypatch.setattr(mx.nd, "empty", lambda *of: made.append(of) or empty(*of))
    array = mx.nd.zeros(37)
    folder = Fold([array])
    for _ in range(3):
        for position in processing_order(16):
            folder.make_room()
            array[:] = mx.nd.array(values[position])
            folder.push()
        folder.finish()
        np.testing.assert_array_equal(array.asnumpy(), tree_sum(values))
    assert len(made) == 4  # log2(16)


@pytest.mark.parametrize("count", [1, 2, 4, 8, 32, 3, 6, 10])
def test_each_shard_is_visited_once(count):
    assert sorted(processing_order(count)) == list(range(count))


def sums_of(shapes, statistic=None):
    parameters = {}
    for index, shape in enumerate(shapes):
        parameters[str(index)] = mx.gluon.Parameter(f"p{index}", shape=shape)
    statistics = [] if statistic is None else [mx.gluon.Parameter("s", shape=statistic, grad_req="null", init="ones")]
    for parameter in (*parameters.values(), *statistics):
        parameter.initialize()
    return parameters, statistics, GradientBuffer(parameters, statistics, mx.cpu(), 6)


def test_parameters_see_their_parts_of_the_sums():
    parameters, (statistic,), sums = sums_of([(2, 3), (4,)], statistic=(5,))
    with mx.autograd.record():
        loss = (parameters["0"].data() * mx.nd.array([[0, 1, 2], [3, 4, 5]])).sum() + (7 * parameters["1"].data()).sum()
    loss.backward()
    found = np.zeros(32)  # every part begins on a cache line
    found[:6], found[16:20] = [0, 1, 2, 3, 4, 5], 7
    np.testing.assert_array_equal(sums.gradients.asnumpy(), found)
    np.testing.assert_array_equal(sums.statistics.asnumpy()[:5], np.ones(5))
    statistic.data()[:] = 3
    mx.nd.waitall()
    np.testing.assert_array_equal(sums.memory.host, [*found, 3, 3, 3, 3, 3, *[0] * 17])
    sums.memory.host[16:20] = 8
    np.testing.assert_array_equal(parameters["1"].grad().asnumpy(), [8, 8, 8, 8])
    assert sums.rebound_gradients() == []
    parameters["1"].grad_req = "add"
    assert sums.rebound_gradients() == ["1"]


def test_gradients_in_arrays_of_their_own_are_gathered():
    parameters = {"0": mx.gluon.Parameter("p", shape=(2, 3)), "1": mx.gluon.Parameter("q", shape=(4,))}
    for parameter in parameters.values():
        parameter.initialize()
    sums = GradientBuffer(parameters, [], mx.cpu(), 6, has_own_arrays=True)
    for factor in (2, 3):
        with mx.autograd.record():
            loss = (factor * parameters["0"].data()).sum() + (7 * parameters["1"].data()).sum()
        loss.backward()
        sums.gather()
        np.testing.assert_array_equal(parameters["0"].grad().asnumpy(), np.full((2, 3), factor))
        sums.lay_out_weights()
    np.testing.assert_array_equal(sums.gradients.asnumpy(), [*[3] * 6, *[0] * 10, *[7] * 4, *[0] * 12])
    assert sums.rebound_gradients() == []
    sums.clear()
    assert not parameters["1"].grad().asnumpy().any()


def test_control_values_lie_behind_everything_and_are_kept_when_the_rest_is_cleared():
    parameters, _, sums = sums_of([(2, 3)])
    sums.gradients[:] = 7
    mx.nd.waitall()
    sums.write_control([1.5, 2, 3, 0, 0, 1])
    assert sums.control.asnumpy().tolist() == [1.5, 2, 3, 0, 0, 1]
    np.testing.assert_array_equal(parameters["0"].grad().asnumpy(), np.full((2, 3), 7))
    sums.clear()
    assert sums.control.asnumpy().tolist() == [0, 2, 3, 0, 0, 1]
    assert not sums.gradients.asnumpy().any()


NOTHING = ControlValues(0, 0, 0, 0, 0, 0)


def stats_of(sums, control_is_summed=True, own=NOTHING):
    check = NormCheck(sums, control_is_summed=control_is_summed)
    return check.read(PendingUpdate(7, 2, own, check.measure()))


def test_the_check_measures_sums():
    _, _, sums = sums_of([(1, 2), (1,)], statistic=(5,))
    sums.gradients[:] = 0
    sums.gradients[1], sums.gradients[16] = 3, 4
    sums.write_control([0.5, 2, 1, 0, 0, 3])
    everyone = ControlValues(0.5, 2, 1, 0, 0, 3)
    assert stats_of(sums) == (7, everyone, 0.25, 2.5, True)
    assert stats_of(sums).control.requests == (False, False, True)
    own = ControlValues(0, 9, 8, 1, 0, 0)  # in a world of one nobody adds to them, and only the loss is in the buffer
    assert stats_of(sums, control_is_summed=False, own=own).control == (0.5, 9, 8, 1, 0, 0)


def test_the_norm_of_a_large_gradient_is_exact_to_rounding():
    _, _, sums = sums_of([(11_000_000,)])
    values = np.random.default_rng(0).normal(size=11_000_000).astype(np.float32)
    sums.gradients[:] = mx.nd.array(values)
    norm = 2 * stats_of(sums).gradient_norm  # of two samples
    assert norm == pytest.approx(np.linalg.norm(values.astype(np.float64)), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_check_sees_one_bad_element(bad):
    _, _, sums = sums_of([(50, 50)], statistic=(5,))
    sums.gradients[1731] = bad
    stats = stats_of(sums)
    assert not np.isfinite(stats.gradient_norm)
    assert (stats.statistics_finite, stats.is_finite) == (True, False)
    sums.gradients[1731] = 0
    assert stats_of(sums).is_finite
    sums.statistics[2] = bad
    stats = stats_of(sums)
    assert np.isfinite(stats.gradient_norm)
    assert (stats.statistics_finite, stats.is_finite) == (False, False)
