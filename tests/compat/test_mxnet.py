"""MXNet with scalars of NumPy where it passes text to C++, and its code that uses what NumPy has removed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from mxnet.gluon.contrib.estimator import EarlyStoppingHandler
from mxnet.recordio import IRHeader, MXIndexedRecordIO, pack, pack_img, unpack

INTEGERS = [np.int64, np.int32, np.uint8]
RATES = [np.float64, np.float32]
INPUT = mx.nd.array(np.random.default_rng(1).normal(size=(2, 3, 8, 8)))


@pytest.mark.parametrize("integer", INTEGERS)
def test_shapes_and_other_tuples_of_operators(integer):
    two, three = integer(2), integer(3)
    assert mx.nd.zeros((two, three)).shape == (2, 3)
    assert mx.nd.zeros(shape=[two, three]).shape == (2, 3)
    assert mx.nd.arange(6).reshape((two, three)).shape == (2, 3)
    assert mx.nd.reshape(INPUT, shape=(two, -1)).shape == (2, 192)
    assert mx.nd.transpose(INPUT, axes=(integer(1), integer(0), two, three)).shape == (3, 2, 8, 8)
    assert mx.nd.slice(INPUT, begin=(integer(0), integer(1)), end=(two, two)).shape == (2, 1, 8, 8)
    assert mx.nd.moveaxis(INPUT, integer(1), integer(3)).shape == (2, 8, 8, 3)
    assert mx.nd.sum(INPUT, axis=(two, three)).shape == (2, 3)
    pooled = mx.nd.Pooling(INPUT, kernel=(two, two), stride=(two, integer(1)), pool_type="max")
    assert pooled.shape == (2, 3, 4, 7)
    assert mx.np.ones((two, three)).shape == (2, 3)
    assert mx.np.pad(mx.np.ones((2, 2)), ((integer(1), 0), (0, two)), mode="constant").shape == (3, 4)


def network(number, rate):
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(
            nn.Conv2D(number(4), kernel_size=(number(3), number(3)), padding=(number(1), number(1))),
            nn.BatchNorm(axis=number(1), momentum=rate(0.5), epsilon=rate(1e-3)),
            nn.LeakyReLU(rate(0.25)),
            nn.MaxPool2D(pool_size=(number(2), number(2))),
            nn.Dropout(rate(0.5)),
            nn.Dense(number(5), in_units=number(64)),
        )
    return net


def outputs(net, hybridize):
    mx.random.seed(3)
    net.initialize(mx.init.Xavier(magnitude=2))
    if hybridize:
        net.hybridize(static_alloc=True)
    with mx.autograd.record():
        output = net(INPUT)
        output.backward()
    return output.asnumpy().tobytes()


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("floating", RATES)
def test_sizes_of_layers_and_rates_of_dropout(integer, floating, hybridize):
    """A power of two is the same number in any precision; so are the bits."""
    plain = outputs(network(int, lambda value: float(floating(value))), hybridize)
    assert outputs(network(integer, floating), hybridize) == plain


def test_another_thread():
    """What NumPy prints can be set for one thread alone."""

    def compute():
        return mx.nd.zeros((np.int64(2), np.int64(3))).shape, outputs(network(np.int64, np.float64), hybridize=True)

    with ThreadPoolExecutor(1) as pool:  # one: MXNet does not compute gradients in several threads at a time
        shape, found = pool.submit(compute).result(timeout=60)
    assert shape == (2, 3)
    assert found == outputs(network(int, float), hybridize=True)


@pytest.mark.parametrize("integer", INTEGERS)
def test_symbols(integer):
    data = mx.sym.var("data", shape=(integer(2), integer(3)), lr_mult=np.float32(0.5), wd_mult=np.float64(2))
    attributes = data.attr_dict()["data"]
    assert attributes["__shape__"] == "(2, 3)"
    assert (attributes["__lr_mult__"], attributes["__wd_mult__"]) == ("0.5", "2.0")
    flat = mx.sym.reshape(data, shape=(integer(3), integer(2)))
    hidden = mx.sym.FullyConnected(flat, num_hidden=integer(4), name="dense")
    _, (found,), _ = hidden.infer_shape()
    assert found == (3, 4)
    assert "np." not in hidden.tojson()
    executor = hidden.simple_bind(mx.cpu(), data=(integer(2), integer(3)))
    assert executor.forward()[0].shape == (3, 4)


def updated(name, number):
    """The bits of two weights after three updates; several weights are updated by one operator where there is one."""
    optimizer = mx.optimizer.create(name, learning_rate=number(0.125), wd=number(0.5), rescale_grad=number(0.25))
    updater = mx.optimizer.get_updater(optimizer)
    random = np.random.default_rng(5)
    weights = [mx.nd.array(random.normal(size=shape)) for shape in ((3, 4), (5, 1))]
    mx.random.seed(1)
    for _ in range(3):
        updater([0, 1], [mx.nd.array(random.normal(size=weight.shape)) for weight in weights], weights)
    return [weight.asnumpy().tobytes() for weight in weights]


NOT_ON_CPU = ("dcasgd", "groupadagrad")  # the one fails on any NumPy, the other is for sparse gradients


@pytest.mark.parametrize("floating", RATES)
@pytest.mark.parametrize("name", sorted(set(mx.optimizer.Optimizer.opt_registry) - {*NOT_ON_CPU, "test"}))
def test_optimizers(name, floating):
    assert updated(name, floating) == updated(name, float)


def test_iterators(tmp_path):
    np.savetxt(tmp_path / "data.csv", np.arange(12).reshape(4, 3), delimiter=",")
    batches = mx.io.CSVIter(
        data_csv=str(tmp_path / "data.csv"), data_shape=(np.int64(3),), batch_size=np.int64(2), round_batch=False
    )
    assert [batch.data[0].shape for batch in batches] == [(2, 3), (2, 3)]


@pytest.mark.parametrize(
    "label",
    [[1, 2.5, 3], (1, 2.5, 3), np.array([1, 2.5, 3]), np.array([1, 2.5, 3], np.float32), np.array([[1, 2.5, 3]])],
    ids=["list", "tuple", "float64", "float32", "two dimensions"],
)
def test_records_with_several_labels(label):
    packed = pack(IRHeader(7, label, 5, 0), b"content")
    header, content = unpack(packed)
    assert (header.flag, header.id, content) == (3, 5, b"content")
    np.testing.assert_array_equal(header.label, np.array([1, 2.5, 3], np.float32))
    assert packed[-19:-7] == np.array([1, 2.5, 3], np.float32).tobytes()


@pytest.mark.parametrize("number", [int, float, np.float32, np.int64])
def test_records_with_a_number(number, tmp_path):
    index, records = str(tmp_path / "a.idx"), str(tmp_path / "a.rec")
    written = MXIndexedRecordIO(index, records, "w")
    for key in range(3):
        written.write_idx(key, pack(IRHeader(0, number(key), key, 0), bytes([key])))
    written.close()
    header, content = unpack(MXIndexedRecordIO(index, records, "r").read_idx(2))
    assert (header.flag, header.label, header.id, content) == (0, 2.0, 2, b"\x02")


def test_records_with_a_picture(monkeypatch):
    """With a stand-in for OpenCV, which need not be there."""

    class Opencv:
        IMWRITE_JPEG_QUALITY = 1

        @staticmethod
        def imencode(*_):
            return True, np.array([[1], [2]], np.uint8)

    monkeypatch.setattr(mx.recordio, "cv2", Opencv)
    header, content = unpack(pack_img(IRHeader(0, [4.0, 5.0], 0, 0), np.zeros((2, 2, 3))))
    assert (list(header.label), content) == ([4, 5], b"\x01\x02")


@pytest.mark.filterwarnings("ignore:Cannot decide type:UserWarning")  # of MXNet, about every exported network
def test_networks_are_saved_and_loaded(tmp_path):
    net = network(np.int64, np.float64)
    mx.random.seed(3)
    net.initialize(mx.init.Xavier())
    net.hybridize()
    expected = net(INPUT).asnumpy()
    net.save_parameters(str(tmp_path / "a.params"))
    net.export(str(tmp_path / "a"))
    other = network(int, float)
    other.load_parameters(str(tmp_path / "a.params"))
    np.testing.assert_array_equal(other(INPUT).asnumpy(), expected)
    imported = mx.gluon.SymbolBlock.imports(str(tmp_path / "a-symbol.json"), ["data"], str(tmp_path / "a-0000.params"))
    np.testing.assert_array_equal(imported(INPUT).asnumpy(), expected)


def test_printed_arrays():
    assert repr(mx.nd.array([1, 2.5])) == "\n[1.  2.5]\n<NDArray 2 @cpu(0)>"
    assert str(mx.nd.array([1]).asscalar()) == "1.0"
    assert repr(mx.np.array([1, 2.5])) == "array([1. , 2.5])"
    assert repr(mx.np.array([1, 2], dtype="int32")) == "array([1, 2], dtype=int32)"


def test_names_that_are_used_late(monkeypatch):
    handler = EarlyStoppingHandler(mx.metric.Loss(), mode="min")
    handler.train_begin(None)
    assert handler.best == np.inf
    stand_in = SimpleNamespace(chisquare=lambda f_obs, f_exp: (0, 1))  # for SciPy, which need not be there
    monkeypatch.setattr(mx.test_utils, "ss", stand_in)
    counts = mx.test_utils.chi_square_check(lambda n: np.arange(n) % 2, [0, 1], [0.5, 0.5], nsamples=1000)[1]
    assert list(counts) == [500, 500]
    mask = mx.np.array([True, False, True, False], dtype=mx.np.bool)
    assert mask.dtype == mx.np.bool
    np.testing.assert_array_equal(mx.np.arange(4)[mask].asnumpy(), [0, 2])
    for name in ("in1d", "msort", "trapz", "alltrue"):
        assert callable(getattr(mx.np, name))


def test_numpys_functions_reach_mxnets():
    """By the protocol for which MXNet wants names that NumPy has removed."""
    array = mx.np.array([[1.0, 2.0], [3.0, 4.0]])
    assert isinstance(np.mean(array), mx.np.ndarray)
    assert isinstance(np.concatenate([array, array]), mx.np.ndarray)
    assert isinstance(np.add(array, array), mx.np.ndarray)
    found = mx.np.in1d(array, mx.np.array([2.0, 3.0]))  # one of those that are NumPy's own, put to work on MXNet's
    assert isinstance(found, mx.np.ndarray)
    assert found.asnumpy().tolist() == [False, True, True, False]


@mx.util.use_np
def test_results_of_numpy_that_have_names():
    array = mx.np.array([[1.0, 2.0], [3.0, 4.0]])
    q, r = mx.np.linalg.qr(array)
    assert isinstance(q, mx.np.ndarray)
    np.testing.assert_allclose(mx.np.dot(q, r).asnumpy(), array.asnumpy(), rtol=1e-6)
