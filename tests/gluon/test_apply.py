"""Momentum correction against the textbook form, and optimizers that follow the plan."""

from __future__ import annotations

import math

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.gluon import Learner, UpdateOptions, shards_of_rank
from tests.conftest import THOROUGH

UPDATES, SKIPPED, ZERO = (200, 77, (60, 61, 130)) if THOROUGH else (70, 37, (30, 31, 50))
NUM_WEIGHTS = 20  # 19 inputs and a bias


def learning_rate(t, zeros=ZERO):
    """Changes at every iteration and is 0 at some of them."""
    return 0.0 if t in zeros else 0.03 * (1.2 + math.sin(t)) * (1 - t / (2 * UPDATES))


def momentum(t):
    return 0.9 - 0.2 * (t % 10) / 10


def samples(t):
    random = np.random.default_rng(t)
    data = random.normal(size=(8, NUM_WEIGHTS - 1))
    return data, data @ np.linspace(-1, 1, NUM_WEIGHTS - 1) + 0.5 + random.normal(size=8)


def textbook(kind, weight, wd, rate, momentum_of):
    """`v = m v + g; w -= lr v` (and Nesterov's `w -= lr (g + m v)`), in float64."""
    velocity = np.zeros(NUM_WEIGHTS)
    for t in range(1, UPDATES + 1):
        if t == SKIPPED:
            continue
        data, label = samples(t)
        inputs = np.c_[data, np.ones(8)]
        gradient = inputs.T @ (inputs @ weight - label) / 8 + wd * weight
        velocity = momentum_of(t) * velocity + gradient
        step = gradient + momentum_of(t) * velocity if kind == "nag" else velocity
        weight = weight - rate(t) * step
    return weight


def harness(kind, wd, rate, momentum_of, shards, correction):
    """The same through a learner: start and end weights."""
    net = nn.Dense(1, in_units=NUM_WEIGHTS - 1)
    mx.random.seed(5)
    net.initialize(mx.init.Normal(0.5))
    own = shards_of_rank(shards, SingleWorld())
    size = 8 // shards

    def stream(t):
        data, label = samples(t)
        if t == SKIPPED:
            data = data * np.nan
        parts = [slice(s * size, (s + 1) * size) for s in own]
        batches = [Batch(s, data[p].astype("f"), label[p].astype("f")) for s, p in zip(own, parts, strict=True)]
        return GlobalBatch(t, tuple(batches), 8)

    learner = Learner(
        net,
        mx.gluon.loss.L2Loss(),
        mx.optimizer.create(kind, momentum=0.9, wd=wd),
        SingleWorld(),
        shards=shards,
        sample=np.zeros((1, NUM_WEIGHTS - 1), "f"),
        options=UpdateOptions(momentum_correction=correction, skip_nonfinite=True),
    )

    def weights():
        parameters = learner.snapshot().parameters
        return np.concatenate([parameters["weight"].ravel(), parameters["bias"]]).astype(np.float64)

    start = weights()
    for t in range(1, UPDATES + 1):
        learner.update(stream(t), rate(t), momentum_of(t))
    return start, weights()


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize(("kind", "wd"), [("sgd", 0.0), ("sgd", 0.01), ("nag", 0.0), ("nag", 0.01)])
def test_with_correction_the_trajectory_is_the_textbooks(kind, wd, shards):
    start, end = harness(kind, wd, learning_rate, lambda t: 0.9, shards, correction=True)
    assert relative_error(end, textbook(kind, start, wd, learning_rate, lambda t: 0.9)) < 1e-5


@pytest.mark.parametrize(("kind", "wd"), [("sgd", 0.01), ("nag", 0.0), ("nag", 0.01)])
def test_without_correction_it_is_not(kind, wd):
    start, end = harness(kind, wd, learning_rate, lambda t: 0.9, 2, correction=False)
    assert relative_error(end, textbook(kind, start, wd, learning_rate, lambda t: 0.9)) > 1e-3


