"""Metrics as sums over samples, so that batches and ranks add up to the exact mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError
from harness.named import choose, load_function

Array = npt.NDArray[Any]


class Metric(NamedTuple):
    """A mean over samples.

    Attributes:
        sample_values: maps predictions `(n, ...)` and labels `(n, ...)` to one value a sample, `(n,)`.
        finish: maps the mean to what is reported.
        best: which value is the best one; `None` where only the user knows.
    """

    sample_values: Callable[[Array, Array], Array]
    finish: Callable[[float], float] = float
    best: str | None = None


def _in_top(k: int) -> Callable[[Array, Array], Array]:
    def values(prediction: Array, label: Array) -> Array:
        own = np.take_along_axis(prediction, label.astype(np.int64)[:, None], axis=1)
        return np.asarray((prediction > own).sum(axis=1) < k)

    return values


def _accuracy(prediction: Array, label: Array) -> Array:
    return np.asarray(prediction.argmax(axis=1) == label)


def _per_sample(values: Array) -> Array:
    means: Array = values.reshape(len(values), -1).mean(axis=1)
    return means


def _like(prediction: Array, label: Array) -> Array:
    return prediction.reshape(label.shape)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(_accuracy, best="highest"),
    "error": Metric(lambda prediction, label: ~_accuracy(prediction, label), best="lowest"),
    "top_5_accuracy": Metric(_in_top(5), best="highest"),
    "binary_accuracy": Metric(
        lambda prediction, label: (prediction.reshape(len(label)) > 0) == (label > 0), best="highest"
    ),
    "mae": Metric(lambda prediction, label: _per_sample(np.abs(_like(prediction, label) - label)), best="lowest"),
    "mse": Metric(lambda prediction, label: _per_sample((_like(prediction, label) - label) ** 2), best="lowest"),
    "rmse": Metric(
        lambda prediction, label: _per_sample((_like(prediction, label) - label) ** 2), math.sqrt, best="lowest"
    ),
}


def build_metrics(names: list[str]) -> dict[str, Metric]:
    """Metrics by name, or the user's own: a `module:function` that maps predictions and labels to one value a sample.

    Raises:
        ConfigError: for an unknown name.
    """
    return {
        name: Metric(load_function(name, "evaluation.metrics"))
        if ":" in name
        else choose(name, METRICS, "evaluation.metrics")
        for name in names
    }


def try_metrics(metrics: Mapping[str, Metric], prediction: Array, label: Array) -> None:
    """Refuse a metric that cannot be computed from such predictions and labels.

    Raises:
        ConfigError: naming the metric and what it did.
    """
    for name, metric in metrics.items():
        try:
            values = np.asarray(metric.sample_values(prediction, label))
        except Exception as error:  # whatever a user's metric raises
            raise ConfigError(
                f"evaluation.metrics: {name!r} does not fit predictions {prediction.shape} and labels {label.shape} "
                f"({type(error).__name__}: {error}); choose another"
            ) from error
        if values.shape != (len(label),):
            raise ConfigError(
                f"evaluation.metrics: {name!r} gave shape {values.shape} for {len(label)} samples; one value a "
                "sample is needed"
            )
