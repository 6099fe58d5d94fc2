"""Networks that people bring: imported graphs, code that no graph shows, parameters with ideas of their own."""

from __future__ import annotations

import re

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.config import load_config
from harness.data import Batch, GlobalBatch
from harness.errors import ConfigError
from harness.gluon import Learner, UpdateOptions
from harness.gluon.graph import Graph
from harness.model.calls import Calls
from harness.model.parameters import parameters_of
from harness.train.build import build_learner
from harness.train.loop import train
from harness.train.prepare import prepare_run
from tests.programs import odd_nets

NETS = "tests.programs.odd_nets"


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train a few updates in this process and return the learner's digest, its results and what was remarked."""

    def go(network, *settings, data=f"{NETS}:pictures", np=2, start="new"):
        name = f"run-{len(list(tmp_path.iterdir()))}"
        config = load_config(
            "configs/digits.yaml",
            [
                f"data.name={data}",
                f"network={network}",
                "batch.size=8",
                "train={epochs: 4}" if data.startswith(NETS) else "train={iterations: 8}",
                "lr={base: 0.05, schedule: 1x}",
                f"output={tmp_path}",
                f"name={name}",
                "threads_per_rank=1",
                "log.tensorboard=false",
                *settings,
            ],
        )
        learners = []
        run = prepare_run(config, SingleWorld(), threads=1, emulate_np=np)

        def build(run):
            learners.append(build_learner(run))
            return learners[0]

        monkeypatch.setattr("harness.train.loop.build_learner", build)
        results = train(run, "error")
        return learners[0].digest(), results, " ".join(learners[0].remarks)

    return go


@pytest.fixture
def exported(tmp_path):
    odd_nets.export(str(tmp_path / "small"))
    return str(tmp_path / "small")


def stream(t):
    pictures = odd_nets.Pictures()
    batches = tuple(Batch(s, pictures.data[s::6].copy(), pictures.label[s::6].astype("f")) for s in (0, 1))
    return GlobalBatch(t, batches, 16)


def learner_of(net, hybridize=True, loss=None):
    loss, optimizer = loss or mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.optimizer.SGD(momentum=0.9)
    options = UpdateOptions(hybridize=hybridize)
    return Learner(net, loss, optimizer, SingleWorld(), shards=2, sample=stream(1), options=options)


OF_IMPORTS = pytest.mark.filterwarnings("ignore:Cannot decide type for the following arguments")


@OF_IMPORTS
@pytest.mark.parametrize("builder", ["imported", "imported_inside", "imported_below"])
def test_an_imported_graph_trains_and_its_statistics_are_averaged(trained, exported, builder):
    network = f"{{name: '{NETS}:{builder}', params: {{prefix: {exported}}}}}"
    digest, results, _ = trained(network)
    assert trained(network)[0] == digest
    assert results["test.accuracy"] > 0.4
    net = getattr(odd_nets, builder)(exported)
    parameters = parameters_of(net)
    statistics = {p.name for p in parameters.values() if p.grad_req == "null"}
    assert len(statistics) == 2
    assert Graph(Calls(net), parameters).statistics == statistics


@OF_IMPORTS
def test_an_imported_graph_has_the_bits_of_the_network_it_was_written_from(exported):
    original = odd_nets.small_cnn()
    original.load_parameters(exported + ".params")
    end = []
    for net in (original, odd_nets.imported(exported)):
        learner = learner_of(net)
        for t in (1, 2, 3):
            learner.update(stream(t), 0.1)
        end.append([array.tobytes() for array in learner.snapshot().parameters.values()])
    assert sorted(end[0]) == sorted(end[1])


def test_an_imported_graph_lives_on_the_devices_of_the_run(trained, exported):
    network = f"{{name: '{NETS}:imported', params: {{prefix: {exported}}}}}"
    assert trained(network, "devices=['cpu(0)', 'cpu(1)']", np=None)[0] == trained(network)[0]


UNTRACEABLE = ["ReadsShape", "AsksValue", "UsesNumpy", "LoopsOverShape", "AsksLength", "TakesFirst", "AsksMode"]


@pytest.mark.parametrize("kind", UNTRACEABLE)
def test_what_cannot_be_compiled_trains_and_says_so(trained, kind):
    data = "tests.programs.own:data"
    digest, _, said = trained(f"{{name: '{NETS}:{kind}'}}", data=data)
    assert f"network: {kind} cannot be compiled (" in said
    assert ("odd_nets.py:" in said) == (kind not in ("AsksLength", "TakesFirst", "AsksMode"))
    assert "network.hybridize: false" in said
    plainly, _, nothing = trained(f"{{name: '{NETS}:{kind}', hybridize: false}}", data=data)
    assert (plainly, nothing) == (digest, "")


