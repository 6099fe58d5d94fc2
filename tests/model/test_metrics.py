"""Metrics by hand: one value a sample, and what becomes of the mean; and those that are no metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.model import Mean, Rows, Sums, build_metrics, try_metrics
from harness.model.metrics import METRICS, as_metric

SIX = np.arange(6.0)[None].repeat(3, axis=0)  # the label 0 is in the sixth place
PICTURES = np.array([[[[2, 0], [0, 2]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]]])  # one sample, three classes, 2 x 2
CASES = [
    ("accuracy", [[1, 2], [2, 1], [0, 3]], [1, 1, 1], [1, 0, 1]),
    ("accuracy", PICTURES, [[[0, 0], [1, 1]]], [0.5]),
    ("error", [[1, 2], [2, 1], [0, 3]], [1, 1, 1], [0, 1, 0]),
    ("top_5_accuracy", SIX, [0, 1, 5], [0, 1, 1]),
    ("binary_accuracy", [[0.5], [-0.5], [0.5], [-0.5]], [1, 1, 0, 0], [1, 0, 0, 1]),
    ("mae", [[1.0, 2.0], [3.0, 3.0]], [[2.0, 0.0], [3.0, 3.0]], [1.5, 0]),
    ("mse", [[1.0, 2.0], [3.0, 3.0]], [[2.0, 0.0], [3.0, 3.0]], [2.5, 0]),
    ("rmse", [[1.0], [3.0]], [3.0, 3.0], [4, 0]),
]
MEANS = {name: build_metrics([name])[name] for name in dict.fromkeys(name for name, *_ in CASES)}
NAMED = {**build_metrics([name for name in METRICS if name != "top_k"]), **build_metrics([{"top_k": {"k": 2}}])}


@pytest.mark.parametrize(("name", "prediction", "label", "values"), CASES)
def test_each_sample_has_its_value(name, prediction, label, values):
    found = MEANS[name].sample_values(np.array(prediction), np.array(label))
    assert np.asarray(found, np.float64).tolist() == values


def test_every_mean_is_here_and_only_one_changes_it():
    assert {*MEANS, "top_k"} == {name for name, metric in NAMED.items() if isinstance(metric, Mean)}
    finished = {name: metric.from_mean(4.0) for name, metric in MEANS.items()}
    assert finished == {**dict.fromkeys(MEANS, 4.0), "rmse": 2.0}


def test_the_best_value_is_known():
    best = {name: metric.best for name, metric in NAMED.items()}
    lowest = {"error", "mae", "mse", "rmse", "cross_entropy", "perplexity"}
    assert best == {name: "lowest" if name in lowest else "highest" for name in METRICS}


# Names and parameters.

OWN = """
from harness.model import Sums

class Hits:
    best = "highest"
    def __init__(self, factor=1.0):
        self.factor = factor
    def sums(self, prediction, label):
        return [(prediction.argmax(axis=1) == label).sum(), len(label)]
    def finish(self, sums):
        return self.factor * sums[0] / sums[1]

def hits(prediction, label):
    return prediction.argmax(axis=1) == label

def make(factor):
    return Hits(factor)

def several():
    return Sums(lambda p, t: [len(t)], lambda sums: {"count": sums[0]})

NUMBER = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_metrics"


def value(choice, prediction, label):
    ((name, metric),) = build_metrics([choice]).items()
    try_metrics({name: metric}, prediction, label)
    if isinstance(metric, Mean):
        return metric.from_mean(float(np.mean(metric.sample_values(prediction, label))))
    return metric.finish(np.asarray(metric.sums(prediction, label), np.float64))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("own_metrics:hits", 0.5),
        ("own_metrics:Hits", 0.5),
        ({"own_metrics:Hits": {"factor": 3}}, 1.5),
        ({"own_metrics:make": {"factor": 2}}, 1.0),
        ({"own_metrics:several": {}}, {"count": 2.0}),
        ({"own_metrics:several": None}, {"count": 2.0}),
        ({"top_k": {"k": 1}}, 0.5),
        ({"top_k": {"k": 2}}, 1.0),
    ],
)
def test_a_metric_is_a_name_or_a_name_with_its_parameters(choice, expected, own):
    assert value(choice, np.float32([[1, 0], [1, 0]]), np.array([0, 1])) == expected


