"""Rewritten graphs: the function and the gradients of the network, whatever it is made of."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.gluon import rewriting
from harness.gluon.forward import Forward
from harness.gluon.graph import Graph
from harness.gluon.rewriting import channel_block, rewrite
from harness.model.calls import Calls
from harness.model.networks import build_network
from harness.model.parameters import parameters_of


def chain(*blocks):
    net = nn.HybridSequential()
    net.add(*blocks)
    return net


class Branches(nn.HybridBlock):
    """Joins arrays: MXNet's backward of concat ends the process where oneDNN gives it blocks that it cannot cut."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.one, self.other, self.both = nn.Conv2D(8, 3, padding=1), nn.Conv2D(8, 1), nn.Conv2D(10, 3)
            self.last = nn.Dense(4)

    def hybrid_forward(self, F, data):
        return self.last(self.both(F.concat(self.one(data), self.other(data), dim=1)))


class TwoHeads(nn.HybridBlock):
    """Two convolutions read one padded array, two have the same weights; two outputs."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.first = nn.Conv2D(6, 3, padding=1, activation="tanh")
            self.one = nn.Conv2D(6, 3, padding=1, in_channels=6)
            self.same = nn.Conv2D(6, 3, padding=1, in_channels=6, params=self.one.params)
            self.grouped = nn.Conv2D(6, 3, padding=1, groups=3)
            self.pool, self.left, self.right = nn.MaxPool2D(), nn.Dense(3), nn.Dense(4)

    def hybrid_forward(self, F, data):
        begin = self.first(data)
        left = F.Activation(self.one(self.same(begin)), act_type="sigmoid")
        right = self.pool(self.grouped(begin))
        return F.Group([self.left(left), self.right(right)]) if F is mx.sym else (self.left(left), self.right(right))


class Computed(nn.HybridBlock):
    """A convolution whose weights are no parameter."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(20, 3, 3, 3))
            self.last = nn.Dense(4)

    def hybrid_forward(self, F, data, weight):
        weights = F.Activation(weight, act_type="tanh")
        return self.last(F.Convolution(data, weights, kernel=(3, 3), num_filter=20, no_bias=True))


PADDED = {
    "lenet": lambda: build_network("lenet", {}, 10),
    "mnist_cnn": lambda: build_network("mnist_cnn", {}, 10),
    "two heads": TwoHeads,
    "batch norm": lambda: chain(
        nn.Conv2D(10, 3, use_bias=False), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(),
        nn.Conv2D(32, 3, use_bias=False), nn.BatchNorm(), nn.LeakyReLU(0.2),
        nn.Conv2D(20, 3), nn.Conv2D(20, 3), nn.Dense(4),
    ),
    "strides": lambda: chain(
        nn.Conv2D(7, 3, strides=2, padding=1, activation="softsign"), nn.AvgPool2D(),
        nn.Conv2D(11, (1, 3), dilation=2), nn.Dense(4),
    ),
    "poolings": lambda: chain(
        nn.Conv2D(6, 3, activation="softrelu"), nn.MaxPool2D(3, 2, 1, ceil_mode=True),
        nn.Conv2D(12, 3, activation="relu"), nn.GlobalMaxPool2D(), nn.Dense(4),
    ),
    "other activations": lambda: chain(
        nn.Conv2D(20, 3), nn.LeakyReLU(0.1), nn.Conv2D(32, 3), nn.Conv2D(20, 3), nn.ELU(), nn.Conv2D(12, 3),
        nn.Conv2D(32, 3), nn.ELU(), nn.Dense(4),
    ),
    "more zeros than numbers": lambda: chain(
        nn.Conv2D(20, 3, activation="relu"), nn.Conv2D(2, 1), nn.Conv2D(18, 1), nn.Dense(4)
    ),
    "to many channels": lambda: chain(
        nn.Conv2D(20, 3), nn.Conv2D(32, 3, activation="tanh"), nn.Conv2D(31, 1), nn.Dense(4, flatten=False)
    ),
    "dense along rows": lambda: chain(nn.Conv2D(20, 3), nn.Conv2D(32, 3), nn.Dense(4, flatten=False)),
}  # fmt: skip
LEFT_ALONE = {
    "prelu": lambda: chain(nn.Conv2D(10, 1), nn.Conv2D(16, 3), nn.PReLU(), nn.Dense(4)),
    "batch norm over rows": lambda: chain(nn.Conv2D(20, 3), nn.Conv2D(32, 3), nn.BatchNorm(axis=2), nn.Dense(4)),
    "branches": Branches,
    "computed weights": Computed,
    "ends in a convolution": lambda: chain(nn.Conv2D(20, 3, activation="relu"), nn.Conv2D(9, 3, use_bias=False)),
    "pools over channels": lambda: chain(nn.Conv2D(20, 3), nn.MaxPool2D((3, 1), 1, (1, 0), layout="NHWC"), nn.Dense(3)),
    "slice": lambda: chain(
        nn.Conv2D(20, 3), nn.Conv2D(32, 3), nn.HybridLambda(lambda F, x: F.slice(x, (None, 5), (None, 17))), nn.Dense(4)
    ),
}
NETWORKS = {**PADDED, **LEFT_ALONE}


