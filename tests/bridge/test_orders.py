"""Sums in another order are the same function, in other bits; and log_softmax without oneDNN is right."""

from __future__ import annotations

from contextlib import nullcontext

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn, rnn

from harness.bridge.orders import accurate_operators, reversed_sums


def stacked(*blocks):
    net = nn.HybridSequential()
    net.add(*blocks)
    return net


class Scores(mx.gluon.HybridBlock):
    def hybrid_forward(self, f, x):
        return f.batch_dot(x, x, transpose_b=True)


NETS = {
    "dense": (lambda: stacked(nn.Dense(33, in_units=80, activation="tanh"), nn.Dense(7, in_units=33)), (9, 80)),
    "dense without flattening": (lambda: stacked(nn.Dense(9, flatten=False, use_bias=False, in_units=20)), (9, 4, 20)),
    "convolutions": (
        lambda: stacked(nn.Conv2D(12, 3, 2, 1, in_channels=5), nn.Conv2D(6, 3, groups=2, in_channels=12)),
        (4, 5, 13, 13),
    ),
    "products": (Scores, (4, 5, 40)),
    "lstm": (lambda: rnn.LSTM(12, 2, "NTC", bidirectional=True, input_size=6), (5, 7, 6)),
    "gru": (lambda: rnn.GRU(12, 2, input_size=6), (5, 7, 6)),
}


def ran(build, shape, context, compiled):
    draws = np.random.default_rng(2)
    with context():
        mx.random.seed(1)
        net = build()
        net.initialize(mx.init.Xavier())
        if compiled:
            net.hybridize(static_alloc=True)
        data = mx.nd.array(draws.normal(size=shape))
        data.attach_grad()
        with mx.autograd.record():
            found = net(data)
            (found * mx.nd.array(draws.normal(size=found.shape))).sum().backward()
    return [found, data.grad, *(one.grad() for one in net.collect_params().values())]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_another_order_is_the_same_function_in_other_bits(name, compiled):
    plain, turned = (ran(*NETS[name], one, compiled) for one in (nullcontext, reversed_sums))
    for one, other in zip(plain, turned, strict=True):
        one, other = one.asnumpy(), other.asnumpy()
        np.testing.assert_allclose(other, one, rtol=0, atol=2e-6 * np.abs(one).max())  # some units in the last place
    assert (plain[0].asnumpy() != turned[0].asnumpy()).any()


def test_log_softmax_is_right_to_the_last_places():
    data = mx.nd.array(np.random.default_rng(3).normal(size=(500, 10)))
    exact = data.asnumpy().astype(np.float64)
    exact -= np.log(np.exp(exact).sum(1, keepdims=True))
    operator = mx.nd.log_softmax
    with accurate_operators():
        assert np.abs(mx.nd.log_softmax(data).asnumpy() - exact).max() < 1e-6
    assert mx.nd.log_softmax is operator
