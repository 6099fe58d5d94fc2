"""Rewritten graphs: the function and the gradients of the network, whatever it is made of."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.gluon import rewriting
from harness.gluon.nets import build_network
from harness.gluon.rewriting import channel_block, rewrite
from harness.gluon.shards import Forward, Graph, parameters_of


def chain(*blocks):
    net = nn.HybridSequential()
    net.add(*blocks)
    return net


class Branches(nn.HybridBlock):
    """Reads an activation twice, shares a convolution's weights, and has padded channels on every way to its end."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.first = nn.Conv2D(6, 3, padding=1)
            self.one = nn.Conv2D(6, 3, padding=1, in_channels=6)
            self.same = nn.Conv2D(6, 3, padding=1, in_channels=6, params=self.one.params)
            self.grouped = nn.Conv2D(6, 3, padding=1, groups=3)
            self.pool = nn.MaxPool2D()

    def hybrid_forward(self, F, data):
        begin = F.Activation(self.first(data), act_type="tanh")
        left, right = self.pool(begin), F.Activation(self.one(begin), act_type="sigmoid")
        return self.pool(self.same(right)) + left * self.grouped(left)


NETWORKS = {
    "lenet": lambda: build_network("lenet", {}, 10),
    "mnist_cnn": lambda: build_network("mnist_cnn", {}, 10),
    "branches": Branches,
    "ends in a convolution": lambda: chain(nn.Conv2D(20, 3, activation="relu"), nn.Conv2D(9, 3, use_bias=False)),
    "batch norm": lambda: chain(
        nn.Conv2D(10, 3, use_bias=False), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(), nn.Conv2D(20, 3)
    ),
    "strides": lambda: chain(
        nn.Conv2D(7, 3, strides=2, padding=1, activation="softsign"), nn.AvgPool2D(), nn.Conv2D(11, (1, 3), dilation=2)
    ),
    "poolings": lambda: chain(
        nn.Conv2D(5, 3, activation="softrelu"),
        nn.MaxPool2D(3, 2, 1, ceil_mode=True),
        nn.Conv2D(12, 3, activation="relu"),
        nn.GlobalMaxPool2D(),
    ),
    "more zeros than numbers": lambda: chain(nn.Conv2D(20, 3, activation="relu"), nn.Conv2D(2, 1), nn.Conv2D(18, 1)),
    "to many channels": lambda: chain(nn.Conv2D(20, 3), nn.Conv2D(32, 3, activation="tanh"), nn.Conv2D(31, 1)),
}


def made(name):
    net = NETWORKS[name]()
    mx.random.seed(2)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 28, 28)))
    shapes = {parameter.name: parameter.shape for parameter in net.collect_params().values()}
    return net, net(mx.sym.var("data")), shapes


def outcome(net, symbol):
    """The graph's arrays, and every parameter's gradient of the sum of their squares."""
    parameters = {parameter.name: parameter for parameter in net.collect_params().values()}
    data = mx.nd.array(np.random.default_rng(4).normal(size=(6, 3, 28, 28)))
    call = mx.nd.CachedOp(symbol, [("static_alloc", True)])
    arguments = [data if name == "data" else parameters[name].data() for name in symbol.list_inputs()]
    with mx.autograd.record():
        found = call(*arguments)
        (found**2).mean().backward()
    gradients = {name: p.grad().asnumpy() for name, p in parameters.items() if p.grad_req != "null"}
    return {"prediction": found.asnumpy(), **gradients}


def nodes(symbol, operator):
    return [node for node in json.loads(symbol.tojson())["nodes"] if node["op"] == operator]


def widths(symbol):
    return [int(node["attrs"]["num_filter"]) for node in nodes(symbol, "Convolution")]


@pytest.mark.parametrize("block", [1, 8, 16])
@pytest.mark.parametrize("name", NETWORKS)
def test_function_and_gradients_stay_what_they_are(name, block):
    net, symbol, shapes = made(name)
    expected = outcome(net, symbol)
    rewritten = rewrite(symbol, shapes, block)
    assert sorted(rewritten.list_inputs()) == sorted(symbol.list_inputs())
    found = outcome(net, rewritten)
    for key, value in expected.items():
        # sums of a few thousand products of float32, added in another order
        np.testing.assert_allclose(found[key], value, rtol=2e-4, atol=2e-5 * np.abs(value).max(), err_msg=key)


@pytest.mark.parametrize("name", ["lenet", "mnist_cnn"])
def test_pooling_first_has_the_same_bits(name):
    net, symbol, shapes = made(name)
    expected, found = outcome(net, symbol), outcome(net, rewrite(symbol, shapes))
    assert all(np.array_equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("activation", "pooling", "swapped"),
    [
        ("relu", nn.MaxPool2D(), True),
        ("tanh", nn.MaxPool2D(3, 2, 1), True),
        ("sigmoid", nn.MaxPool2D(3, 3), True),
        ("relu", nn.AvgPool2D(), False),
        ("relu", nn.MaxPool2D(2, 3, ceil_mode=True), False),
    ],
)
def test_what_goes_behind_a_pooling(activation, pooling, swapped):
    data = mx.sym.Activation(mx.sym.var("data"), act_type=activation)
    rewritten = rewrite(pooling(data), {})
    order = [node["op"] for node in json.loads(rewritten.tojson())["nodes"] if node["op"] != "null"]
    assert order == (["Pooling", "Activation"] if swapped else ["Activation", "Pooling"])