def settled(net, shape=(1, 3, 28, 28)):
    """Initialise a network; its graph and the shapes of its parameters."""
    mx.random.seed(2)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros(shape))
    return net(mx.sym.var("data")), {name: parameter.shape for name, parameter in net.collect_params().items()}


def made(name):
    net = NETWORKS[name]()
    return net, *settled(net)


def outcome(net, symbol):
    """The graph's arrays and, with a batch of 6, every parameter's gradient of the sum of their squares."""
    parameters = net.collect_params()
    data = mx.nd.array(np.random.default_rng(4).normal(size=(6, 3, 28, 28)))
    flags = [("static_alloc", True), ("static_shape", not symbol.list_auxiliary_states())]
    call = mx.nd.CachedOp(symbol, flags)
    arguments = [data if name == "data" else parameters[name].data() for name in symbol.list_inputs()]
    for _ in range(2):
        with mx.autograd.record():
            found = call(*arguments)
            found = found if isinstance(found, list) else [found]
            sum((one**2).mean() for one in found).backward()
    gradients = {name: p.grad().asnumpy() for name, p in parameters.items() if p.grad_req != "null"}
    return {**{f"prediction {i}": one.asnumpy() for i, one in enumerate(found)}, **gradients}


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
    _, symbol, shapes = made("two heads")
    assert widths(rewrite(symbol, shapes, 16)) == [16, 6, 6, 6]
    assert len(nodes(rewrite(symbol, shapes, 16), "slice_axis")) == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_are_padded_or_not(name):
    _, symbol, shapes = made(name)
    assert (widths(rewrite(symbol, shapes, 16)) == widths(symbol)) == (name in LEFT_ALONE)


def test_what_is_known_of_parameters_survives():
    net, symbol, shapes = made("lenet")
    net[0].weight.lr_mult = 0.5
    before, after = (one.attr_dict() for one in (symbol, rewrite(symbol, shapes, 16)))
    assert {name: after[name] for name in shapes} == {name: before[name] for name in shapes}


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
    assert widths(rewrite(*settled(chain(*net(), nn.Dense(2))), block)) == expected


def test_convolutions_of_one_and_three_dimensions_are_left_alone():
    for kind, shape in ((nn.Conv1D, (1, 3, 9)), (nn.Conv3D, (1, 3, 5, 5, 5))):
        assert widths(rewrite(*settled(chain(kind(20, 3), nn.Dense(2)), shape), 16)) == [20]


def test_the_block_is_that_of_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(rewriting.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(rewriting, "Path", lambda _: tmp_path / "cpuinfo")
    assert channel_block() == 1
    for flags, block in (("sse4_2 avx2", 8), ("avx2 avx512f avx512bw", 16), ("sse4_2", 1)):
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags} fma\n")
        assert channel_block() == block
    (tmp_path / "cpuinfo").write_text("flags: avx2\n")
    for off in ("0", "false"):
        monkeypatch.setenv("MXNET_MKLDNN_ENABLED", off)
        assert channel_block() == 1
    monkeypatch.delenv("MXNET_MKLDNN_ENABLED")
    monkeypatch.setattr(rewriting.platform, "machine", lambda: "aarch64")
    assert channel_block() == 1


@pytest.mark.parametrize(("is_on_cpu", "expected"), [(True, [32, 64]), (False, [20, 50])])
def test_a_forward_trains_the_rewritten_graph(is_on_cpu, expected, monkeypatch):
    monkeypatch.setattr("harness.gluon.forward.channel_block", lambda: 16)
    seen = []
    monkeypatch.setattr("harness.gluon.forward.rewrite", lambda *args: seen.append(rewrite(*args)) or seen[-1])
    net, symbol, _ = made("lenet")
    loss, data = mx.gluon.loss.SoftmaxCELoss(), mx.nd.random.normal(shape=(6, 3, 28, 28))
    calls = Calls(net, loss)
    forward = Forward(calls, Graph(calls, parameters_of(net)), hybridize=True, is_on_cpu=is_on_cpu)
    with mx.autograd.record():
        losses, total, _ = forward.losses(data, mx.nd.arange(6))
    assert [widths(one) for one in seen] == [expected]
    np.testing.assert_allclose(losses.asnumpy(), loss(net(data), mx.nd.arange(6)).asnumpy(), rtol=1e-5)
    np.testing.assert_allclose(total.asscalar(), losses.asnumpy().sum(), rtol=1e-6)
    assert widths(symbol) == [20, 50]
