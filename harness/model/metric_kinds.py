"""The three kinds of metrics: a mean over samples, sums that add up over batches, and rows that are collected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Values = Callable[[Any, Any], Array]
Reported = float | Mapping[str, float]


class Mean(NamedTuple):
    """A mean over samples.

    Attributes:
        sample_values: maps predictions `(n, ...)` and labels `(n, ...)` to one value a sample, `(n,)`.
        from_mean: maps the mean to what is reported.
        best: which value is the best one, `highest` or `lowest`; `None` where only the user knows.
    """

    sample_values: Values
    from_mean: Callable[[float], float] = float
    best: str | None = None


class Sums(NamedTuple):
    """What follows from sums over samples, such as counts of hits and misses.

    Attributes:
        sums: maps predictions and labels of a batch to numbers `(k,)` that add up over batches; k never changes.
        finish: maps their sum, float64 `(k,)`, to what is reported: a number, or numbers by name.
        best: as for `Mean`.
        are_counts: whether they are whole numbers, whose sum is exact below 2**53 in any order. Each rank then adds up
            its own, so that large k cost little.
        adds_up: whether that is known; otherwise it is tried with two samples, together and one by one.
    """

    sums: Values
    finish: Callable[[Array], Reported]
    best: str | None = None
    are_counts: bool = False
    adds_up: bool = False


class Rows(NamedTuple):
    """What takes all samples at once, such as a ranking of all detections.

    Attributes:
        rows: maps predictions and labels of a batch to an array, a tuple of arrays, or arrays by name. Each holds any
            number of rows, `(m, ...)`, which need not be samples.
        finish: maps the same structure with the rows of all batches, in the order of the samples, to what is reported.
        best: as for `Mean`.
    """

    rows: Callable[[Any, Any], Any]
    finish: Callable[[Any], Reported]
    best: str | None = None


Metric = Mean | Sums | Rows


def class_axis(prediction: Sequence[int], label: Sequence[int]) -> int:
    """The axis of predictions along which classes lie, by the shapes: the last one, or 1 as in pictures.

    >>> class_axis((32, 10), (32,)), class_axis((32, 10, 8, 8), (32, 8, 8)), class_axis((32, 50, 10), (32, 50))
    (-1, 1, -1)
    """
    is_last = tuple(label) == tuple(prediction[:-1])
    is_second = tuple(label) == (*prediction[:1], *prediction[2:])
    return 1 if is_second and not is_last else -1


def arrays_in(value: Any) -> list[Array]:
    """The arrays of an array, or of a tuple, list or mapping of them at any depth, in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [array for one in value for array in arrays_in(one)]
    return [np.asarray(value)]
