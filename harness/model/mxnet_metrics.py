"""MXNet's metrics, and classes derived from them, as sums: those whose state adds up over batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from harness.errors import ConfigError
from harness.model.metric_kinds import Array, Sums, arrays_in

EvalMetric = mx.metric.EvalMetric

_MEANS = "gives the mean of the batches' own values, which depends on the size of a batch"
_REFUSED = {
    "MAE": f"{_MEANS}; use mae",
    "MSE": f"{_MEANS}; use mse",
    "RMSE": f"{_MEANS}; use rmse",
    "PearsonCorrelation": "keeps running means, which do not add up over batches; use correlation",
    "CompositeEvalMetric": "is several metrics; list them one by one",
    "CustomMetric": "calls a function; name the function itself, which gives one value a sample",
}
_HIGHEST = ("Accuracy", "TopKAccuracy", "F1", "MCC", "PCC")
_LOWEST = ("Perplexity", "CrossEntropy", "NegativeLogLikelihood")
_COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")


class _State(NamedTuple):
    """Where a metric keeps what adds up."""

    read: Callable[[Any], Array]
    value: Callable[[Any, Array], float]


def adapted(metric: Any, where: str) -> Sums:
    """The metric as sums over batches.

    Predictions reach it as float64, so that sums have little rounding; labels keep their type. Several arrays reach it
    as lists.

    Args:
        metric: an `mx.metric.EvalMetric`; its state is used up.
        where: the setting and the metric's name, for messages.

    Raises:
        ConfigError: if its state does not add up, with the reason and what to use instead.
    """
    kinds = [kind.__name__ for kind in type(metric).__mro__]
    reason = _REFUSED.get(kinds[0]) if type(metric).__module__ == mx.metric.__name__ else None
    average = getattr(metric, "average", getattr(metric, "_average", None))
    if reason is None and average == "macro":
        reason = f"{_MEANS}; give the parameter average: micro"
    if reason is not None:
        raise ConfigError(f"{where} {reason}")
    state = _state_of(kinds)

    def sums(prediction: Any, label: Any) -> Array:
        return _sums(metric, state, prediction, label)

    best = "highest" if set(kinds) & set(_HIGHEST) else "lowest" if set(kinds) & set(_LOWEST) else None
    return Sums(sums, lambda total: state.value(metric, total), getattr(metric, "best", best))


def _sums(metric: Any, state: _State, prediction: Any, label: Any) -> Array:
    predictions = [mx.nd.array(one, dtype=np.float64) for one in arrays_in(prediction)]
    labels = [mx.nd.array(one, dtype=_type_of(one)) for one in arrays_in(label)]
    if hasattr(metric, "lcm"):  # which otherwise grows with the labels of a batch
        metric.k = max(2, predictions[0].shape[-1])
    metric.reset()
    metric.update(labels, predictions)
    return state.read(metric)


def _type_of(label: Array) -> Any:
    return np.uint8 if label.dtype == bool else label.dtype


def _state_of(kinds: list[str]) -> _State:
    if "PCC" in kinds:
        return _State(lambda metric: metric.lcm.reshape(-1), _value_of_matrix)
    if "F1" in kinds:
        return _State(lambda metric: _counts(metric.metrics), lambda metric, total: _put(metric.metrics, total).fscore)
    if "MCC" in kinds:
        return _State(
            lambda metric: _counts(metric._metrics), lambda metric, total: _put(metric._metrics, total).matthewscc()
        )
    return _State(lambda metric: np.array([metric.sum_metric, metric.num_inst], np.float64), _value_of_sums)


def _counts(held: Any) -> Array:
    return np.array([getattr(held, name) for name in _COUNTS], np.float64)


def _put(held: Any, counts: Array) -> Any:
    for name, count in zip(_COUNTS, counts, strict=True):
        setattr(held, name, float(count))
    return held


def _value_of_sums(metric: Any, total: Array) -> Any:
    metric.reset()
    metric.sum_metric, metric.num_inst = total.tolist()
    return _only(metric)


def _value_of_matrix(metric: Any, total: Array) -> Any:
    metric.reset()
    metric.lcm, metric.num_inst = total.reshape(metric.k, metric.k), 1.0
    return _only(metric)


def _only(metric: Any) -> Any:
    """The value, or the values by name."""
    found = dict(metric.get_name_value())
    return found if len(found) > 1 else next(iter(found.values()))
