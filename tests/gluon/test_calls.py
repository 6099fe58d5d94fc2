"""How networks and losses are called: nested data, functions of the user's own, several outputs; what is refused."""

from __future__ import annotations

import math
import re

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness import Job
from harness.comm import SingleWorld
from harness.config import load_config
from harness.data import Batch, GlobalBatch
from harness.errors import ConfigError, DataError
from harness.gluon import Learner, UpdateOptions
from harness.gluon.graph import Graph
from harness.model.calls import Calls, on_host, structure_of
from harness.model.inputs import arguments_of, settle
from harness.model.parameters import parameters_of
from harness.train.build import build_learner
from harness.train.prepare import prepare_run
from tests.programs import clients

RANDOM = np.random.default_rng(0)
ROWS, IDS = RANDOM.normal(size=(32, 8)).astype(np.float32), RANDOM.integers(0, 10, 32)
VALUES = RANDOM.normal(size=(32, 3)).astype(np.float32)
KNOWN = np.ones((32, 3), np.uint8)


def initialised(net):
    mx.random.seed(3)
    net.initialize(mx.init.Xavier())
    return net


def tasks(rows=slice(8)):
    label = {"values": VALUES[rows], "known": KNOWN[rows], "kind": IDS[rows] % 3}
    return GlobalBatch(1, (Batch(0, {"rows": ROWS[rows], "ids": IDS[rows]}, label),), len(ROWS[rows]))


def task_learner(forward=clients.named_outputs, **options):
    return Learner(
        initialised(clients.task_net()),
        clients.mean_of_labels(),
        mx.optimizer.Adam(),
        SingleWorld(),
        shards=1,
        sample=tasks(),
        options=UpdateOptions(**options),
        forward=forward,
    )


def test_a_function_calls_network_and_loss_wherever_they_are_called():
    learner, net = task_learner(), clients.task_net()
    batch = tasks().batches[0]
    prediction, (numerators, weights) = learner.predict(batch.data, batch.label)
    assert {key: value.shape for key, value in prediction.items()} == {"values": (8, 3), "kinds": (8, 3)}
    assert numerators.shape == weights.shape == (8, 4)
    assert float(learner.update(tasks(), 0.01)) == pytest.approx(numerators.sum() / weights.sum(), rel=1e-6)
    assert net is not None


def test_the_network_of_a_function_is_compiled_and_gives_the_same():
    learners = [task_learner(hybridize=hybridize) for hybridize in (True, False)]
    losses = [[float(learner.update(tasks(), 0.01)) for _ in range(3)] for learner in learners]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert [learner.remarks for learner in learners] == [[], []]


def test_shapes_may_change_from_shard_to_shard():
    """One graph, whatever the shapes: each update is that of a network that has not seen others."""
    lengths = (3, 5, 4, 8, 3, 1)
    net, loss = initialised(nn.Dense(4, flatten=False)), lambda p, y: ((p - y["to"]) ** 2).mean(axis=(1, 2))

    def batch(length, rows=4):
        data = RANDOM.normal(size=(rows, length, 2)).astype(np.float32)
        return Batch(0, data, {"to": np.zeros((rows, length, 4), np.float32)})

    learner = Learner(net, loss, mx.optimizer.SGD(), SingleWorld(), shards=1, sample=batch(2))
    for number, length in enumerate(lengths):
        shard = batch(length, rows=1 + number % 3)
        before = {name: one.data().asnumpy() for name, one in parameters_of(net).items()}
        found = float(learner.update(GlobalBatch(number + 1, (shard,), shard.count), 0.1))
        prediction = shard.data @ before["weight"].T + before["bias"]
        assert found == pytest.approx(float((prediction**2).mean()), rel=1e-5)
        slope = 2 * prediction / (shard.count * length * 4)
        step = 0.1 * np.einsum("nlo,nli->oi", slope, shard.data)
        np.testing.assert_allclose(net.weight.data().asnumpy(), before["weight"] - step, rtol=1e-4, atol=1e-6)


