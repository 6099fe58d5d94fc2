"""Sums in another order are the same function, in other bits; and log_softmax without oneDNN is right."""

from __future__ import annotations

from contextlib import nullcontext

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn, rnn

from harness.bridge.orders import Order, accurate_operators, other_order
from harness.model.optimizers import build_optimizer


def stacked(*blocks):
    net = nn.HybridSequential()
    net.add(*blocks)
    return net


class Scores(mx.gluon.HybridBlock):
    def hybrid_forward(self, f, x):
        return f.batch_dot(x, x, transpose_b=True)


class Losses(mx.gluon.HybridBlock):
    def hybrid_forward(self, f, x):
        return f.mean(x, axis=0, exclude=True)


NETS = {
    "dense": (lambda: stacked(nn.Dense(33, in_units=80, activation="tanh"), nn.Dense(7, in_units=33)), (9, 80)),
    "dense without flattening": (lambda: stacked(nn.Dense(9, flatten=False, use_bias=False, in_units=20)), (9, 4, 20)),
    "convolutions": (
        lambda: stacked(nn.Conv2D(12, 3, 2, 1, in_channels=5), nn.Conv2D(6, 3, groups=2, in_channels=12)),
        (4, 5, 13, 13),
    ),
    # whose only channel has no order
    "convolution of one channel": (lambda: stacked(nn.Conv2D(4, 5, padding=(2, 1), in_channels=1)), (4, 1, 12, 9)),
    "convolution, dilated": (lambda: stacked(nn.Conv2D(6, 3, (2, 1), 2, 2, in_channels=5)), (4, 5, 12, 12)),
    "convolution by channel": (lambda: stacked(nn.Conv2D(6, 3, groups=6, in_channels=6)), (4, 6, 9, 9)),
    "convolution of one axis": (lambda: stacked(nn.Conv1D(8, 5, in_channels=6)), (4, 6, 20)),
    "products": (Scores, (4, 5, 40)),
    "losses": (Losses, (9, 80)),
    "lstm": (lambda: rnn.LSTM(12, 2, "NTC", bidirectional=True, input_size=6), (5, 7, 6)),
    "gru": (lambda: rnn.GRU(12, 2, input_size=6), (5, 7, 6)),
}


# a sum over units of one is no sum
WITHOUT_UNITS = {"products", "losses", "convolution by channel"}
WITH_KERNELS = {"dense", "convolutions", "convolution of one channel", "convolution, dilated"}


def ran(build, shape, order, compiled, dtype="float32"):
    draws = np.random.default_rng(2)
    with nullcontext() if order is None else other_order(order):
        mx.random.seed(1)
        net = build()
        net.initialize(mx.init.Xavier())
        net.cast(dtype)
        if compiled:
            net.hybridize(static_alloc=True)
        data = mx.nd.array(draws.normal(size=shape), dtype=dtype)
        data.attach_grad()
        with mx.autograd.record():
            found = net(data)
            (found * mx.nd.array(draws.normal(size=found.shape), dtype=dtype)).sum().backward()
    return [one.asnumpy() for one in (found, data.grad, *(one.grad() for one in net.collect_params().values()))]


ORDERS = [Order.of(number) for number in range(1, 17)]
# what computes no gradients of several layers in float64
IN_FLOAT64 = [name for name in NETS if name not in ("lstm", "gru")]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_another_order_is_the_same_function_in_other_bits(name, compiled):
    plain, *others = (ran(*NETS[name], order, compiled) for order in (None, *ORDERS))
    for one, *more in zip(plain, *others, strict=True):
        for other in more:
            # some units in the last place
            np.testing.assert_allclose(other, one, rtol=0, atol=2e-6 * np.abs(one).max())
    for order, (outputs, *gradients) in zip(ORDERS, others, strict=True):
        if order.inputs:
            assert (outputs != plain[0]).any(), order
        if order.units and name not in WITHOUT_UNITS:
            assert any((one != other).any() for one, other in zip(gradients, plain[1:], strict=True)), order
        if order.kernel and name in WITH_KERNELS:
            assert any((one != other).any() for one, other in zip((outputs, *gradients), plain, strict=True)), order


def test_weights_that_onednn_keeps_in_blocks_are_read_in_every_order():
    """As a prediction leaves them."""
    net = nn.Conv2D(64, 3, padding=1, in_channels=16)
    net.initialize()
    data = mx.nd.random.normal(shape=(2, 16, 8, 8))
    plain = net(data).asnumpy()
    for order in ORDERS:
        with other_order(order):
            np.testing.assert_allclose(net(data).asnumpy(), plain, rtol=0, atol=1e-6 * np.abs(plain).max())


@pytest.mark.parametrize("name", IN_FLOAT64)
def test_another_order_differs_by_the_rounding_of_the_type(name):
    plain, *others = (ran(*NETS[name], order, False, "float64") for order in (None, *ORDERS))
    for one, *more in zip(plain, *others, strict=True):
        for other in more:
            np.testing.assert_allclose(other, one, rtol=0, atol=4e-15 * np.abs(one).max())


def test_orders_are_all_that_there_are():
    orders = [Order.of(number) for number in range(1, 18)]
    assert orders[0] == orders[16] == Order(True, True, True, True)
    assert len(set(orders)) == 16


STEPS = {
    "sgd": {"wd": 0.1},
    "sgd with momentum": {"momentum": 0.9, "wd": 0.1},
    "nag": {"momentum": 0.9},
    "adam": {"wd": 0.1, "epsilon": 1e-3},
    "adamw": {"wd": 0.1, "epsilon": 1e-3},
    "rmsprop": {"wd": 0.1, "epsilon": 1e-3},
}


@pytest.mark.parametrize("clip_value", [None, 1.0])
@pytest.mark.parametrize("name", STEPS)
def test_another_order_is_the_same_step_in_other_bits(name, clip_value):
    draws = np.random.default_rng(4)
    weight, gradients = draws.normal(size=500), draws.normal(size=(5, 500))
    ends = []
    for order in (Order(True, True, False, False), Order(True, True, True, False)):
        with other_order(order):
            optimizer = build_optimizer(name.partition(" ")[0], STEPS[name], clip_value=clip_value)
            optimizer.rescale_grad = 0.7
            optimizer.set_learning_rate(0.01)
            updater, stepped = mx.optimizer.get_updater(optimizer), mx.nd.array(weight)
            for one in gradients:
                updater(0, mx.nd.array(one), stepped)
            ends.append(stepped.asnumpy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=3e-6)  # of numbers up to 3, some units in the last place
    assert (ends[0] != ends[1]).any() == (clip_value is None)  # an order is MXNet's own where gradients are clipped


def test_log_softmax_is_right_to_the_last_places():
    data = mx.nd.array(np.random.default_rng(3).normal(size=(500, 10)))
    exact = data.asnumpy().astype(np.float64)
    exact -= np.log(np.exp(exact).sum(1, keepdims=True))
    operator = mx.nd.log_softmax
    with accurate_operators():
        assert np.abs(mx.nd.log_softmax(data).asnumpy() - exact).max() < 1e-6
    assert mx.nd.log_softmax is operator
