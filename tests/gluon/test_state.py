"""States of a loop of one's own, to disk and back."""

from __future__ import annotations

import errno

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.checkpoint import iteration_of, list_checkpoints, newest_valid, write_checkpoint
from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import CheckpointError, DivergedError
from harness.gluon import Learner, LearnerState
from harness.gluon.weights import write_params


def samples(t):
    random = np.random.default_rng(t)
    data, label = random.normal(size=(6, 5)).astype(np.float32), random.integers(0, 3, 6).astype(np.float32)
    return GlobalBatch(t, (Batch(0, data, label),), 6)


def learner(seed):
    net = nn.HybridSequential()
    net.add(nn.Dense(4), nn.BatchNorm(), nn.Dense(3))
    mx.random.seed(seed)
    net.initialize(mx.init.Xavier())
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    return Learner(net, loss, mx.optimizer.Adam(), SingleWorld(), shards=1, sample=samples(1))


def test_a_saved_state_goes_on_as_the_unbroken_loop(tmp_path):
    unbroken = learner(seed=1)
    for t in range(1, 5):
        unbroken.update(samples(t), 0.1 / t)
        if t == 2:
            unbroken.snapshot().save(tmp_path, t)
    newest = newest_valid(list_checkpoints(tmp_path)).newest
    again = learner(seed=2)
    again.restore(LearnerState.load(newest))
    for t in range(iteration_of(newest) + 1, 5):
        again.update(samples(t), 0.1 / t)
    assert again.digest() == unbroken.digest()


def test_a_loaded_state_is_the_saved_one(tmp_path):
    trained = learner(seed=1)
    trained.update(samples(1), 0.1)
    state = trained.snapshot()
    assert LearnerState.load(state.save(tmp_path, 7)).digest() == state.digest()


@pytest.mark.parametrize(("kind", "name"), [("parameters", "0.weight"), ("optimizer_state", "0.weight/1")])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e20])
def test_weights_and_optimizer_state_are_refused_unless_they_and_their_squares_are_finite(kind, name, value):
    trained = learner(seed=1)
    trained.update(samples(1), 0.1)
    trained.check_weights(1)
    state = trained.snapshot()
    getattr(state, kind)[name][-1, -1] = value
    trained.restore(state)
    with pytest.raises(DivergedError, match="iteration 1: its update made weights or optimizer state that are not"):
        trained.check_weights(1)


def test_an_update_that_was_not_checked_before_a_state_is_restored_is_forgotten():
    restored, other = learner(seed=1), learner(seed=1)
    state = restored.snapshot()
    bad = samples(1)
    bad.batches[0].data[0, 0] = np.nan
    restored.update(bad, 0.1)  # found not to be finite only by the next update
    restored.restore(state)
    for each in (restored, other):
        each.update(samples(2), 0.1)
    assert restored.digest() == other.digest()


def test_a_set_of_weights_alone_is_no_state(tmp_path):
    place = write_checkpoint(tmp_path, 0, {"parameters": {"w": np.ones(2, np.float32)}, "slots": {}}, {})
    with pytest.raises(CheckpointError, match=r"iteration-000000000: holds weights alone and no state; .*load_weights"):
        LearnerState.load(place)


def test_shapes_are_settled_on_the_first_batch():
    assert learner(seed=1).parameters["0.weight"].shape == (4, 5)


def test_weights_that_can_neither_be_written_nor_removed_are_one_message(tmp_path, monkeypatch):
    """As on a file system that is read-only, which refuses to remove as well."""

    def refuse(self, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(CheckpointError, match=r"final\.params: could not be written \(.*\); free some disk space"):
        write_params(tmp_path / "absent" / "final.params", {"w": np.zeros(2, np.float32)})