class Pair(nn.HybridBlock):
    """Takes an array and a list of two, and returns a nested list."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.dense, self.norm, self.drop = nn.Dense(4), nn.BatchNorm(), nn.Dropout(0.5)

    def hybrid_forward(self, F, x, states):
        return self.drop(self.norm(self.dense(x))), [states[0] + 1, [states[1] * 2]]


def test_graphs_of_networks_that_take_and_return_lists():
    net = initialised(Pair())

    def forward(net, loss, data, label):
        prediction, (first, (second,)) = net(data[0], [data[1], data[2]])
        return prediction, loss(prediction, label) + 0 * (first + second).sum()

    calls = Calls(net, mx.gluon.loss.L2Loss(), forward)
    data, label = (mx.nd.ones((2, 3)), mx.nd.ones((2, 1)), mx.nd.ones((2, 1))), mx.nd.ones((2, 4))
    settle(calls, tuple(leaf.asnumpy() for leaf in data), label.asnumpy(), mx.cpu())
    arguments = arguments_of(calls, data, label)
    assert structure_of(arguments) == "(.,(.,.))"
    graph = Graph(calls, parameters_of(net), arguments, label)
    assert graph.refusal is None
    assert len(graph.statistics) == 2
    assert graph.random
    assert graph.opaque
    assert len(graph.symbol.list_outputs()) == 3


def test_a_function_that_calls_parts_of_a_network():
    net = initialised(nn.HybridSequential())
    net.add(nn.Dense(8, activation="relu"), nn.BatchNorm(), nn.Dense(3))
    net.initialize(mx.init.Xavier())

    def forward(net, loss, data, label):
        prediction = net[2](net[1](net[0](data)))
        return prediction, loss(prediction, label)

    sample = GlobalBatch(1, (Batch(0, ROWS[:8], IDS[:8] % 3),), 8)
    pick = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    learner = Learner(net, pick, mx.optimizer.SGD(), SingleWorld(), shards=1, sample=sample, forward=forward)
    assert "network.forward calls parts of it" in learner.remarks[0]
    before = net[1].running_mean.data().asnumpy()
    learner.update(sample, 0.1)
    assert (net[1].running_mean.data().asnumpy() != before).any()


def test_what_metrics_are_given():
    ones = mx.nd.ones(2)
    found = on_host([ones, {"a": (ones, ones)}])
    assert isinstance(found, tuple)
    assert [type(found[0]), type(found[1]["a"]), type(found[1]["a"][0])] == [np.ndarray, tuple, np.ndarray]


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (None, r"network.forward: data is a dict \('rows', 'ids'\), which a network cannot be called with; name a"),
        (
            lambda net, loss, x, y: net(x["rows"], x["ids"]),
            r"returned \(float32 \(2, 3\), float32 \(2, 3\)\)|one value",
        ),
        (
            lambda net, loss, x, y: net(x["rows"], x["ids"])[0],
            r"network.forward: returned float32 \(2, 3\); return \(pred",
        ),
        (lambda net, loss, x, y: 1 / 0, "division by zero"),
    ],
)
def test_functions_that_cannot_be_used(forward, said):
    with pytest.raises((ConfigError, ZeroDivisionError), match=said):
        task_learner(forward)


def test_a_function_needs_labels():
    with pytest.raises(ConfigError, match=r"sample: network\.forward takes labels as well; give a batch"):
        Learner(
            initialised(clients.task_net()),
            clients.mean_of_labels(),
            mx.optimizer.SGD(),
            SingleWorld(),
            shards=1,
            sample=tasks().batches[0].data,
            forward=clients.named_outputs,
        )


def test_a_job_is_given_a_function():
    data = {"rows": ROWS, "ids": IDS}, {"values": VALUES, "known": KNOWN, "kind": IDS % 3}
    net = initialised(clients.task_net())
    options = {"train": data, "batch": 8, "lr": 0.01, "iterations": 4}
    with Job(net, clients.mean_of_labels(), "adam", forward=clients.named_outputs, **options) as job:
        losses = [float(job.update(t)) for t in job]
        assert all(map(math.isfinite, losses))

        def right(prediction, label):
            return prediction["kinds"].argmax(axis=1) == label["kind"]

        assert 0 <= job.evaluate(data, {"right": right})["right"] <= 1
        digest = job.learner.digest()
        job.find_lr()
        assert job.learner.digest() == digest
    with pytest.raises(ConfigError, match="forward: found an int; give a function"):
        Job(net, clients.mean_of_labels(), "adam", forward=3, **options)
    uneven = {"rows": ROWS, "ids": IDS[:5]}, data[1]
    with (
        pytest.raises(DataError, match=r"train: data\['ids'\] has shape \(5,\) and label\['values'\] \(32, 3\)"),
        Job(net, clients.mean_of_labels(), "adam", forward=clients.named_outputs, **{**options, "train": uneven}),
    ):
        pass


def configured(tmp_path, name, *settings):
    words = [*clients.settings_of(name), f"output={tmp_path}", *settings]
    run = prepare_run(load_config("configs/digits.yaml", words), SingleWorld(), threads=1)
    try:
        return build_learner(run)
    finally:
        run.folder.close()


@pytest.mark.parametrize(
    ("name", "setting", "said"),
    [
        ("tasks", "network.forward=null", r"network.forward: data is a dict \('rows', 'ids'\)"),
        ("tasks", "network.forward=nothing", r"network.forward: .*must be package.module:function"),
        ("tasks", f"network.forward={clients.HERE}:with_labels", "no such name in .*did you mean 'with_label'"),
        ("tasks", "network.loss=l2", "does not fit|does not take"),
        (
            "fcn",
            "network.loss=softmax_cross_entropy",
            r"one array of predictions with one of labels; .* gives \(float32 \(",
        ),
        ("fcn", "evaluation.metrics=[accuracy]", "'accuracy' does not fit predictions"),
        ("factors", "network.name=mlp", r"does not take samples of \(int64 \(\), int32 \(\)\)"),
        ("triplets", f"network.forward={clients.HERE}:with_label", "does not take samples of shape"),
        ("arcface", "data.augment.flip=true", "augmentation: pad_crop and flip need images"),
        ("factors", "data.augment.mean=[1]", "apply to one input, but samples have 2"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, name, setting, said):
    with pytest.raises((ConfigError, DataError), match=re.compile(said, re.DOTALL)):
        configured(tmp_path, name, setting)


def counting(what):
    """A function or a loss that counts its calls: in what it predicts, or in its weights alone."""
    calls, inner = [], clients.mean_of_labels()

    def forward(net, loss, data, label):
        calls.append(1)
        values, kinds = net(data["rows"], data["ids"])
        prediction = {"values": values * (1 + len(calls) * (what == "prediction")), "kinds": kinds}
        numerators, weights = inner(prediction, label)
        return prediction, (numerators, weights * (1 + len(calls) * (what == "weights")))

    return forward


@pytest.mark.parametrize("what", ["prediction", "weights"])
def test_a_function_that_keeps_state_is_refused(what):
    with pytest.raises(ConfigError, match="gives other losses for the same samples, weights and seed in its second"):
        task_learner(counting(what))


def test_random_numbers_of_a_function_follow_the_seed():
    def noisy(net, loss, data, label):
        rows = data["rows"] + mx.nd.random.normal(shape=data["rows"].shape) + float(np.random.normal())
        return clients.named_outputs(net, loss, {**data, "rows": rows}, label)

    found = []
    for seed in (0, 1):
        learner = task_learner(noisy)
        mx.random.seed(seed)
        np.random.seed(seed)
        found.append([float(learner.update(tasks(), 0.01)) for _ in range(2)])
    assert found[0] == found[1]
    assert found[0] != [float(task_learner().update(tasks(), 0.01)) for _ in range(2)]


def test_a_job_without_any_weight_saves_and_resumes(tmp_path):
    def weightless(prediction, label):
        return prediction.sum(axis=1), 0 * prediction.sum(axis=1)

    digests = []
    for _ in range(2):
        net = initialised(nn.Dense(3))
        options = {"train": (ROWS, IDS), "batch": 8, "lr": 0.1, "iterations": 4, "folder": tmp_path / "job"}
        with Job(net, weightless, "sgd", **options) as job:
            if job.resume() == 0:
                assert math.isnan(float(job.update(1)))
                job.save()
                digests.append(job.learner.digest())
            for t in job:
                job.update(t)
            digests.append(job.learner.digest())
    assert len(digests) == 3
    assert len(set(digests)) == 1
