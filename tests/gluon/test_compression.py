"""`compression: fp16`: what is rounded and when, what is not, gradients that are too large, and training with it."""

from __future__ import annotations

from contextlib import ExitStack

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.comm.half import HalfPrecision, HalfRounder
from harness.data import Augmentation, Batch, BatchStream, GlobalBatch, Order, load
from harness.errors import ConfigError, DivergedError
from harness.gluon import Learner, Placement, UpdateOptions, shards_of_rank

RANDOM = np.random.default_rng(0)
DATA = RANDOM.normal(size=(16, 2, 4, 4)).astype(np.float32)
LABEL = RANDOM.integers(0, 3, 16).astype(np.float32)
ONE = (mx.cpu(),)
LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def small_net(contexts):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, padding=1, use_bias=False), nn.BatchNorm(), nn.Activation("relu"), nn.Flatten())
    net.add(nn.Dense(3))
    mx.random.seed(3)
    net.initialize(mx.init.Xavier(), ctx=contexts)
    return net


def learner_of(shards, contexts=ONE, loss=LOSS, **options):
    optimizer = mx.optimizer.SGD(learning_rate=1)
    return Learner(
        small_net(list(contexts)),
        loss,
        optimizer,
        SingleWorld(),
        shards=shards,
        sample=DATA[:1],
        placement=Placement(tuple(contexts)),
        options=UpdateOptions(**{"compression": "fp16", **options}),
    )


def batch_of(t, *sizes, num_devices=1, scale=1.0):
    """Shards of these sizes."""
    ends = np.cumsum(sizes)
    batches = []
    for shard in shards_of_rank(len(sizes), SingleWorld(), num_devices):
        part = slice(ends[shard] - sizes[shard], ends[shard])
        batches.append(Batch(shard, DATA[part] * np.float32(scale), LABEL[part].copy()))
    return GlobalBatch(t, tuple(batches), sum(sizes))


def gradients_of(learner):
    """The sums of the last update."""
    return {
        name: parameter.grad(mx.cpu()).asnumpy().copy()
        for name, parameter in learner.parameters.items()
        if parameter.grad_req != "null"
    }


def rounded(values, num_samples):
    array = values.reshape(-1).copy()
    HalfRounder()(array, HalfPrecision.of(array.size, num_samples))
    return array.reshape(values.shape)


def gradients_after(shards, *sizes, **options):
    learner = learner_of(shards, **options)
    learner.update(batch_of(1, *sizes), 0.0)
    learner.finish()
    return gradients_of(learner)


def test_every_shard_is_rounded_and_so_is_their_sum():
    exact = [gradients_after(1, 4, compression="none")]
    # The second shard alone: the same samples, as a batch of their own.
    learner = learner_of(1, compression="none")
    learner.update(GlobalBatch(1, (Batch(0, DATA[4:8].copy(), LABEL[4:8].copy()),), 4), 0.0)
    exact.append(gradients_of(learner))
    for name, found in gradients_after(2, 4, 4).items():
        first, second = (gradients[name] for gradients in exact)
        leaves = rounded(first, 8), rounded(second, 8)
        assert not np.array_equal(leaves[0], first)
        np.testing.assert_array_equal(found, rounded(leaves[0] + leaves[1], 8))


def test_one_shard_is_rounded_too():
    exact, found = gradients_after(1, 4, compression="none"), gradients_after(1, 4)
    for name, values in exact.items():
        np.testing.assert_array_equal(found[name], rounded(values, 4))


def test_statistics_and_loss_are_not_rounded():
    found = []
    for compression in ("none", "fp16"):
        learner = learner_of(2, compression=compression)
        loss = float(learner.update(batch_of(1, 4, 4), 0.0))
        parameters = learner.snapshot().parameters
        found.append((loss, *(parameters[f"1.running_{name}"].tobytes() for name in ("mean", "var"))))
    assert found[0] == found[1]


@pytest.mark.parametrize("sizes", [(4, 4), (4, 0), (3, 1, 4, 2)])
def test_devices_have_the_bits_of_one(sizes):
    digests = set()
    for contexts in (ONE, (mx.cpu(0), mx.cpu(1))):
        learner = learner_of(len(sizes), contexts)
        for t in (1, 2, 3):
            learner.update(batch_of(t, *sizes, num_devices=len(contexts)), 0.1)
        digests.add(learner.digest())
    assert len(digests) == 1


LARGE = mx.gluon.loss.SoftmaxCrossEntropyLoss(weight=1e6)


def test_a_gradient_that_16_bits_cannot_hold_ends_the_run_and_names_the_setting():
    learner = learner_of(2, loss=LARGE)
    learner.update(batch_of(1, 4, 4), 0.1)
    with pytest.raises(DivergedError, match=r"iteration 1: the loss is [0-9.e+]+ and .*compression: fp16 cannot send"):
        learner.finish()
    exact = learner_of(2, loss=LARGE, compression="none")
    exact.update(batch_of(1, 4, 4), 0.0)
    exact.finish()


def test_another_compression_is_refused():
    with pytest.raises(ConfigError, match="compression: 'bf16' is unknown; allowed: none, fp16"):
        UpdateOptions(compression="bf16")


def test_it_can_be_skipped():
    learner = learner_of(2, loss=LARGE, skip_nonfinite=True)
    before = learner.digest()
    learner.update(batch_of(1, 4, 4), 0.1)
    assert learner.skipped == 1
    assert learner.digest() == before


def test_a_loss_that_is_not_finite_is_told_as_ever():
    learner = learner_of(1)
    learner.update(batch_of(1, 4, scale=np.nan), 0.1)
    with pytest.raises(DivergedError, match="the weights are of no use any more"):
        learner.finish()


def test_the_digits_are_learned_as_well_as_without():
    splits, sizes = load("digits"), (4, 32)
    errors = {}
    for compression in ("none", "fp16"):
        net = nn.HybridSequential()
        net.add(nn.Flatten(), nn.Dense(64, activation="relu"), nn.Dense(10))
        mx.random.seed(1)
        net.initialize(mx.init.Xavier())
        order = Order(len(splits.train), *sizes, 0, "drop")
        with ExitStack() as stack:
            stream = stack.enter_context(
                BatchStream(splits.train, order, shards_of_rank(4, SingleWorld()), Augmentation(), 0)
            )
            learner = Learner(
                net,
                LOSS,
                mx.optimizer.SGD(momentum=0.9),
                SingleWorld(),
                shards=4,
                sample=stream(1),
                options=UpdateOptions(compression=compression),
            )
            losses = [float(learner.update(stream(t), 0.1)) for t in range(1, 111)]
        errors[compression] = np.mean(losses[-11:])
    assert errors["fp16"] < 0.15
    assert errors["fp16"] == pytest.approx(errors["none"], rel=0.05)
    assert errors["fp16"] != errors["none"]
