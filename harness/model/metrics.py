"""Metrics by name, of the user's own, and of MXNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.errors import ConfigError, DataError
from harness.model.mean_metrics import named_means
from harness.model.metric_kinds import Mean, Metric, Reported, Rows, Sums, Values, class_axis
from harness.model.metric_values import try_metrics
from harness.model.mxnet_metrics import EvalMetric, adapted
from harness.model.sum_metrics import named_sums
from harness.named import brief, call, choose, kind_of, load_function, name_and_params

__all__ = ["METRICS", "Mean", "Metric", "Rows", "Sums", "Values", "build_metrics", "class_axis", "try_metrics"]

_TAKEN = ("loss", "split", "iteration", "epoch", "lr", "momentum", "time")  # in lines of `metrics.jsonl`
_LONGEST = 100  # characters of a name


def _builders(axis: int | None, from_logits: bool) -> dict[str, Callable[..., Metric]]:
    return {**named_means(axis), **named_sums(axis, from_logits)}


METRICS = _builders(None, False)
"""What builds each metric, by name."""


def build_metrics(
    choices: Sequence[str | Mapping[str, Any]],
    axis: int | None = None,
    key: str = "evaluation.metrics",
    *,
    from_logits: bool = False,
) -> dict[str, Metric]:
    """Metrics by name, MXNet's (`mxnet.metric:F1`), or the user's own (`module:function`, `module:Class`).

    Args:
        choices: a name, or one name with its parameters: `{"top_k": {"k": 3}}`. The parameter `name` is what the
            metric is called from then on; `output` and `label` are which of several arrays a named metric looks at. A
            name in the user's own code is called if it has parameters or is a class.
        axis: of predictions, along which classes lie; by default the shapes tell it.
        key: of the choices, for messages.
        from_logits: whether predictions of classes are the logarithms of probabilities already.

    Raises:
        ConfigError: for an unknown name or parameter, a metric that does not add up, or two of one name.
    """
    known = _builders(axis, from_logits)
    built: dict[str, Metric] = {}
    seen: dict[str, object] = {}
    for choice in choices:
        path, params = name_and_params(choice)
        own_name = params.pop("name", None)
        name = path if own_name is None else _own_name(own_name, path, f"{key}.{path}.name")
        if name in built and seen[name] != choice:
            raise ConfigError(
                f"{key}: two metrics are called {name!r}; give one of them a name: {{{path}: {{name: ...}}}}"
            )
        seen[name] = choice
        if ":" in path:
            found = load_function(path, key)
            is_built = isinstance(choice, str) and not isinstance(found, type)
            built[name] = as_metric(found if is_built else call(found, params, f"{key}.{path}"), name, key)
        else:
            which = params.pop("output", None), params.pop("label", None)
            built[name] = _of_arrays(call(choose(path, known, key), params, f"{key}.{path}"), name, *which)
    return built


def as_metric(value: object, name: str, key: str) -> Metric:
    """A metric from what a user gives: an object with `sums` or `rows` and `finish`, MXNet's, or a function.

    Args:
        value: the object; a function maps predictions and labels to one value a sample, of which the mean is reported.
        name: of the metric.
        key: of the metrics, for messages.

    Raises:
        ConfigError: for anything else, and for a metric of MXNet's that does not add up.
    """
    if isinstance(value, Mean | Sums | Rows):
        return value
    if isinstance(value, EvalMetric):
        return adapted(value, f"{key}: {name!r}")
    gives = [one for one in ("sums", "rows") if callable(getattr(value, one, None))]
    if gives and not isinstance(value, type):
        if len(gives) == 2 or not callable(getattr(value, "finish", None)):
            wrong = "both sums and rows" if len(gives) == 2 else f"{gives[0]}, but no finish"
            raise ConfigError(f"{key}: {name!r} has {wrong}; give it finish, and one of sums and rows")
        thing: Any = value
        best = getattr(value, "best", None)
        if best not in (None, "highest", "lowest"):
            raise ConfigError(f"{key}: {name!r}: best is {brief(best)}; allowed: highest, lowest, or none")
        if gives == ["rows"]:
            return Rows(thing.rows, _SameKeys(thing.finish), best)
        return Sums(thing.sums, _SameKeys(thing.finish), best, bool(getattr(value, "are_counts", False)))
    if not callable(value) or isinstance(value, type):
        raise ConfigError(
            f"{key}: {name!r} is not a function of (predictions, labels), nor an object with finish and one of sums "
            f"and rows; found {kind_of(value)}"
        )
    return Mean(value)


class _SameKeys:
    """A user's `finish`, which has to report the same names at every evaluation."""

    def __init__(self, finish: Callable[[Any], Reported]) -> None:
        self._finish = finish
        self._keys: list[str] | None = None

    def __call__(self, found: Any) -> Reported:
        reported = self._finish(found)
        if isinstance(reported, Mapping):
            keys = list(reported)
            if self._keys is not None and keys != self._keys:
                raise ConfigError(f"reports {keys}, and reported {self._keys} before; report the same names every time")
            self._keys = keys
        return reported


def _own_name(name: object, path: str, key: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST or not name.isprintable():
        raise ConfigError(f"{key}: found {brief(name)}; must be printable text of at most {_LONGEST} characters")
    if name in _TAKEN or (name in METRICS and name != path):
        raise ConfigError(f"{key}: {name!r} is the name of something else; choose another")
    return name


def _of_arrays(metric: Metric, name: str, output: object, label: object) -> Metric:
    """The same metric of ours, which takes its arrays out of several, and names itself in what it complains of."""

    def explained(function: Callable[..., Any]) -> Callable[..., Any]:
        def explaining(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except ValueError as error:
                raise DataError(f"metric {name!r}: {error}") from error

        return explaining

    def picking(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda found, held: function(_array_of(found, output, "output"), _array_of(held, label, "label"))

    if isinstance(metric, Mean):
        return metric._replace(sample_values=picking(metric.sample_values))
    if isinstance(metric, Sums):
        return metric._replace(sums=explained(picking(metric.sums)), finish=explained(metric.finish))
    return metric._replace(rows=explained(picking(metric.rows)), finish=explained(metric.finish))


def _array_of(value: Any, which: Any, parameter: str) -> Any:
    if not isinstance(value, Mapping | tuple | list):
        if which is not None:
            raise ValueError(f"there is one array, so {parameter}: {which} has no effect; remove it")
        return value
    known = list(value) if isinstance(value, Mapping) else list(range(len(value)))
    if which not in known:
        found = "" if which is None else f"there is no {which!r}; "
        raise ValueError(f"{found}there are several arrays, so say which with {parameter}: one of {known}")
    return value[which]
