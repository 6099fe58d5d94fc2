"""In a world of several ranks: what compares the networks and gives everybody rank 0's weights, and when."""

from __future__ import annotations

import json
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import ArrayDataset, Augmentation, Batch, GlobalBatch
from harness.errors import DisagreementError
from harness.finder import FinderSettings, Sweep, find_lr
from harness.gluon import Learner, evaluate
from harness.gluon.state_keeper import StateKeeper
from harness.model import build_metrics

RANDOM = np.random.default_rng(0)
DATA, LABEL = RANDOM.normal(size=(8, 5)).astype("f"), RANDOM.integers(0, 3, 8).astype("f")


class Beside(SingleWorld):
    """A world with a rank 0 beside this one, whose arrays are all 7 and which adds nothing to any sum."""

    def __init__(self, shape="(3, 4)"):
        super().__init__()
        self.rank, self.size, self.names, self.shape = 1, 2, [], shape

    def allgather_object(self, value, name):
        self.names.append(name)
        return [json.loads(json.dumps(value).replace("(3, 4)", self.shape)), value]

    def broadcast_object(self, value, name, root=0):
        self.names.append(name)
        return value

    def broadcast(self, array, name, root=0):
        self.names.append(name)
        return np.full(array.nbytes // 4, 7, "f").view(array.dtype)

    def sum_parts(self, parts, assignment, name, half=None):
        self.names.append(name)

    @property
    def shared(self):
        """The names of the collectives that compare and share."""
        return [name for name in self.names if name.startswith(("parameters", "learner."))]


def learner_in(world):
    net = nn.HybridSequential()
    net.add(nn.Dense(4), nn.Dense(3))
    net.initialize(mx.init.Xavier())
    loss, optimizer = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.optimizer.SGD(momentum=0.9)
    return Learner(net, loss, optimizer, world, shards=2, sample=DATA[:1])


def batch(t):
    return GlobalBatch(t, (Batch(1, DATA.copy(), LABEL.copy()),), 8)


KINDS = [("int32", (3,)), ("float64", (2, 5)), ("float16", (7,)), ("float32", (1,)), ("float64", (1,))]
WEIGHTS = ["learner.state 0"]
# each before any other collective; of the one batch that is evaluated this rank has nothing
USES = {
    "update": lambda learner: learner.update(batch(1), 0.1),
    "predict": lambda learner: learner.predict(DATA, LABEL),
    "evaluate": lambda learner: evaluate(
        learner, ArrayDataset(DATA[:4], LABEL[:4].astype(int)), 4, Augmentation(), build_metrics(["accuracy"])
    ),
    "find_lr": lambda learner: find_lr(learner, FinderSettings(Sweep(1e-4, 1e-2, None, 3)), lambda k: Stream()),
    "broadcast_weights": lambda learner: learner.broadcast_weights(),
}


class Stream:
    def __call__(self, t):
        return batch(t)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_building_a_learner_shares_nothing():
    world = Beside()
    learner = learner_in(world)
    assert world.shared == []
    assert learner.describe_parameters()[0] == "0.weight float32 (4, 5) write"


@pytest.mark.parametrize("use", USES)
def test_whatever_uses_the_weights_first_compares_and_shares_them_once(use):
    world = Beside()
    learner = learner_in(world)
    built = len(world.names)
    USES[use](learner)
    assert world.names[built : built + 2] == ["parameters", *WEIGHTS] == world.shared
    learner.update(batch(2), 0.0)
    learner.predict(DATA, LABEL)
    assert world.shared == ["parameters", *WEIGHTS]
    if use not in ("update", "find_lr"):
        assert (learner.snapshot().parameters["0.weight"] == 7).all()


def test_a_state_is_shared_after_a_comparison_too():
    world = Beside()
    learner = learner_in(world)
    learner.broadcast_state()
    assert world.shared == ["parameters", *WEIGHTS, "learner.numbers"]
    assert (learner.snapshot().optimizer_state["0.weight/0"] == 7).all()
    learner.update(batch(1), 0.1)
    assert world.shared.count("parameters") == 1


@pytest.mark.parametrize(("most", "count"), [(1, 5), (200, 2), (1 << 24, 1)])
def test_arrays_travel_together_whatever_they_hold(monkeypatch, most, count):
    monkeypatch.setattr("harness.gluon.state_keeper.PACKAGE", most)
    packages = []

    class One(Beside):
        def broadcast(self, array, name, root=0):
            if self.rank == root:
                packages.append(array)
                return array
            assert array.nbytes == packages[0].nbytes
            return packages.pop(0)

    def keeper_on(rank):
        parameters = {}
        for number, (dtype, shape) in enumerate(KINDS):
            one = parameters[str(number)] = mx.gluon.Parameter(str(number), shape=shape, dtype=dtype)
            one.initialize(mx.init.Zero())
            one.set_data(mx.nd.array(RANDOM.normal(scale=50, size=shape).astype(dtype), dtype=dtype))
        world = One()
        world.rank = rank
        step = SimpleNamespace(updaters=[], weights_changed=lambda: None)
        return world, StateKeeper(parameters, {}, step, [mx.cpu()])

    (root, sender), (other, receiver) = keeper_on(0), keeper_on(1)
    sent = sender.current()
    sender.share_parameters(root)
    assert len(packages) == count
    receiver.share_parameters(other)
    received = receiver.current()
    assert all((sent[name] == received[name]).all() for name in sent)


@pytest.mark.parametrize("share", [Learner.broadcast_weights, Learner.broadcast_state])
def test_networks_that_the_caller_has_compared_are_not_compared_again(share):
    world = Beside()
    learner = learner_in(world)
    share(learner, compared=True)
    learner.update(batch(1), 0.1)
    assert world.shared[: len(WEIGHTS)] == WEIGHTS
    assert "parameters" not in world.shared


@pytest.mark.parametrize("use", [*USES, "broadcast_state"])
def test_networks_that_differ_are_named_before_anything_is_sent(use):
    world = Beside("(3, 9)")
    learner = learner_in(world)
    with pytest.raises(DisagreementError, match=r"(?s)1\.weight float32 \(3, 9\) write on rank 0; .*build the same"):
        (USES.get(use) or Learner.broadcast_state)(learner)
    assert world.shared == ["parameters"]