def test_an_activation_that_others_read_stays_where_it_is():
    inner = mx.sym.Activation(mx.sym.var("data"), act_type="relu")
    pooled = mx.sym.Pooling(inner, kernel=(2, 2))
    for outputs in (mx.sym.Group([inner, pooled]), mx.sym.Group([pooled, inner + 1])):
        order = [node["op"] for node in json.loads(rewrite(outputs, {}).tojson())["nodes"]]
        assert order.index("Activation") < order.index("Pooling")


def test_padded_channels_are_cut_off_once_and_as_late_as_possible():
    _, symbol, shapes = made("lenet")
    padded = rewrite(symbol, shapes, 16)
    assert widths(padded) == [32, 64]
    assert [node["attrs"] for node in nodes(padded, "slice_axis")] == [{"axis": "1", "begin": "0", "end": "50"}]
    assert padded.infer_shape(data=(6, 3, 28, 28), **shapes)[1] == [(6, 10)]
    assert widths(rewrite(symbol, shapes, 8)) == [24, 56]
    _, symbol, shapes = made("branches")
    assert (
        len(nodes(rewrite(symbol, shapes, 16), "slice_axis")) == 2
    )  # `left`, which two nodes read, and the right side


@pytest.mark.parametrize(
    ("net", "block", "expected"),
    [
        (lambda: chain(nn.Conv2D(32, 3), nn.Conv2D(48, 3)), 16, [32, 48]),
        (lambda: chain(nn.Conv2D(24, 3), nn.Conv2D(20, 3)), 16, [24, 20]),  # 24 have a kernel; 20 would read 24
        (lambda: chain(nn.Conv2D(32, 3), nn.Conv2D(20, 3)), 16, [32, 32]),
        (lambda: chain(nn.Conv2D(5, 3), nn.Conv2D(6, 3)), 16, [5, 6]),  # 3.2 times the work
        (lambda: chain(nn.Conv2D(5, 3), nn.Conv2D(6, 3)), 8, [8, 8]),
        (lambda: chain(nn.Conv2D(20, 3), nn.Conv2D(4, 3), nn.Conv2D(20, 3)), 16, [32, 4, 20]),
        (lambda: chain(nn.Conv2D(20, 3), nn.Conv2D(20, 3, groups=2)), 16, [32, 20]),
        (lambda: chain(nn.Conv2D(20, 3), nn.BatchNorm(), nn.Conv2D(20, 3)), 16, [32, 20]),
    ],
)
def test_which_convolutions_are_padded(net, block, expected):
    net = net()
    net.initialize()
    net(mx.nd.zeros((1, 3, 12, 12)))
    shapes = {parameter.name: parameter.shape for parameter in net.collect_params().values()}
    assert widths(rewrite(net(mx.sym.var("data")), shapes, block)) == expected


def test_convolutions_of_one_and_three_dimensions_are_left_alone():
    for kind, shape in ((nn.Conv1D, (1, 3, 9)), (nn.Conv3D, (1, 3, 5, 5, 5))):
        net = kind(20, 3)
        net.initialize()
        net(mx.nd.zeros(shape))
        shapes = {parameter.name: parameter.shape for parameter in net.collect_params().values()}
        assert widths(rewrite(net(mx.sym.var("data")), shapes, 16)) == [20]


def test_the_block_is_that_of_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(rewriting.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(rewriting, "Path", lambda _: tmp_path / "cpuinfo")
    assert channel_block() == 1
    for flags, block in (("sse4_2 avx2", 8), ("avx2 avx512f avx512bw", 16), ("sse4_2", 1)):
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags} fma\n")
        assert channel_block() == block
    (tmp_path / "cpuinfo").write_text("flags: avx2\n")
    monkeypatch.setenv("MXNET_MKLDNN_ENABLED", "0")
    assert channel_block() == 1
    monkeypatch.delenv("MXNET_MKLDNN_ENABLED")
    monkeypatch.setattr(rewriting.platform, "machine", lambda: "aarch64")
    assert channel_block() == 1


@pytest.mark.parametrize(("is_on_cpu", "expected"), [(True, [32, 64]), (False, [20, 50])])
def test_a_forward_trains_the_rewritten_graph(is_on_cpu, expected, monkeypatch):
    monkeypatch.setattr("harness.gluon.shards.channel_block", lambda: 16)
    seen = []
    monkeypatch.setattr("harness.gluon.shards.rewrite", lambda *args: seen.append(rewrite(*args)) or seen[-1])
    net, symbol, _ = made("lenet")
    loss, data = mx.gluon.loss.SoftmaxCELoss(), mx.nd.random.normal(shape=(6, 3, 28, 28))
    forward = Forward(net, loss, Graph(net, parameters_of(net), loss), hybridize=True, is_on_cpu=is_on_cpu)
    with mx.autograd.record():
        losses, total = forward.losses(data, mx.nd.arange(6))
    assert [widths(one) for one in seen] == [expected]
    np.testing.assert_allclose(losses.asnumpy(), loss(net(data), mx.nd.arange(6)).asnumpy(), rtol=1e-5)
    np.testing.assert_allclose(total.asscalar(), losses.asnumpy().sum(), rtol=1e-6)
    assert widths(symbol) == [20, 50]
