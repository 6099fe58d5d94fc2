"""What is frozen stays as it is, to the bit: weights, running statistics, wherever they are; and takes no slots."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.comm.tree import tree_order
from harness.data import Batch, GlobalBatch
from harness.errors import ConfigError
from harness.gluon import Learner, UpdateOptions
from harness.model.freezing import freeze
from harness.model.optimizers import set_multipliers
from harness.model.parameters import parameters_of

SHAPE = (1, 6, 6)


def batches(shards):
    def stream(t):
        random_numbers = np.random.default_rng(t)
        parts = []
        for shard in tree_order(shards):
            data = random_numbers.normal(2.0, 3.0, (4, *SHAPE)).astype(np.float32)
            parts.append(Batch(shard, data, random_numbers.integers(0, 3, 4).astype(np.float32)))
        return GlobalBatch(t, tuple(parts), 4 * shards)

    return stream


class OwnNorm(nn.HybridBlock):
    """A batch normalisation that calls the operator itself, as networks of other people do."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.gamma = self.params.get("gamma", shape=(4,), init="ones")
            self.beta = self.params.get("beta", shape=(4,), init="zeros")
            self.running_mean = self.params.get("running_mean", shape=(4,), init="zeros", grad_req="null")
            self.running_var = self.params.get("running_var", shape=(4,), init="ones", grad_req="null")

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        return F.BatchNorm(x, gamma, beta, running_mean, running_var, fix_gamma=False)


def network(kind):
    features, net = nn.HybridSequential(), nn.HybridSequential()
    norms = {"plain": nn.BatchNorm, "own": OwnNorm, "without scale": lambda: nn.BatchNorm(scale=False)}
    features.add(nn.Conv2D(4, 3), norms.get(kind, nn.BatchNorm)(), nn.Activation("relu"), nn.Flatten())
    net.add(features, nn.Dense(5), nn.BatchNorm(), nn.Dense(3))
    mx.random.seed(3)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, *SHAPE)))
    if kind != "imported":
        return net, "0.*"
    data = mx.sym.var("data", dtype="float32")
    block = mx.gluon.SymbolBlock(features(data), data, features.collect_params())
    whole = nn.HybridSequential()
    whole.add(block, nn.Dense(3))
    whole[1].initialize(mx.init.Xavier())
    whole(mx.nd.zeros((1, *SHAPE)))
    return whole, "0.*"


def learner_of(net, patterns, shards, **options):
    frozen = freeze(net, parameters_of(net), patterns)
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    optimizer = mx.optimizer.SGD(momentum=0.9, wd=0.1)
    options = UpdateOptions(frozen=frozen, **options)
    sample = batches(shards)(1)
    return Learner(net, loss, optimizer, SingleWorld(), shards=shards, sample=sample, options=options), frozen


