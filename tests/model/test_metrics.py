"""Metrics by hand: one value a sample, and what becomes of the mean."""

from __future__ import annotations

import numpy as np
import pytest

from harness.model.metrics import METRICS

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


@pytest.mark.parametrize(("name", "prediction", "label", "values"), CASES)
def test_each_sample_has_its_value(name, prediction, label, values):
    found = METRICS[name].sample_values(np.array(prediction), np.array(label))
    assert np.asarray(found, np.float64).tolist() == values


def test_every_metric_is_here_and_only_one_changes_the_mean():
    assert {name for name, *_ in CASES} == set(METRICS)
    finished = {name: metric.from_mean(4.0) for name, metric in METRICS.items()}
    assert finished == {**dict.fromkeys(METRICS, 4.0), "rmse": 2.0}


def test_the_best_value_is_known():
    best = {name: metric.best for name, metric in METRICS.items()}
    assert {name for name in best if best[name] == "highest"} == {name for name in best if name.endswith("accuracy")}
    assert {name for name in best if best[name] == "lowest"} == {"error", "mae", "mse", "rmse"}
