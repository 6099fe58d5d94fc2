"""What metrics make of predictions and labels, checked: the sums or rows of a batch, and what is reported of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from harness.errors import ConfigError, DataError
from harness.model.metric_kinds import Array, Mean, Metric, Rows, Sums, arrays_in
from harness.named import brief


def sums_of(metric: Sums, name: str, prediction: Any, label: Any) -> Array:
    """The sums of a batch, float64 `(k,)`.

    Raises:
        ConfigError: naming the metric, if they are not numbers in one dimension.
    """
    found = np.asarray(metric.sums(prediction, label))
    if found.ndim != 1 or found.dtype.kind not in "biuf":
        raise ConfigError(
            f"metric {name!r}: sums gave {found.dtype} of shape {found.shape}; numbers in one dimension, (k,), are "
            "needed"
        )
    sums = found.astype(np.float64)
    if np.isnan(sums).any():
        raise ConfigError(f"metric {name!r}: sums gave nan at place {int(np.isnan(sums).argmax())}; give numbers")
    if metric.are_counts and not (np.rint(sums) == sums).all():
        raise ConfigError(f"metric {name!r}: says are_counts, but its sums are not whole numbers; leave are_counts out")
    return sums


def rows_of(metric: Rows, name: str, prediction: Any, label: Any) -> tuple[Any, list[Array]]:
    """The rows of a batch: their structure (`None`, the number of arrays, or names), and the arrays, each `(m, ...)`.

    Raises:
        ConfigError: naming the metric, if they are not arrays of numbers with rows.
    """
    found = metric.rows(prediction, label)
    kind: Any = None
    arrays: list[Any] = [found]
    if isinstance(found, Mapping):
        kind, arrays = list(found), list(found.values())
    elif isinstance(found, tuple | list):
        kind, arrays = len(found), list(found)
    leaves = [np.ascontiguousarray(one) for one in arrays]
    wrong = next((one for one in leaves if one.ndim == 0 or one.dtype.kind not in "biuf"), None)
    if not leaves or wrong is not None or any(np.ndim(one) == 0 for one in arrays):
        said = "nothing" if not leaves else f"{leaves[0].dtype if wrong is None else wrong.dtype} without rows"
        raise ConfigError(f"metric {name!r}: rows gave {said}; arrays of numbers (m, ...) are needed")
    return kind, leaves


def reported_of(name: str, reported: Any) -> dict[str, float]:
    """What a metric reports, by the names that it has in results: its own, or its own, a dot, and each key.

    Raises:
        ConfigError: naming the metric, if it is not a number, or numbers by name, or not a number at all (nan).
    """
    if isinstance(reported, Mapping):
        if not reported or not all(isinstance(one, str) and one.isprintable() for one in reported):
            raise ConfigError(f"metric {name!r}: finish gave {brief(reported)}; numbers by name are needed")
        values = {f"{name}.{key}": value for key, value in reported.items()}
    else:
        values = {name: reported}
    for one, value in values.items():
        number = np.asarray(value)
        if number.ndim or number.dtype.kind not in "iuf":
            raise ConfigError(
                f"metric {one!r}: finish gave {brief(value)}; a number, or a mapping of names to numbers, is needed"
            )
        if np.isnan(number):
            raise ConfigError(f"metric {one!r}: finish gave nan; give a number, also where there is nothing to measure")
    return {one: float(value) for one, value in values.items()}


@contextmanager
def naming_metric(name: str) -> Iterator[None]:
    """Name the metric in what its `finish` raises."""
    try:
        yield
    except (ConfigError, DataError) as error:
        said = str(error)
        raise (error if said.startswith("metric ") else type(error)(f"metric {name!r}: {said}")) from error
    except Exception as error:  # whatever a user's metric raises
        raise ConfigError(f"metric {name!r}: finish raised {type(error).__name__}: {error}; fix it") from error


def try_metrics(
    metrics: Mapping[str, Metric], prediction: Any, label: Any, key: str = "evaluation.metrics"
) -> dict[str, list[str]]:
    """Refuse a metric that cannot be computed from such predictions and labels.

    Args:
        metrics: by name.
        prediction: of a few samples, `(n, ...)`, as the network returns it.
        label: theirs, `(n, ...)`.
        key: of the metrics, for messages.

    Returns:
        The names of what each metric reports; empty where so few samples do not tell.

    Raises:
        ConfigError: naming the metric and what it did.
    """
    return {name: _try(metric, name, prediction, label, f"{key}: {name!r}") for name, metric in metrics.items()}


def _try(metric: Metric, name: str, prediction: Any, label: Any, where: str) -> list[str]:
    found: Any
    try:
        if isinstance(metric, Mean):
            found = np.asarray(metric.sample_values(prediction, label))
        elif isinstance(metric, Sums):
            found = sums_of(metric, name, prediction, label)
            if not metric.adds_up:
                _refuse_what_does_not_add_up(metric, name, found, prediction, label)
        else:
            kind, arrays = rows_of(metric, name, prediction, label)
            found = structured(kind, arrays)
    except Exception as error:  # whatever a user's metric raises
        shapes = [", ".join(str(one.shape) for one in arrays_in(value)) for value in (prediction, label)]
        raise ConfigError(
            f"{where} does not fit predictions {shapes[0]} and labels {shapes[1]} "
            f"({type(error).__name__}: {error}); choose another"
        ) from error
    if isinstance(metric, Mean):
        count = len(arrays_in(label)[0])
        if found.shape != (count,):
            raise ConfigError(f"{where} gave shape {found.shape} for {count} samples; one value a sample is needed")
        if found.dtype.kind not in "biuf":
            raise ConfigError(f"{where} gave values of type {found.dtype}; one number a sample is needed")
        return [name]
    try:
        with np.errstate(all="ignore"):
            reported = metric.finish(found)
    except (ArithmeticError, DataError):  # undefined for so few samples
        return []
    except Exception as error:
        raise ConfigError(f"{where}: finish raised {type(error).__name__}: {error}; fix it") from error
    values = reported if isinstance(reported, Mapping) else {"": reported}
    zeros = {one: 0.0 if isinstance(value, float) and value != value else value for one, value in values.items()}
    return list(reported_of(name, zeros if isinstance(reported, Mapping) else zeros[""]))


def _refuse_what_does_not_add_up(metric: Sums, name: str, found: Array, prediction: Any, label: Any) -> None:
    """Refuse sums that differ for two samples together and one by one."""
    if {len(one) for one in [*arrays_in(prediction), *arrays_in(label)] if one.ndim} != {2}:
        return
    each = [sums_of(metric, name, _row(prediction, row), _row(label, row)) for row in (0, 1)]
    if not found.shape == each[0].shape == each[1].shape:
        raise ValueError(f"sums gave {found.shape} for two samples and {each[0].shape} for one; k never changes")
    added = each[0] + each[1]
    wrong = ~np.isclose(found, added, rtol=1e-3, atol=1e-6)
    if wrong.any():
        k = int(wrong.argmax())
        raise ValueError(
            f"sums do not add up: number {k} is {found[k]:g} for two samples, but {added[k]:g} for one and one; "
            "return sums over samples, not means"
        )


def _row(value: Any, row: int) -> Any:
    """One sample of arrays in any structure, as a batch."""
    if isinstance(value, Mapping):
        return {name: _row(one, row) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_row(one, row) for one in value)
    return value[row : row + 1]


def structured(kind: Any, arrays: Sequence[Array]) -> Any:
    """Arrays in the structure that `rows_of` found."""
    if kind is None:
        return arrays[0]
    return dict(zip(kind, arrays, strict=True)) if isinstance(kind, list) else tuple(arrays)
