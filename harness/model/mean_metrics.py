"""Named metrics that are means of one value a sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from harness.model.metric_kinds import Array, Mean, Metric, Values, class_axis


def named_means(axis: int | None) -> dict[str, Callable[..., Metric]]:
    """Builders by name.

    Args:
        axis: of predictions, along which classes lie; `None` where the shapes tell it.
    """
    is_right = _is_right(axis)
    accuracy = Mean(lambda prediction, label: _over_positions(is_right(prediction, label)), best="highest")
    error = Mean(lambda prediction, label: _over_positions(~is_right(prediction, label)), best="lowest")
    binary = Mean(lambda prediction, label: (prediction.reshape(len(label)) > 0) == (label > 0), best="highest")
    return {
        "accuracy": lambda: accuracy,
        "error": lambda: error,
        "top_5_accuracy": lambda: Mean(_in_top(5, axis), best="highest"),
        "top_k": lambda k: Mean(_in_top(_count(k), axis), best="highest"),
        "binary_accuracy": lambda: binary,
        "mae": lambda: Mean(_absolute, best="lowest"),
        "mse": lambda: Mean(_squared, best="lowest"),
        "rmse": lambda: Mean(_squared, math.sqrt, best="lowest"),
    }


def _count(k: object) -> int:
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"k is {k!r}; allowed: a whole number of at least 1")
    return k


def _in_top(k: int, axis: int | None) -> Values:
    """Whether fewer than k classes have a higher prediction than the label's: among equal ones the label wins."""

    def values(prediction: Array, label: Array) -> Array:
        along, label = _classes(prediction, label, axis)
        own = np.take_along_axis(prediction, np.expand_dims(label.astype(np.int64), along), axis=along)
        return _over_positions(np.asarray((prediction > own).sum(axis=along) < k))

    return values


def _is_right(axis: int | None) -> Values:
    def values(prediction: Array, label: Array) -> Array:
        along, label = _classes(prediction, label, axis)
        return np.asarray(prediction.argmax(axis=along) == label)

    return values


def _classes(prediction: Array, label: Array, axis: int | None) -> tuple[int, Array]:
    """The axis of classes, and labels as classes: of shares, such as mixup's, the largest."""
    along = class_axis(prediction.shape, label.shape) if axis is None else axis
    is_shares = label.shape == prediction.shape and label.dtype.kind == "f" and label.ndim > 1
    return along, np.asarray(label.argmax(axis=along)) if is_shares else label


def _over_positions(right: Array) -> Array:
    """One value a sample: the mean where every position of a sample has a label."""
    return right if right.ndim == 1 else _per_sample(right)


def _per_sample(values: Array) -> Array:
    means: Array = values.reshape(len(values), -1).mean(axis=1)
    return means


def _absolute(prediction: Array, label: Array) -> Array:
    return _per_sample(np.abs(_error(prediction, label)))


def _squared(prediction: Array, label: Array) -> Array:
    return _per_sample(_error(prediction, label) ** 2)


def _error(prediction: Array, label: Array) -> Array:
    """What predictions exceed labels by, in float64: in float32 a square can overflow, and far numbers lose digits."""
    return np.subtract(prediction.reshape(label.shape), label, dtype=np.float64)
