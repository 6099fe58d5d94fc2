"""MXNet's metrics as sums: the value of one update with everything, for any size of batch; and refused ones."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from harness.errors import ConfigError
from harness.model import build_metrics, try_metrics
from tests.gluon.ranks import evaluated

N = 131
RANDOM = np.random.default_rng(8)
SCORES, LABEL = RANDOM.normal(size=(N, 4)).astype(np.float32), RANDOM.integers(0, 4, N)
PROBABILITIES = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
TWO = SCORES[:, :2], LABEL % 2
ADDITIVE = [
    ("Accuracy", {}, (SCORES, LABEL)),
    ("Accuracy", {}, (SCORES, LABEL.astype(np.float32))),
    ("Accuracy", {"axis": 1}, (RANDOM.normal(size=(N, 4, 3)).astype(np.float32), RANDOM.integers(0, 4, (N, 3)))),
    ("TopKAccuracy", {"top_k": 2}, (SCORES, LABEL)),
    ("F1", {"average": "micro"}, TWO),
    ("MCC", {"average": "micro"}, TWO),
    ("PCC", {}, (SCORES, LABEL)),
    ("PCC", {}, (SCORES[:, :3], LABEL % 2)),  # the last class is never true
    ("Perplexity", {"ignore_label": 0}, (PROBABILITIES, LABEL)),
    ("Perplexity", {"ignore_label": None}, (PROBABILITIES, LABEL)),
    ("CrossEntropy", {}, (PROBABILITIES, LABEL)),
    ("NegativeLogLikelihood", {}, (PROBABILITIES, LABEL.astype(np.int32))),
    ("Loss", {}, (SCORES, LABEL)),
    ("Torch", {}, (SCORES, LABEL)),
    ("Caffe", {}, (SCORES, LABEL)),
]
REFUSED = [
    (
        "F1",
        {},
        "gives the mean of the batches' own values, .*; give the parameter average: micro",
    ),
    ("MCC", {}, "give the parameter average: micro"),
    ("MAE", {}, "which depends on the size of a batch; use mae"),
    ("MSE", {}, "use mse"),
    ("RMSE", {}, "use rmse"),
    ("PearsonCorrelation", {}, "do not add up over batches; use correlation"),
    ("PearsonCorrelation", {"average": "micro"}, "do not add up over batches; use correlation"),
    ("CompositeEvalMetric", {}, "is several metrics; list them one by one"),
    ("CustomMetric", {"feval": max}, "name the function itself"),
]


def test_every_metric_of_mxnet_adds_up_or_is_refused():
    known = {name for name, one in vars(mx.metric).items() if isinstance(one, type)} - {"EvalMetric", "OrderedDict"}
    known = {name for name in known if not name.startswith("_")}
    assert {name for name, *_ in [*ADDITIVE, *REFUSED]} == known


@pytest.mark.parametrize(("name", "params", "given"), ADDITIVE)
def test_a_metric_of_mxnet_has_the_value_of_one_update_with_everything(name, params, given):
    prediction, label = given
    whole = getattr(mx.metric, name)(**params)
    whole.update([mx.nd.array(label, dtype=label.dtype)], [mx.nd.array(prediction, dtype=np.float64)])

    def metrics():  # which keep a state
        return build_metrics([{f"mxnet.metric:{name}": {**params, "name": "it"}}])

    assert try_metrics(metrics(), prediction[:2], label[:2]) == {"it": ["it"]}
    for batch in (1, 7, 64, N):
        for size in (1, 2, 3):
            assert evaluated(metrics, prediction, label, batch, size)["it"] == pytest.approx(whole.get()[1], rel=1e-9)


@pytest.mark.parametrize(("name", "params", "message"), REFUSED)
def test_a_metric_that_does_not_add_up_is_refused_with_the_reason(name, params, message):
    with pytest.raises(ConfigError, match=f"evaluation.metrics: 'mxnet.metric:{name}' .*({message})"):
        build_metrics([{f"mxnet.metric:{name}": params}])


def test_a_name_without_parameters_is_enough_and_a_wrong_parameter_is_named():
    assert build_metrics(["mxnet.metric:Accuracy"])["mxnet.metric:Accuracy"].best == "highest"
    with pytest.raises(
        ConfigError, match=r"mxnet.metric:F1.averge: there is no such parameter; did you mean 'average'"
    ):
        build_metrics([{"mxnet.metric:F1": {"averge": "micro"}}])
    with pytest.raises(ConfigError, match=r"mxnet.metric:Perplexity: {} is not accepted \(TypeError: .*ignore_label"):
        build_metrics(["mxnet.metric:Perplexity"])
    with pytest.raises(ConfigError, match=r"no such name in .*metric\.py; did you mean 'Accuracy'"):
        build_metrics(["mxnet.metric:Acuracy"])


class Hits(mx.metric.EvalMetric):
    """A user's, which counts."""

    best = "highest"

    def __init__(self):
        super().__init__("hits")

    def update(self, labels, preds):
        self.sum_metric += float((preds[0].argmax(axis=1) == labels[0].astype("float64")).sum().asscalar())
        self.num_inst += labels[0].shape[0]


class BatchMean(Hits):
    """A user's, which averages over batches."""

    def update(self, labels, preds):
        self.sum_metric += float(preds[0].mean().asscalar())
        self.num_inst += 1


def test_a_class_of_the_users_own_is_tried():
    here = __name__
    metrics = build_metrics([f"{here}:Hits"])
    ((name, metric),) = metrics.items()
    assert metric.best == "highest"
    assert try_metrics(metrics, SCORES[:2], LABEL[:2]) == {name: [name]}
    assert evaluated(metrics, SCORES, LABEL)[name] == (SCORES.argmax(axis=1) == LABEL).mean()
    with pytest.raises(ConfigError, match=r"BatchMean' does not fit .*sums do not add up: number 0 is"):
        try_metrics(build_metrics([f"{here}:BatchMean"]), SCORES[:2], LABEL[:2])