@pytest.mark.parametrize(("kind", "wd"), [("sgd", 0.01), ("nag", 0.0), ("nag", 0.01)])
def test_a_momentum_schedule_is_followed(kind, wd):
    start, end = harness(kind, wd, learning_rate, momentum, 2, correction=True)
    assert relative_error(end, textbook(kind, start, wd, learning_rate, momentum)) < 1e-5
    assert relative_error(end, textbook(kind, start, wd, learning_rate, lambda t: 0.9)) > 1e-3


@pytest.mark.parametrize("kind", ["sgd", "nag"])
def test_a_plan_that_begins_at_zero_keeps_the_first_gradients(kind):
    def rate(t):
        return learning_rate(t, zeros=(1, 2))

    start, end = harness(kind, 0.0, rate, lambda t: 0.9, 2, correction=True)
    assert relative_error(end, textbook(kind, start, 0.0, rate, lambda t: 0.9)) < 1e-5


@pytest.mark.parametrize(
    ("kind", "corrected"), [("sgd", True), ("nag", True), ("lars", True), ("adam", False), ("signum", False)]
)
def test_correction_is_on_where_it_means_something(kind, corrected):
    def end(correction):
        net = nn.Dense(1, in_units=NUM_WEIGHTS - 1)
        mx.random.seed(5)
        net.initialize(mx.init.Normal(0.5))
        learner = Learner(
            net,
            mx.gluon.loss.L2Loss(),
            mx.optimizer.create(kind, **({} if kind == "adam" else {"momentum": 0.9})),
            SingleWorld(),
            shards=1,
            sample=np.zeros((1, NUM_WEIGHTS - 1), "f"),
            options=UpdateOptions(momentum_correction=correction),
        )
        for t, rate in enumerate((0.1, 0.2, 0.05), start=1):
            data, label = samples(t)
            learner.update(GlobalBatch(t, (Batch(0, data.astype("f"), label.astype("f")),), 8), rate)
        return {name: array.tobytes() for name, array in learner.snapshot().parameters.items()}

    by_default = end(None)
    assert by_default == end(corrected)
    if corrected:
        assert by_default != end(False)


def test_weight_decay_does_not_depend_on_how_onednn_has_laid_the_weights_out():
    """A predict-mode forward leaves convolution weights in a layout of oneDNN's; restoring brings the plain one back.

    MXNet's own NAG gives other bits then, because it reads the weight for the decay after having changed it in place.
    """
    random = np.random.default_rng(0)
    data, label = random.normal(size=(64, 3, 32, 32)).astype("f"), random.integers(0, 10, 64).astype("f")
    net = mx.gluon.model_zoo.vision.resnet18_v2(classes=10)
    mx.random.seed(1)
    net.initialize(mx.init.Xavier())
    learner = Learner(
        net,
        mx.gluon.loss.SoftmaxCrossEntropyLoss(),
        mx.optimizer.NAG(momentum=0.9, wd=5e-4),
        SingleWorld(),
        shards=1,
        sample=data[:1],
    )
    state = learner.snapshot()
    digests = set()
    for restored in (False, True):
        if restored:
            learner.restore(state)
        for t in (1, 2):
            learner.update(GlobalBatch(t, (Batch(0, data, label),), 64), 0.01)
        digests.add(learner.digest())
    assert len(digests) == 1


@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_decay_follows_its_multiplier_and_comes_after_the_clip(factor):
    def one_update(wd, clip):
        net = nn.Dense(1, in_units=3, use_bias=False)
        net.initialize(mx.init.One())
        net.weight.wd_mult = factor
        learner = Learner(
            net,
            mx.gluon.loss.L2Loss(),
            mx.optimizer.NAG(momentum=0.5, wd=wd, clip_gradient=clip),
            SingleWorld(),
            shards=1,
            sample=np.ones((1, 3), "f"),
        )
        learner.update(GlobalBatch(1, (Batch(0, np.eye(3, dtype="f") * 3, np.zeros((3, 1), "f")),), 3), 0.1)
        return learner.snapshot().parameters["weight"].ravel()

    gradient = np.full(3, 3.0)  # of sum(9 w**2 / 2) / 3
    for clip, clipped in ((None, gradient), (1.0, np.ones(3))):
        total = clipped + 0.2 * factor * 1.0
        np.testing.assert_allclose(one_update(0.2, clip), 1 - 0.1 * (total + 0.5 * total), rtol=1e-6)
