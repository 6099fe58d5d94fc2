"""Data with one or several inputs: an array, or a tuple with an array (a leaf) for each input of the network.

Knows only the structure. The first dimension of every leaf is the number of samples, `(n, ...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

Array = npt.NDArray[Any]
Data = Array | tuple[Array, ...]
Shape = tuple[int, ...]


def leaves_of(data: T | tuple[T, ...]) -> tuple[T, ...]:
    """The leaves, in the order of the network's inputs.

    >>> leaves_of("one"), leaves_of(("a", "b"))
    (('one',), ('a', 'b'))
    """
    return data if isinstance(data, tuple) else (data,)


def each_leaf(function: Callable[[Array], T], data: Data) -> T | tuple[T, ...]:
    """The result of a function for every leaf, in the structure of the data."""
    return tuple(map(function, data)) if isinstance(data, tuple) else function(data)


def pack(leaves: list[Array], is_several: bool) -> Data:
    """The inverse of `leaves_of`."""
    return tuple(leaves) if is_several else leaves[0]


def count_of(data: Data) -> int:
    """The number of samples."""
    return len(leaves_of(data)[0])


def rows_of(data: Data, rows: slice | npt.NDArray[np.int64]) -> Data:
    """These samples of every leaf."""
    return tuple(leaf[rows] for leaf in data) if isinstance(data, tuple) else data[rows]


def sample_shape_of(data: Data) -> Shape | tuple[Shape, ...]:
    """The shape of one sample, or of one sample of each input."""
    return tuple(leaf.shape[1:] for leaf in data) if isinstance(data, tuple) else data.shape[1:]
