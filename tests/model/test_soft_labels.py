"""Smoothed labels as PyTorch has them (`tests/gluon/peers_of_average.py`), and shares of classes beside classes."""

from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import loss as losses
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.config import load_config
from harness.data import ArrayDataset, Batch, GlobalBatch, make_splits
from harness.errors import ConfigError, DataError
from harness.gluon import Learner
from harness.gluon.graph import Graph, runs_python
from harness.model.calls import Calls
from harness.model.networks import build_loss
from harness.model.parameters import parameters_of
from harness.model.soft_labels import SmoothedLoss, picks_classes
from harness.train.loop import evaluate_only, train
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions

GOLDEN = json.loads((Path(__file__).parent / "smoothing.json").read_text())
RANDOM = np.random.default_rng(0)


def array(numbers):
    return mx.nd.array(np.array(numbers, np.float32))


def in_training(loss, prediction, label):
    """Losses, and the gradient of their sum."""
    prediction.attach_grad()
    with mx.autograd.record():
        found = loss(prediction, label)
    found.backward()
    return found.asnumpy(), prediction.grad.asnumpy()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['smoothing']}")
def test_losses_and_gradients_are_pytorchs(case, compiled):
    is_soft = isinstance(case["label"][0], list)
    loss = build_loss("softmax_cross_entropy", {"sparse_label": not is_soft}, (6, 5), (6,), case["smoothing"])
    assert isinstance(loss, SmoothedLoss) == bool(case["smoothing"])
    assert picks_classes(loss) == (not is_soft)
    if compiled:
        loss.hybridize()
    found, gradient = in_training(loss, array(case["prediction"]), array(case["label"]))
    np.testing.assert_allclose(found, case["losses"], rtol=1e-5, atol=5e-6)  # float32, logarithms of another library
    np.testing.assert_allclose(gradient, case["gradient"], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize(
    ("name", "params", "label", "smoothed"),
    [
        # 0.2 of each label is spread: over 2 for the first three, over 4 classes for the last
        ("sigmoid_binary_cross_entropy", {}, [[1, 0, 1, 0.5]], [[0.9, 0.1, 0.9, 0.5]]),
        ("logistic", {}, [[1, -1, 1, 0]], [[0.8, -0.8, 0.8, 0]]),
        ("logistic", {"label_format": "binary"}, [[1, 0, 1, 0]], [[0.9, 0.1, 0.9, 0.1]]),
        ("kl_div", {"from_logits": False}, [[1, 0, 0, 0]], [[0.85, 0.05, 0.05, 0.05]]),
        ("kl_div", {"from_logits": False}, [[0.5, 0.25, 0.25, 0]], [[0.45, 0.25, 0.25, 0.05]]),
        ("softmax_cross_entropy", {"sparse_label": False, "weight": 2.0}, [[0, 1, 0, 0]], [[0.05, 0.85, 0.05, 0.05]]),
    ],
)
def test_other_losses_get_labels_that_are_smoothed_by_hand(name, params, label, smoothed):
    prediction = RANDOM.normal(size=(1, 4)).astype(np.float32)
    plain = build_loss(name, params)
    loss = build_loss(name, params, smoothing=0.2)
    expected, gradient = in_training(plain, array(prediction), array(smoothed))
    found, own = in_training(loss, array(prediction), array(label))
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    np.testing.assert_allclose(own, gradient, rtol=2e-5, atol=1e-7)
    assert (loss(array(prediction), array(label)) == plain(array(prediction), array(label))).asnumpy().all()


def test_classes_at_positions_are_smoothed_along_their_axis():
    prediction, label = RANDOM.normal(size=(2, 3, 4, 4)).astype(np.float32), RANDOM.integers(0, 3, (2, 4, 4))
    loss = build_loss("softmax_cross_entropy", {}, prediction.shape, label.shape, 0.3)
    shares = np.moveaxis(np.eye(3)[label], -1, 1) * 0.7 + 0.1
    expected = -(shares * mx.nd.log_softmax(array(prediction), axis=1).asnumpy()).sum(axis=1).mean(axis=(1, 2))
    np.testing.assert_allclose(in_training(loss, array(prediction), array(label))[0], expected, rtol=1e-5)


def learner_of(loss, label):
    net = nn.HybridSequential()
    net.add(nn.Dense(3))
    mx.random.seed(1)
    net.initialize(mx.init.Xavier())
    data = RANDOM.normal(size=(8, 4)).astype(np.float32)
    batch = GlobalBatch(1, (Batch(0, data, label),), 8)
    return Learner(net, loss, mx.optimizer.SGD(), SingleWorld(), shards=1, sample=batch), data, batch


def test_an_update_is_smoothed_compiled_and_a_prediction_is_not():
    label = np.arange(8, dtype=np.int32) % 3
    plain = losses.SoftmaxCrossEntropyLoss()
    learner, data, batch = learner_of(SmoothedLoss(plain, 0.2), label)
    prediction, found = learner.predict(data, label)
    np.testing.assert_allclose(found, plain(array(prediction), array(label)).asnumpy(), rtol=1e-6)
    smoothed, _ = in_training(SmoothedLoss(plain, 0.2), array(prediction), array(label))
    assert float(learner.update(batch, 0.1)) == pytest.approx(float(smoothed.mean()), rel=1e-6)
    assert abs(smoothed.mean() - found.mean()) > 1e-3


def test_a_smoothed_loss_is_part_of_a_compiled_graph():
    net = nn.Dense(3, in_units=4)
    net.initialize()
    calls = Calls(net, SmoothedLoss(losses.SoftmaxCrossEntropyLoss(), 0.2))
    assert not runs_python(calls)
    assert runs_python(Calls(net, lambda prediction, _: prediction.sum(axis=1)))
    graph = Graph(calls, parameters_of(net), label=np.zeros(2))
    assert (graph.has_code, graph.opaque, graph.random) == (False, False, False)


def test_classes_are_evaluated_where_shares_are_trained_on():
    classes = np.arange(8, dtype=np.int32) % 3
    loss, shares = losses.SoftmaxCrossEntropyLoss(sparse_label=False), np.eye(3, dtype=np.float32)[classes]
    learner, data, batch = learner_of(loss, shares)
    _, of_shares = learner.predict(data, batch.batches[0].label)
    _, of_classes = learner.predict(data, classes)
    assert of_classes.tolist() == of_shares.tolist()
    with pytest.raises(DataError, match=r"label 3 is not one of the classes 0 to 2, of which the network gives 3; fix"):
        learner.predict(data, classes + 1)
    with pytest.raises(DataError, match=r"label 0.5 is not one of the classes 0 to 2"):
        learner.predict(data, classes + np.float32(0.5))


def test_splits_may_have_classes_where_the_training_split_has_shares():
    data, classes = RANDOM.normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2], np.int32)
    shares = ArrayDataset(data, np.eye(3, dtype=np.float32)[classes], source="mine")
    splits = make_splits(shares, None, ArrayDataset(data, classes, source="mine"))
    assert splits.num_classes is None
    with pytest.raises(DataError, match=r"mine: label 3 of sample 2 is not in 0..2"):
        make_splits(shares, None, ArrayDataset(data, classes + 1, source="mine"))
    with pytest.raises(DataError, match=r"labels are float32, but there are 3 classes"):
        make_splits(ArrayDataset(data, classes, source="mine"), None, shares)


