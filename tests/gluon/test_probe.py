"""Networks and losses are tried before the first update: what is no function, or not derived, is refused by name."""

from __future__ import annotations

import random
import sys

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn, rnn

from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import ConfigError
from harness.gluon import Learner, UpdateOptions
from tests.programs import impure, odd_nets, own

RANDOM = np.random.default_rng(0)
DATA, LABEL = RANDOM.normal(size=(16, 12)).astype("f"), RANDOM.integers(0, 4, 16).astype("f")
CROSS_ENTROPY = mx.gluon.loss.SoftmaxCrossEntropyLoss


def stream(t):
    return GlobalBatch(t, tuple(Batch(s, DATA[s::2].copy(), LABEL[s::2].copy()) for s in (0, 1)), 16)


def learner_of(net, loss=None, sample=None, **options):
    mx.random.seed(5)
    net.initialize(mx.init.Xavier())
    return Learner(
        net,
        loss or CROSS_ENTROPY(),
        mx.optimizer.SGD(),
        SingleWorld(),
        shards=2,
        sample=stream(1) if sample is None else sample,
        options=UpdateOptions(**options),
    )


def dense():
    net = nn.HybridSequential()
    net.add(nn.Dense(8, activation="relu"), nn.Dense(4))
    return net


@pytest.mark.parametrize("hybridize", [True, False])
@pytest.mark.parametrize(
    ("net", "which"),
    [
        (impure.Counts, "Counts gives other losses"),
        (impure.Averages, "Averages gives other losses"),
        (impure.LastBatch, "LastBatch gives other losses"),
        (impure.OwnGenerator, "OwnGenerator gives other losses"),
        (impure.KeepsHidden, "KeepsHidden gives other losses"),
        (impure.Below, "'middle' (Counts) gives other losses"),
    ],
)
def test_a_network_that_keeps_state_is_refused(net, which, hybridize):
    with pytest.raises(ConfigError) as caught:
        learner_of(net(), hybridize=hybridize)
    for part in (which, "keeps state outside its parameters", "seeded for every shard", "grad_req 'null'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("net", [impure.CountsTraces, impure.KeepsSymbol])
def test_one_that_keeps_state_while_it_is_traced_as_well(net):
    with pytest.raises(ConfigError, match=f"{net.__name__} builds a different graph at every call"):
        learner_of(net())
    with pytest.raises(ConfigError, match=f"{net.__name__} gives other losses"):
        learner_of(net(), hybridize=False)


@pytest.mark.parametrize(
    ("net", "loss"), [(impure.DrawsAsItGoes, None), (impure.DrawsUnseen, None), (dense, impure.drawing_loss)]
)
def test_numbers_that_traced_code_draws_follow_the_seed(net, loss):
    """Where the code runs at every call; a compiled network would keep its first number."""
    digests = set()
    for begin in (1, 2):
        learner = learner_of(net(), loss and loss(), hybridize=loss is not None)
        np.random.seed(begin)
        for t in (1, 2, 3):
            learner.update(stream(t), 0.1)
        digests.add(learner.digest())
    assert len(digests) == 1
    if net is impure.DrawsAsItGoes:
        with pytest.raises(ConfigError, match=r"builds a different graph at every call.* draws a number"):
            learner_of(net())


def test_a_loss_that_keeps_state_is_refused():
    with pytest.raises(ConfigError, match="gives other losses"):
        learner_of(dense(), impure.counting_loss())


def test_weights_that_the_forward_pass_writes_are_named():
    with pytest.raises(ConfigError, match=r"writes to dense\.weight, which the optimizer trains"):
        learner_of(impure.WritesWeights())


@pytest.mark.parametrize("net", [impure.Draws, own.NumpyNoise, own.Unrolled, impure.DoublesGradient, odd_nets.Dropped])
def test_what_is_a_function_of_its_seed_trains(net):
    for hybridize in (True, False):
        learner = learner_of(net(), hybridize=hybridize)
        learner.update(stream(1), 0.1)
        learner.check_pending()


def test_state_in_a_parameter_is_averaged_whatever_its_name():
    """Two shards on one process, or their mean by hand: the average is that of both."""
    learner = learner_of(impure.SumsInParameter())
    assert not learner.snapshot().parameters["average"].any()
    learner.update(stream(1), 0.1)
    expected = np.mean([0.1 * DATA[s::2].mean(axis=0) for s in (0, 1)], axis=0)
    np.testing.assert_allclose(learner.snapshot().parameters["average"][0], expected, rtol=1e-4, atol=1e-7)


def test_statistics_gradients_and_generators_are_put_back():
    class Normed(impure.Own):
        def begin(self):
            self.norm = nn.BatchNorm(in_channels=12)

        def forward(self, x):
            return self.dense(self.norm(x))

    np.random.seed(3)
    random.seed(3)
    expected = np.random.rand(), random.random()
    np.random.seed(3)
    random.seed(3)
    net = Normed()
    learner = learner_of(net)
    assert (np.random.rand(), random.random()) == expected
    state = learner.snapshot().parameters
    assert not state["norm.running_mean"].any()
    assert (state["norm.running_var"] == 1).all()
    assert not any(p.grad().asnumpy().any() for p in learner.parameters.values() if p.grad_req != "null")


HEADS = [
    "SoftmaxOutput",
    "LinearRegressionOutput",
    "LogisticRegressionOutput",
    "MAERegressionOutput",
    "SVMOutput",
    "MakeLoss",
    "make_loss",
]


@pytest.mark.parametrize("hybridize", [True, False])
@pytest.mark.parametrize("kind", HEADS)
def test_a_loss_that_ignores_its_head_gradient_is_refused_by_the_operators_name(kind, hybridize):
    with pytest.raises(ConfigError) as caught:
        learner_of(dense(), impure.FromOutput(kind), hybridize=hybridize)
    assert f"the operator {kind} (" in str(caught.value)
    assert "does not pass on the gradient that comes from above" in str(caught.value)
    assert "instead" in str(caught.value)


def test_so_is_one_inside_the_network():
    with pytest.raises(
        ConfigError, match=r"the operator SoftmaxOutput \(.*use mx\.gluon\.loss\.SoftmaxCrossEntropyLoss"
    ):
        learner_of(impure.hidden_in_network())
    with pytest.raises(ConfigError, match=r"the operator IdentityAttachKLSparseReg \(.*a penalty that is added"):
        learner_of(impure.Sparse())


@pytest.mark.parametrize("hybridize", [True, False])
@pytest.mark.parametrize(
    ("net", "kind"),
    [
        (impure.SoftmaxHead, "SoftmaxOutput"),
        (impure.SoftmaxCall, "SoftmaxOutput"),
        (impure.SVMHead, "SVMOutput"),
        (impure.hidden_in_network, "SoftmaxOutput"),
    ],
)
def test_before_a_backward_through_it_ends_the_process(net, kind, hybridize, monkeypatch):
    monkeypatch.setattr(mx.nd.NDArray, "backward", lambda *_: pytest.fail("a backward was run"))
    with pytest.raises(ConfigError, match=rf"the operator {kind} \(.*does not pass on the gradient"):
        learner_of(net(), hybridize=hybridize)


@pytest.mark.parametrize("hybridize", [True, False])
def test_one_that_reaches_no_weight_is_no_fault(hybridize):
    learner_of(impure.Shows(), hybridize=hybridize).update(stream(1), 0.1)


def test_and_operators_of_ones_own():
    with pytest.raises(ConfigError, match=r"an operator of your own \(Custom\) \(headless"):
        learner_of(dense(), impure.Headless())
    with pytest.raises(ConfigError, match=r"a mx\.autograd\.Function of your own .*make its backward linear"):
        learner_of(impure.ClipsGradient())


@pytest.mark.parametrize(
    ("loss", "ends"),
    [(impure.Accuracy, "not_equal"), (impure.Blocked, "BlockGrad"), (lambda: impure.blocked_by_hand, "taken out")],
)
def test_a_loss_that_leads_to_no_weight_is_refused(loss, ends):
    with pytest.raises(ConfigError, match=rf"no gradient reaches any weight, because .*{ends}"):
        learner_of(dense(), loss())


def test_gradients_that_happen_to_be_zero_are_no_fault():
    class Dead(impure.Own):
        def forward(self, x):
            return mx.nd.relu(self.dense(x) - 1000)

    learner_of(Dead()).update(stream(1), 0.1)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_layer_that_synchronises_devices_is_refused_by_its_name(num_devices):
    with pytest.raises(ConfigError, match=r"the layer 0\.1 \(contrib\.nn\.SyncBatchNorm\).*use nn\.BatchNorm"):
        learner_of(impure.sync_layer(num_devices))


@pytest.mark.filterwarnings("ignore:Cannot decide type for", "ignore:Parameter .* is already initialized")
@pytest.mark.parametrize("wrap", [lambda net: net, odd_nets.Holder])
def test_so_is_the_operator_in_an_imported_graph(wrap):
    data = mx.sym.var("data")
    normed = mx.sym.contrib.SyncBatchNorm(mx.sym.FullyConnected(data, num_hidden=4, name="first"), key="k", name="norm")
    net = mx.gluon.SymbolBlock(normed, data)
    net.initialize(mx.init.Normal())
    net(mx.nd.zeros((1, 12)))
    with pytest.raises(ConfigError, match=r"the operator SyncBatchNorm \(norm"):
        learner_of(wrap(net))


@pytest.mark.parametrize("hybridize", [True, False])
@pytest.mark.parametrize(
    ("net", "which"),
    [
        (impure.sync_operator, r"SyncBatchNorm \(in 0, SyncOperator\) synchronises"),
        (impure.SyncCall, r"mx\.nd\.contrib\.SyncBatchNorm \(in SyncCall\) synchronises"),
        (impure.SyncBound, r"the operator SyncBatchNorm \("),
        (impure.AsksStore, r"KVStore\.init \(in AsksStore\) was called in the forward pass"),
        (impure.Placed, r"is placed on the devices of group 'second'"),
    ],
)
def test_so_are_operators_and_calls(net, which, hybridize):
    with pytest.raises(ConfigError, match=which):
        learner_of(net(), hybridize=hybridize)
    assert mx.nd.contrib.SyncBatchNorm.__name__ == "SyncBatchNorm"  # as it was


def test_a_collective_of_the_networks_own_is_refused(monkeypatch):
    class Module:
        allreduce = staticmethod(lambda x: x)

    class Reduces(impure.Own):
        def forward(self, x):
            return self.dense(sys.modules["horovod.mxnet"].allreduce(x))

    monkeypatch.setitem(sys.modules, "horovod.mxnet", Module)
    with pytest.raises(ConfigError, match=r"hvd\.allreduce \(in Reduces\) was called in the forward pass"):
        learner_of(Reduces())


def test_what_raises_in_training_alone_is_told_before_the_first_update():
    class Raises(impure.Own):
        def forward(self, x):
            if mx.autograd.is_training():
                raise KeyError("temperature")
            return self.dense(x)

    with pytest.raises(ConfigError, match=r"Raises or its loss raised KeyError .*'temperature', at test_probe\.py:"):
        learner_of(Raises())


class Forwards(nn.HybridSequential):
    """Counts training forwards that run as code."""

    count = 0

    def forward(self, x):
        Forwards.count += mx.autograd.is_training()
        return super().forward(x)


def test_networks_of_mxnets_own_layers_are_not_run(monkeypatch):
    calls, record = [], mx.autograd.record
    monkeypatch.setattr(mx.autograd, "record", lambda *options: calls.append(options) or record(*options))
    learner_of(dense())
    learner_of(dense(), hybridize=False)
    assert not calls
    learner_of(impure.Draws())
    assert calls


def test_a_network_is_run_twice_and_no_more():
    """Those that end the process in their third forward are tests of other things."""

    class Exits(own.Exits):
        pass

    learner = learner_of(Exits())
    with pytest.raises(SystemExit):
        learner.update(stream(1), 0.1)


def test_without_labels_the_network_is_tried_alone():
    with pytest.raises(ConfigError, match="gives other losses"):
        learner_of(impure.Counts(), sample=DATA[:2])
    learner_of(dense(), impure.counting_loss(), sample=DATA[:2])


class InSteps(mx.gluon.Block):
    """Recurrent layers in Python that MXNet cannot trace."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, data):
        return self.layers(data.reshape((-1, 4, 3)))[:, -1]


@pytest.mark.parametrize("is_traced", [True, False])
@pytest.mark.parametrize("cls", [rnn.LSTM, rnn.GRU])
def test_recurrent_layers_whose_gradients_would_be_wrong(cls, is_traced, monkeypatch):
    def net(number):
        layers = cls(4, number, layout="NTC", input_size=3)
        if not is_traced:
            return InSteps(layers)
        found = nn.HybridSequential()
        found.add(nn.HybridLambda(lambda f, x: f.reshape(x, (-1, 4, 3))), layers)
        found.add(nn.HybridLambda(lambda f, x: f.squeeze(f.slice_axis(x, axis=1, begin=-1, end=None), axis=1)))
        return found

    learner_of(net(2))
    monkeypatch.setenv("MXNET_USE_MKLDNN_RNN", "0")
    learner_of(net(1))
    with pytest.raises(ConfigError, match=r"RNN \(.*\) has 2 layers, and MXNET_USE_MKLDNN_RNN=0 is set, .* unset"):
        learner_of(net(2))
