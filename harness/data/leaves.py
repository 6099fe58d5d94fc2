"""Nested data and labels: an array, a tuple of arrays or a dict of arrays; each of the arrays is a leaf.

Knows only the structure. The first dimension of every leaf is the number of samples, `(n, ...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Data = Array | tuple[Array, ...] | dict[str, Array]
Shape = tuple[int, ...]


def leaves_of(data: Any) -> tuple[Any, ...]:
    """The leaves, in their order.

    >>> leaves_of("one"), leaves_of(("a", "b")), leaves_of({"x": "a", "y": "b"})
    (('one',), ('a', 'b'), ('a', 'b'))
    """
    if isinstance(data, tuple):
        return data
    return tuple(data.values()) if isinstance(data, dict) else (data,)


def names_of(data: object, what: str) -> tuple[str, ...]:
    """What messages call the leaves.

    >>> names_of(0, "data"), names_of((0, 0), "data"), names_of({"mask": 0}, "label")
    (('data',), ('data[0]', 'data[1]'), ("label['mask']",))
    """
    if isinstance(data, tuple):
        return tuple(f"{what}[{number}]" for number in range(len(data)))
    return tuple(f"{what}[{key!r}]" for key in data) if isinstance(data, dict) else (what,)


def each_leaf(function: Callable[[Any], Any], data: Any) -> Any:
    """The result of a function for every leaf, in the structure of the data."""
    if isinstance(data, tuple):
        return tuple(map(function, data))
    return {key: function(leaf) for key, leaf in data.items()} if isinstance(data, dict) else function(data)


def pack(leaves: Sequence[Any], like: object) -> Data:
    """The inverse of `leaves_of`.

    Args:
        leaves: in their order.
        like: data of the structure that is wanted.
    """
    if isinstance(like, tuple):
        return tuple(leaves)
    one: Data = dict(zip(like, leaves, strict=True)) if isinstance(like, dict) else leaves[0]
    return one


def count_of(data: Data) -> int:
    """The number of samples."""
    return len(leaves_of(data)[0])


def rows_of(data: Data, rows: slice | npt.NDArray[np.int64]) -> Data:
    """These samples of every leaf."""
    if isinstance(data, np.ndarray):
        return data[rows]
    nested: Data = each_leaf(lambda leaf: leaf[rows], data)
    return nested


def row_of(data: Data, row: int) -> Data:
    """One sample of every leaf, without the first dimension."""
    one: Data = each_leaf(lambda leaf: leaf[row, ...], data)
    return one


def sample_shape_of(data: Data) -> Shape | tuple[Shape, ...] | dict[str, Shape]:
    """The shape of one sample, or of one sample of each leaf."""
    shapes: Shape | tuple[Shape, ...] | dict[str, Shape] = each_leaf(lambda leaf: leaf.shape[1:], data)
    return shapes


def described_shapes(data: object) -> str:
    """Structure, types and shapes of arrays, for messages.

    >>> described_shapes({"a": np.zeros((2, 3), np.float32)})
    "{'a': float32 (2, 3)}"
    """
    if isinstance(data, tuple | list):
        return f"({', '.join(map(described_shapes, data))})"
    if isinstance(data, dict):
        return f"{{{', '.join(f'{key!r}: {described_shapes(leaf)}' for key, leaf in data.items())}}}"
    if hasattr(data, "shape") and hasattr(data, "dtype"):
        return f"{np.dtype(data.dtype)} {tuple(data.shape)}"
    return type(data).__name__


def described_types(data: Data) -> str:
    """Types of leaves, for messages.

    >>> described_types((np.zeros(1, np.float32), np.zeros(1, np.int8)))
    'float32, int8'
    """
    return ", ".join(leaf.dtype.name for leaf in leaves_of(data))