@pytest.fixture
def run_of(tmp_path, request):
    def build(name, *settings):
        words = [f"output={tmp_path}", f"name={name}", "batch={size: 16, shards: 2}", "train={iterations: 4}"]
        words += ["threads_per_rank=1", "checkpoint.every=null", "log.tensorboard=false", *settings]
        run = prepare_run(load_config("configs/digits.yaml", words), SingleWorld(), threads=1, start=StartOptions())
        request.addfinalizer(run.folder.close)
        return run

    return build


@pytest.mark.parametrize("collate", ["mixup", "cutmix"])
def test_mixed_and_smoothed_labels_are_trained_on_and_classes_evaluated(run_of, collate):
    metrics = "evaluation.metrics=[accuracy, cross_entropy, f1, {'mxnet.metric:TopKAccuracy': {top_k: 2}}]"
    run = run_of("mixed", f"data.collate={collate}", "network.label_smoothing=0.1", metrics)
    results = train(run, "error")
    weights = f"init.from={run.folder.path / 'final.params'}"
    assert evaluate_only(run_of("plain", weights, metrics)) == results
    lines = [json.loads(line) for line in (run.folder.path / "metrics.jsonl").read_text().splitlines()]
    unsmoothed = run_of("unsmoothed", f"data.collate={collate}", metrics)
    train(unsmoothed, "error")
    others = [json.loads(line) for line in (unsmoothed.folder.path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] != others[0]["loss"]


def test_shares_that_do_not_fit_are_refused(run_of):
    with pytest.raises(ConfigError, match=r"network.loss: 'softmax_cross_entropy' does not fit"):
        train(run_of("mixed", "data.collate=mixup", "network={name: mlp, params: {classes: 12}}"), "error")
