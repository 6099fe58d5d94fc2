"""A schedule of the momentum is one of beta1, for optimizers whose momentum that is: against their formulas."""

from __future__ import annotations

import math

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.config.sections import HAVE_BETA1
from harness.data import Batch, GlobalBatch
from harness.errors import ConfigError
from harness.gluon import Learner
from harness.model.given import refuse_idle_momentum
from harness.model.optimizers import build_optimizer

UPDATES, INPUTS = 60, 7


def rate(t):
    return 0.02 * (1.2 + math.sin(t))


def beta1(t):
    return 0.95 - 0.3 * (t % 10) / 10


def samples(t):
    random = np.random.default_rng(t)
    data = random.normal(size=(8, INPUTS))
    return data, data @ np.linspace(-1, 1, INPUTS) + 0.5 + random.normal(size=8)


def trained(name, scheduled):
    """Start and end weights, with the bias last."""
    net = nn.Dense(1, in_units=INPUTS)
    mx.random.seed(5)
    net.initialize(mx.init.Normal(0.5))
    optimizer = build_optimizer(name, {})
    sample = np.zeros((1, INPUTS), "f")
    learner = Learner(net, mx.gluon.loss.L2Loss(), optimizer, SingleWorld(), shards=1, sample=sample)

    def weights():
        parameters = learner.snapshot().parameters
        return np.concatenate([parameters["weight"].ravel(), parameters["bias"]]).astype(np.float64)

    start = weights()
    for t in range(1, UPDATES + 1):
        data, label = samples(t)
        learner.update(GlobalBatch(t, (Batch(0, data.astype("f"), label.astype("f")),), 8), rate(t), scheduled(t))
    return start, weights()


def textbook(name, weight, scheduled):
    """Kingma and Ba, "Adam", 2014, arXiv 1412.6980, algorithms 1 and 2, with another beta1 in each update."""
    mean, second = np.zeros(INPUTS + 1), np.zeros(INPUTS + 1)
    for t in range(1, UPDATES + 1):
        data, label = samples(t)
        inputs = np.c_[data, np.ones(8)]
        gradient = inputs.T @ (inputs @ weight - label) / 8
        mean = scheduled(t) * mean + (1 - scheduled(t)) * gradient
        unbiased = mean / (1 - scheduled(t) ** t)
        if name == "adamax":
            second = np.maximum(0.999 * second, abs(gradient))
            weight = weight - rate(t) * unbiased / second
        else:
            second = 0.999 * second + 0.001 * gradient**2
            weight = weight - rate(t) * unbiased / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return weight


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax"])
def test_the_trajectory_is_the_papers_with_another_beta1_in_each_update(name):
    start, end = trained(name, beta1)
    assert relative_error(end, textbook(name, start, beta1)) < 1e-5  # weights are float32
    assert relative_error(end, textbook(name, start, lambda t: 0.9)) > 1e-3


@pytest.mark.parametrize("name", HAVE_BETA1)
def test_its_own_beta1_as_a_schedule_has_the_same_bits_and_another_has_not(name):
    own = build_optimizer(name, {}).beta1
    _, expected = trained(name, lambda t: None)
    assert trained(name, lambda t: own)[1].tolist() == expected.tolist()
    assert trained(name, beta1)[1].tolist() != expected.tolist()
    # for one update alone: the next one has the optimizer's own again
    assert trained(name, lambda t: beta1(t) if t == 5 else None)[1].tolist() != expected.tolist()


@pytest.mark.parametrize("name", ["nadam", "rmsprop", "ftml"])
def test_others_are_refused(name):
    optimizer = mx.optimizer.create(name)
    with pytest.raises(ConfigError) as caught:
        refuse_idle_momentum(optimizer, None, has_schedule=True)
    assert str(caught.value) == (
        f"lr.momentum: has no effect on this {type(optimizer).__name__}; it needs one of sgd, nag, lars, signum with a "
        "momentum above 0, or one of adam, adamw, adamax, lamb, whose beta1 it is"
    )
    refuse_idle_momentum(mx.optimizer.Adam(), None, has_schedule=True)