def test_a_metric_may_have_another_name(own):
    choices = [
        {"top_k": {"k": 1, "name": "top_1"}},
        {"top_k": {"k": 3}},
        "f1",
        "f1",
        {"own_metrics:Hits": {"name": "hits"}},
    ]
    assert list(build_metrics(choices)) == ["top_1", "top_k", "f1", "hits"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["acuracy"], "evaluation.metrics: unknown name 'acuracy'; did you mean 'accuracy'"),
        ([{"f2": {"beta": 2}}], "unknown name 'f2'; "),
        (["top_k"], r"evaluation.metrics.top_k: {} is not accepted \(TypeError: .*'k'.*\); it takes: k"),
        ([{"top_k": {"k": 0}}], "k is 0; allowed: a whole number of at least 1"),
        ([{"top_k": {"k": 2.5}}], r"k is 2\.5; allowed"),
        ([{"f1": {"averge": "macro"}}], "f1.averge: there is no such parameter; did you mean 'average'"),
        ([{"f1": {"average": "samples"}}], "average is 'samples'; allowed: binary, macro, micro, weighted"),
        ([{"f1": {"average": "macro"}}, "f1"], "two metrics are called 'f1'; give one of them a name"),
        (["accuracy", {"f1": {"name": "accuracy"}}], "f1.name: 'accuracy' is the name of something else"),
        ([{"f1": {"name": "loss"}}], "f1.name: 'loss' is the name of something else"),
        ([{"f1": {"name": "lr"}}], "f1.name: 'lr' is the name of something else"),
        ([{"f1": {"name": ""}}], "f1.name: found ''; must be printable text"),
        ([{"f1": {"name": "a\nb"}}], r"f1.name: found 'a\\nb'; must be printable"),
        ([{"f1": {"name": 3}}], "f1.name: found 3; must be printable"),
        (["own_metrics:NUMBER"], "an int in .*own_metrics.py; .*name a function"),
        (["own_metrics:nothing"], "no such name in"),
        (["own_metrics:make.x"], "no such name in"),
    ],
)
def test_a_choice_that_is_none_is_refused(choices, message, own):
    with pytest.raises(ConfigError, match=message):
        build_metrics(choices)


class Half:
    def sums(self, prediction, label):
        return [0.0]


class Both(Half):
    def rows(self, prediction, label):
        return label

    def finish(self, found):
        return 0.0


class WrongBest(Half):
    best = "biggest"

    def finish(self, found):
        return 0.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, r"metrics: 'own' is not a function of \(predictions, labels\), nor an object with finish .*found an int"),
        (Half(), "metrics: 'own' has sums, but no finish; give it finish, and one of sums and rows"),
        (Both(), "metrics: 'own' has both sums and rows; give it finish, and one"),
        (WrongBest(), "metrics: 'own': best is 'biggest'; allowed: highest, lowest, or none"),
        (Half, "metrics: 'own' is not a function"),
    ],
)
def test_an_object_that_is_no_metric_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        as_metric(given, "own", "metrics")


# Tried with two samples before a run begins.


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            Sums(lambda p, t: [p.mean(), 1.0], lambda s: s[0] / s[1]),
            "sums do not add up: number 0 is 2 for two samples, but 4",
        ),
        (Sums(lambda p, t: p[:, 0], lambda s: s[0]), r"sums gave \(2,\) for two samples and \(1,\) for one; k never"),
        (Sums(lambda p, t: [p.median()], lambda s: s[0]), r"predictions \(2, 2\) and labels \(2,\) \(AttributeError"),
        (Sums(lambda p, t: [1.0 * len(t)], lambda s: s[1]), "'own': finish raised IndexError"),
        (Sums(lambda p, t: [1.0 * len(t)], lambda s: "x"), "metric 'own': finish gave 'x'"),
        (Rows(lambda p, t: None, len), "rows gave object without rows"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(metric, message):
    with pytest.raises(ConfigError, match=message):
        try_metrics({"own": metric}, np.float32([[1, 2], [5, 0]]), np.array([0, 1]))


def test_two_samples_for_which_a_value_is_undefined_are_no_reason():
    ratio = Sums(lambda p, t: [0.0 * len(t)], lambda sums: 1 / float(sums[0]))
    nan = Sums(lambda p, t: [0.0 * len(t)], lambda sums: {"a": math.nan, "b": 1.0})
    metrics = {**build_metrics(["roc_auc", "correlation", "mcc"]), "ratio": ratio, "nan": nan}
    found = try_metrics(metrics, np.float32([1, 2]), np.array([1, 1]))
    assert found == {"roc_auc": [], "correlation": [], "mcc": ["mcc"], "ratio": [], "nan": ["nan.a", "nan.b"]}
