"""The fold: one tree for any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager

import mxnet as mx
import numpy as np
import pytest

from harness.comm.tree import assign
from harness.errors import DisagreementError
from harness.gluon.control import ControlValues, NormCheck, PendingUpdate
from harness.gluon.gradient_buffer import Buffer, Fold, GradientBuffer


def tree_sum(values: list[np.ndarray]) -> np.ndarray:
    """Term i with term i + h, where there is one, for h half of them, rounded up: the definition, written as such."""
    while len(values) > 1:
        half = -(-len(values) // 2)
        values = [values[i] + values[i + half] if i + half < len(values) else values[i] for i in range(half)]
    return values[0]


def fold_into(folder: Fold, memory: Buffer, values: list[np.ndarray], own: Sequence[int]) -> list[np.ndarray]:
    """The partial sums of a worker."""
    folder.begin()
    for shard in own:
        folder.make_room()
        memory.array[:] = mx.nd.array(values[shard])
        folder.push()
    return [part.array.asnumpy() for part in folder.parts]


@pytest.fixture
def values():
    random = np.random.default_rng(0)
    return [(random.normal(size=37) * 10.0 ** random.integers(-4, 4, 37)).astype(np.float32) for _ in range(16)]


@pytest.mark.parametrize(
    ("shards", "workers"), [(s, w) for s in (1, 2, 5, 6, 8, 13, 16) for w in (1, 2, 3, 8) if w <= s]
)
def test_workers_and_their_shards_add_up_to_the_bits_of_the_tree(values, shards, workers):
    assignment, parts = assign(shards, workers), []
    for own, merges in zip(assignment.shards, assignment.merges, strict=True):
        memory = Buffer(37)
        parts += fold_into(Fold(memory, merges), memory, values, own)
    for into, what in assignment.additions:
        parts[into] = parts[into] + parts[what]
    np.testing.assert_array_equal(parts[0], tree_sum(values[:shards]))


def test_the_order_of_additions_matters_for_these_values(values):
    sequential = values[0]
    for value in values[1:]:
        sequential = sequential + value
    assert not np.array_equal(sequential, tree_sum(values))


@pytest.mark.parametrize(("shards", "workers", "copies"), [(16, 1, 4), (16, 3, 2), (8, 8, 0)])
def test_a_fold_is_used_again_and_keeps_few_copies(values, shards, workers, copies):
    assignment, memory = assign(shards, workers), Buffer(37)
    folder = Fold(memory, assignment.merges[0])
    first = fold_into(folder, memory, values, assignment.shards[0])
    with counted_buffers() as made:
        for _ in range(3):
            for part, expected in zip(fold_into(folder, memory, values, assignment.shards[0]), first, strict=True):
                np.testing.assert_array_equal(part, expected)
    assert made == []
    with counted_buffers() as made:
        fold_into(Fold(memory, assignment.merges[0]), memory, values, assignment.shards[0])
    assert len(made) == copies


@contextmanager
def counted_buffers():
    """The buffers that are made meanwhile."""
    made, init = [], Buffer.__init__

    def counted(self, *arguments):
        made.append(arguments)
        init(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Buffer, "__init__", counted)
        yield made


def sums_of(shapes, statistic=None):
    parameters = {}
    for index, shape in enumerate(shapes):
        parameters[str(index)] = mx.gluon.Parameter(f"p{index}", shape=shape)
    statistics = [] if statistic is None else [mx.gluon.Parameter("s", shape=statistic, grad_req="null", init="ones")]
    for parameter in (*parameters.values(), *statistics):
        parameter.initialize()
    return parameters, statistics, GradientBuffer(parameters, statistics, mx.cpu(), len(NOTHING))


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
    np.testing.assert_array_equal(sums.memory.host, [*found, *[3] * 5, *[0] * (11 + sums.control.size)])
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
    sums.write_control([1.5, 2, 3, 0, 0, 1, 0])
    assert sums.control.asnumpy().tolist() == [1.5, 2, 3, 0, 0, 1, 0]
    np.testing.assert_array_equal(parameters["0"].grad().asnumpy(), np.full((2, 3), 7))
    sums.clear()
    assert sums.control.asnumpy().tolist() == [0, 2, 3, 0, 0, 1, 0]
    assert not sums.gradients.asnumpy().any()


NOTHING = ControlValues(0, 0, 0, 0, 0, 0, 0)


def stats_of(sums, num_samples=2, control_is_summed=True, own=NOTHING):
    check = NormCheck(sums, control_is_summed=control_is_summed)
    return check.read(PendingUpdate(7, num_samples, own, check.measure(), float(num_samples)))


def test_the_check_measures_sums():
    _, _, sums = sums_of([(1, 2), (1,)], statistic=(5,))
    sums.gradients[:] = 0
    sums.gradients[1], sums.gradients[16] = 3, 4
    sums.write_control([0.5, 2, 1, 0, 0, 3, 0])
    everyone = ControlValues(0.5, 2, 1, 0, 0, 3, 0)
    assert stats_of(sums) == (7, everyone, 2, 0.25, 2.5, True, False)
    assert stats_of(sums).control.requests == (False, False, True, False)
    own = ControlValues(
        0, 9, 8, 1, 0, 0, 0
    )  # in a world of one nobody adds to them, and only the loss is in the buffer
    assert stats_of(sums, 9, control_is_summed=False, own=own).control == (0.5, 9, 8, 1, 0, 0, 0)
    with pytest.raises(
        DisagreementError, match="iteration 7: the ranks processed 2 samples, but the global batch has 3"
    ):
        stats_of(sums, 3)


def test_the_norm_of_a_large_gradient_is_exact_to_rounding():
    _, _, sums = sums_of([(11_000_000,)])
    values = np.random.default_rng(0).normal(size=11_000_000).astype(np.float32)
    sums.gradients[:] = mx.nd.array(values)
    sums.write_control([0, 2, 1, 0, 0, 0, 0])
    norm = 2 * stats_of(sums).gradient_norm  # of two samples
    assert norm == pytest.approx(np.linalg.norm(values.astype(np.float64)), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_check_sees_one_bad_element(bad):
    _, _, sums = sums_of([(50, 50)], statistic=(5,))
    sums.gradients[1731] = bad
    sums.write_control([0, 2, 1, 0, 0, 0, 0])
    stats = stats_of(sums)
    assert not np.isfinite(stats.gradient_norm)
    assert (stats.statistics_finite, stats.is_finite) == (True, False)
    sums.gradients[1731] = 0
    assert stats_of(sums).is_finite
    sums.statistics[2] = bad
    stats = stats_of(sums)
    assert np.isfinite(stats.gradient_norm)
    assert (stats.statistics_finite, stats.is_finite) == (False, False)
