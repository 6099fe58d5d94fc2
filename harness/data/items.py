"""What an item looks like: a pair of data and label, each an array, a tuple of arrays or a dict of arrays.

Turns what users give into such pairs; knows no data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.data.arrays import as_array
from harness.data.leaves import Array, Data, leaves_of
from harness.errors import DataError
from harness.named import kind_of

Sample = tuple[Data, Data]

_PAIR = (
    "an item is a pair (data, label), or with several inputs ((a, b), label), (a, b, label) or "
    "({'a': a, 'b': b}, label)"
)


def pair_of(where: str, item: Any) -> Sample:
    """Data and label of an item, as NumPy arrays.

    Args:
        where: the item, for messages.
        item: `(data, label)`, `(a, b, label)`; each a number, an array or a tuple or dict of those. A tuple of numbers
            and a list are one array.

    Raises:
        DataError: for anything else.
    """
    if not isinstance(item, tuple | list) or len(item) < 2:
        found = f"{kind_of(item)} of {len(item)}" if isinstance(item, tuple | list) else kind_of(item)
        raise DataError(f"{where} is {found}; {_PAIR}")
    *inputs, label = item
    if len(inputs) > 1:
        return tuple(_array(where, one) for one in inputs), _nested(where, label)
    return _nested(where, inputs[0]), _nested(where, label)


def _nested(where: str, value: Any) -> Data:
    if isinstance(value, Mapping) and value:
        return {str(key): _array(where, one) for key, one in value.items()}
    if isinstance(value, tuple) and any(map(_is_no_number, value)):
        return tuple(_array(where, one) for one in value)
    return _array(where, value)


def _array(where: str, value: Any) -> Array:
    if isinstance(value, list | tuple) and any(map(_is_no_number, value)):
        arrays = [_array(where, one) for one in value]
        if len({one.shape for one in arrays}) > 1:
            raise DataError(
                f"{where} has {kind_of(value)} of arrays of the shapes "
                f"{', '.join(str(one.shape) for one in arrays[:3])}, which cannot form an array; {_PAIR}"
            )
        return np.asanyarray(arrays)
    array = as_array(value)
    if array.dtype.kind == "O":
        raise DataError(f"{where} has {kind_of(value)}, which is not an array of numbers; {_PAIR}")
    return array


def _is_no_number(value: Any) -> bool:
    """Whether an element of a tuple or list is an array or a list rather than a number."""
    return not isinstance(value, int | float | complex | np.generic | str | bytes) and (
        not hasattr(value, "shape") or value.shape != ()
    )


def digest_of(data: Data, label: Data) -> bytes:
    """16 bytes that depend on types, shapes and values of one item."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (*leaves_of(data), *leaves_of(label)):
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def digest_of_any(value: Any) -> bytes:
    """16 bytes that depend on the values in an item of any form.

    Of what is neither an array, text, a number nor a container of those, only the type.
    """
    digest = hashlib.blake2b(digest_size=16)
    for piece in _pieces(value):
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.digest()


def _pieces(value: Any) -> list[bytes]:
    if isinstance(value, Mapping):
        return [b"{", *(piece for pair in value.items() for one in pair for piece in _pieces(one)), b"}"]
    if isinstance(value, list | tuple):
        return [b"[", *(piece for one in value for piece in _pieces(one)), b"]"]
    if isinstance(value, str | bytes | bytearray | int | float | complex | None):
        return [type(value).__name__.encode(), repr(value).encode()]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        array = as_array(value)
        if array.dtype.kind != "O":
            return [f"{array.dtype.str} {array.shape}".encode(), np.ascontiguousarray(array).tobytes()]
        return [f"{array.shape}".encode(), *(piece for one in array.ravel() for piece in _pieces(one))]
    return [type(value).__name__.encode()]