@pytest.mark.parametrize("kind", ["plain", "own", "without scale", "imported"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("hybridize", [True, False])
def test_frozen_layers_and_their_statistics_do_not_move(kind, shards, hybridize):
    net, pattern = network(kind)
    learner, frozen = learner_of(net, [pattern], shards, hybridize=hybridize)
    stream = batches(shards)
    before = learner.snapshot().parameters
    for t in range(1, 4):
        learner.update(stream(t), 0.1)
    state = learner.snapshot()
    assert set(frozen) == {name for name in before if name.startswith("0.")}
    assert any("running" in name for name in frozen)
    for name, array in state.parameters.items():
        assert (array.tobytes() == before[name].tobytes()) == (name in frozen), name
    assert not [name for name in state.optimizer_state if name.rpartition("/")[0] in frozen]
    assert len(state.numbers["update_counts"]) == len(state.optimizer_state)


@pytest.mark.parametrize("kind", ["plain", "own"])
@pytest.mark.parametrize("shards", [1, 3])
def test_frozen_statistics_behind_a_layer_that_trains_do_not_move(kind, shards):
    """MXNet moves them in the backward pass, which comes to them only for the sake of what lies before."""
    net, _ = network(kind)
    learner, frozen = learner_of(net, ["0.1.*"], shards)
    before = learner.snapshot().parameters
    for t in (1, 2):
        learner.update(batches(shards)(t), 0.1)
    after = learner.snapshot().parameters
    assert {name for name in before if before[name].tobytes() == after[name].tobytes()} == set(frozen)


@pytest.mark.parametrize("kind", ["plain", "imported"])
def test_a_frozen_part_computes_a_sample_whatever_its_batch(kind):
    """It normalises by its running statistics, in training too."""
    net, pattern = network(kind)
    freeze(net, parameters_of(net), [pattern])
    features = net[0]
    data = mx.nd.random.normal(shape=(4, *SHAPE))
    with mx.autograd.record(train_mode=True):
        together, alone = features(data), features(data[:1])
    np.testing.assert_allclose(together[:1].asnumpy(), alone.asnumpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "imported"])
def test_statistics_are_frozen_with_their_gamma_and_beta(kind):
    net, _ = network(kind)
    parameters = parameters_of(net)
    norm = [name for name in parameters if name.startswith("0.") and not name.endswith(("weight", "bias"))]
    assert len(norm) == 4
    assert freeze(net, parameters, [name for name in norm if name.endswith(("gamma", "beta"))]) == norm


def test_statistics_of_layers_that_are_not_frozen_move():
    net, _ = network("plain")
    learner, frozen = learner_of(net, ["0.0.*", "0.1.gamma"], 2)
    stream = batches(2)
    assert frozen == ["0.0.weight", "0.0.bias", "0.1.gamma"]
    before = learner.snapshot().parameters
    learner.update(stream(1), 0.1)
    after = learner.snapshot().parameters
    moved = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert {"0.1.beta", "0.1.running_mean", "0.1.running_var", "2.running_mean"} <= moved
    assert not moved & set(frozen)


def test_statistics_can_be_frozen_by_themselves():
    net, _ = network("plain")
    learner, frozen = learner_of(net, ["0.1.running_*"], 2)
    stream = batches(2)
    before = learner.snapshot().parameters
    learner.update(stream(1), 0.1)
    after = learner.snapshot().parameters
    kept = {name for name in before if before[name].tobytes() == after[name].tobytes()}
    assert kept == {"0.1.running_mean", "0.1.running_var", *(name for name in kept if name in frozen)}


def test_an_update_that_is_left_out_moves_nothing_either():
    net, _ = network("own")
    net[3].bias.set_data(mx.nd.full((3,), np.inf))
    learner, _ = learner_of(net, ["0.*"], 1, skip_nonfinite=True)
    stream = batches(1)
    before = learner.digest()
    learner.update(stream(1), 0.1)
    assert learner.skipped == 1
    assert learner.digest() == before


def test_patterns_that_match_nothing_or_everything_are_refused():
    net, _ = network("plain")
    parameters = parameters_of(net)
    with pytest.raises(ConfigError, match=r"init\.freeze: the pattern 'O\.\*' .* matches no parameter; "):
        freeze(net, parameters, ["0.*", "O.*"])
    with pytest.raises(ConfigError, match=r"did you mean '0\.0\.weight'\?"):
        freeze(net, parameters, ["0.0.wieght"])
    with pytest.raises(ConfigError, match=r"freezes every parameter, and nothing is left to train"):
        freeze(net, parameters, ["*.weight", "*.bias", "*.gamma", "*.beta"])
    assert all(p.grad_req == "write" for name, p in parameters.items() if "running" not in name)
    assert freeze(net, parameters, []) == []


def test_a_multiplier_of_frozen_parameters_is_refused():
    net, _ = network("plain")
    parameters = parameters_of(net)
    frozen = freeze(net, parameters, ["0.*"])
    trainable = {name: p for name, p in parameters.items() if p.grad_req != "null"}
    with pytest.raises(ConfigError, match=r"optimizer\.lr_mult: the pattern '0\.\*' matches frozen parameters alone"):
        set_multipliers(trainable, lr_mult={"0.*": 0.1}, wd_mult={}, decay_bias_and_norm=False, frozen=frozen)