def test_whoever_asks_whether_it_trains_is_compiled_for_both(trained):
    """The graph of a training update is another one than that of predictions, whichever was asked for first."""
    data = "tests.programs.own:data"
    losses = [trained(f"{{name: '{NETS}:AsksModeInside', hybridize: {on}}}", data=data)[1] for on in ("true", "false")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_what_can_be_compiled_says_nothing(trained):
    assert trained("{name: mlp}", data="tests.programs.own:data")[2] == ""


def test_a_layer_that_gluon_itself_refuses_ends_with_its_sentence(trained):
    with pytest.raises(ConfigError, match=r"ValueError: Children of HybridBlock must also be HybridBlock"):
        trained(f"{{name: '{NETS}:plain_child'}}")


@pytest.mark.parametrize("hybridize", ["true", "false"])
def test_parameters_that_compute_what_they_return_are_trained_by_what_they_hold(trained, hybridize):
    network = f"{{name: '{NETS}:Dropped', hybridize: {hybridize}}}"
    one, two = (trained(network, data="tests.programs.own:data", np=np) for np in (2, 2))
    assert one[0] == two[0]
    assert one[1] == two[1]


def test_what_a_parameter_holds_is_its_state():
    net = odd_nets.Dropped()
    net.initialize(mx.init.Xavier())
    held = net.weight._data[0].asnumpy()
    with mx.autograd.record():
        assert (net.weight.data().asnumpy() == 0).any()
    assert np.array_equal(next(iter(parameters_of(net).values()))._data[0].asnumpy(), held)


def test_a_network_that_initialises_itself_draws_from_the_runs_seed(trained):
    digests = {}
    for seed in (0, 0, 1):
        mx.random.seed(len(digests))
        np.random.seed(len(digests))
        digest = trained(f"{{name: '{NETS}:SelfMade'}}", f"seed={seed}", data="tests.programs.own:data")[0]
        digests.setdefault(seed, set()).add(digest)
    assert [len(found) for found in digests.values()] == [1, 1]
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        ("{name: 'N:VectorWeight'}", ["xavier does not suit the parameter slope of shape (12,)"]),
        ("{name: 'N:vector_inside'}", ["xavier does not suit the parameter 1.slope of shape (12,)"]),
        ("{name: 'N:vector_inside', params: {size: 0}}", ["xavier does not suit the parameter 1.slope of shape (12,)"]),
        ("{name: 'N:vector_inside', initializer: orthogonal}", ["orthogonal does not suit the parameter 1.slope"]),
        ("{name: 'N:VectorWeight', params: {init: bilinear}}", ["bilinear, which the network gives to its parameter"]),
    ],
)
def test_an_initializer_that_does_not_suit_is_told_with_its_parameter(trained, network, parts):
    with pytest.raises(ConfigError) as caught:
        trained(network.replace("N:", NETS + ":"), data="tests.programs.own:data")
    for part in parts:
        assert part in str(caught.value)
    assert "choose" in str(caught.value)


def test_a_shape_that_is_not_made_of_numbers_is_not_the_initializers_fault(trained):
    with pytest.raises(ConfigError, match=r"network\.params: they give the parameter 0\.weight the shape \('m', "):
        trained("{name: mlp, params: {hidden: many}}", data="tests.programs.own:data")


def test_the_initializer_that_is_offered_works(trained):
    network = f"{{name: '{NETS}:vector_inside', params: {{size: 0}}, initializer: {{normal: {{sigma: 0.1}}}}}}"
    trained(network, data="tests.programs.own:data")


def test_several_outputs_are_one_graph():
    class Two(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.norm, self.drop = nn.BatchNorm(), nn.Dropout(0.5)

        def hybrid_forward(self, F, x):
            return [self.norm(x), (self.drop(x), x)]

    net = Two()
    net.initialize()
    net(mx.nd.ones((2, 3)))
    graph = Graph(Calls(net), parameters_of(net))
    assert graph.refusal is None
    assert graph.random
    assert not graph.opaque
    assert {name.rpartition("_running")[2] for name in graph.statistics} == {"_mean", "_var"}


def test_ranks_average_the_statistics_of_a_graph_inside_a_block(start, exported, tmp_path):
    """They were passed over by their names, and ranks drifted apart."""
    settings = [
        f"data.name={NETS}:pictures",
        f"network={{name: '{NETS}:imported_inside', params: {{prefix: {exported}}}}}",
        "batch.size=8",
        "train={epochs: 2}",
        "lr={base: 0.05, schedule: 1x}",
        f"output={tmp_path}",
        "threads_per_rank=1",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    digests = set()
    for size, options in ((None, ["--emulate-np", "2"]), (2, [])):
        out = start("launch/train.py", "--overwrite", *options, *words, np=size, launcher="mpirun").stdout
        digests.add(re.search(r"digest ([0-9a-f]{64})", out)[1])
    assert len(digests) == 1
