"""Metrics as sums over samples, so that batches and ranks add up to the exact mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError
from harness.named import choose, load_function

Array = npt.NDArray[Any]
Values = Callable[[Array, Array], Array]


class Metric(NamedTuple):
    """A mean over samples.

    Attributes:
        sample_values: maps predictions `(n, ...)` and labels `(n, ...)` to one value a sample, `(n,)`.
        from_mean: maps the mean to what is reported.
        best: which value is the best one; `None` where only the user knows.
    """

    sample_values: Values
    from_mean: Callable[[float], float] = float
    best: str | None = None


def class_axis(prediction: Sequence[int], label: Sequence[int]) -> int:
    """The axis of predictions along which classes lie, by the shapes: the last one, or 1 as in pictures.

    >>> class_axis((32, 10), (32,)), class_axis((32, 10, 8, 8), (32, 8, 8)), class_axis((32, 50, 10), (32, 50))
    (-1, 1, -1)
    """
    is_last = tuple(label) == tuple(prediction[:-1])
    is_second = tuple(label) == (*prediction[:1], *prediction[2:])
    return 1 if is_second and not is_last else -1


def _in_top(k: int, axis: int | None) -> Values:
    def values(prediction: Array, label: Array) -> Array:
        along = class_axis(prediction.shape, label.shape) if axis is None else axis
        own = np.take_along_axis(prediction, np.expand_dims(label.astype(np.int64), along), axis=along)
        return _over_positions(np.asarray((prediction > own).sum(axis=along) < k))

    return values


def _is_right(axis: int | None) -> Values:
    def values(prediction: Array, label: Array) -> Array:
        along = class_axis(prediction.shape, label.shape) if axis is None else axis
        return np.asarray(prediction.argmax(axis=along) == label)

    return values


def _over_positions(right: Array) -> Array:
    """One value a sample: the mean where every position of a sample has a label."""
    return right if right.ndim == 1 else _per_sample(right)


def _per_sample(values: Array) -> Array:
    means: Array = values.reshape(len(values), -1).mean(axis=1)
    return means


def _like(prediction: Array, label: Array) -> Array:
    return prediction.reshape(label.shape)


def _metrics(axis: int | None) -> dict[str, Metric]:
    is_right = _is_right(axis)
    return {
        "accuracy": Metric(lambda prediction, label: _over_positions(is_right(prediction, label)), best="highest"),
        "error": Metric(lambda prediction, label: _over_positions(~is_right(prediction, label)), best="lowest"),
        "top_5_accuracy": Metric(_in_top(5, axis), best="highest"),
        "binary_accuracy": Metric(
            lambda prediction, label: (prediction.reshape(len(label)) > 0) == (label > 0), best="highest"
        ),
        "mae": Metric(lambda prediction, label: _per_sample(np.abs(_like(prediction, label) - label)), best="lowest"),
        "mse": Metric(lambda prediction, label: _per_sample((_like(prediction, label) - label) ** 2), best="lowest"),
        "rmse": Metric(
            lambda prediction, label: _per_sample((_like(prediction, label) - label) ** 2), math.sqrt, best="lowest"
        ),
    }


METRICS: dict[str, Metric] = _metrics(None)


def build_metrics(names: list[str], axis: int | None = None, key: str = "evaluation.metrics") -> dict[str, Metric]:
    """Metrics by name, or the user's own: a `module:function` that maps predictions and labels to one value a sample.

    Args:
        names: of metrics.
        axis: of predictions, along which classes lie; by default the shapes tell it.
        key: of the names, for messages.

    Raises:
        ConfigError: for an unknown name.
    """
    known = METRICS if axis is None else _metrics(axis)
    return {name: Metric(load_function(name, key)) if ":" in name else choose(name, known, key) for name in names}


def try_metrics(
    metrics: Mapping[str, Metric], prediction: Array, label: Array, key: str = "evaluation.metrics"
) -> None:
    """Refuse a metric that cannot be computed from such predictions and labels.

    Args:
        metrics: by name.
        prediction: of a few samples, `(n, ...)`.
        label: theirs, `(n, ...)`.
        key: of the metrics, for messages.

    Raises:
        ConfigError: naming the metric and what it did.
    """
    for name, metric in metrics.items():
        try:
            values = np.asarray(metric.sample_values(prediction, label))
        except Exception as error:  # whatever a user's metric raises
            raise ConfigError(
                f"{key}: {name!r} does not fit predictions {prediction.shape} and labels {label.shape} "
                f"({type(error).__name__}: {error}); choose another"
            ) from error
        if values.shape != (len(label),):
            raise ConfigError(
                f"{key}: {name!r} gave shape {values.shape} for {len(label)} samples; one value a sample is needed"
            )
        if values.dtype.kind not in "biuf":
            raise ConfigError(f"{key}: {name!r} gave values of type {values.dtype}; one number a sample is needed")
