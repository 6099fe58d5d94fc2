"""Which number types data and labels may have, and how they are converted to types that MXNet computes with.

Integers stay integers unless they are divided by a scale; floats become float32. Nothing changes silently: a
number that its new type cannot hold is refused, with its sample. Knows arrays, but no data sets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.errors import DataError

if TYPE_CHECKING:
    from harness.data.leaves import Array, Shape

Scale = float | None  # the divisor for integers; None leaves integers unchanged
Name = Callable[[int], str]  # a row of an array -> its name in messages

_CHANNELS = (1, 3, 4)
_EXACT = 1 << 24  # float32 holds every whole number up to this
_ADVICE = {
    "b": "convert them to uint8, astype('uint8')",
    "c": "give real and imaginary parts as two channels of floats",
    "O": "give all items the same shape and type; several inputs of a network are a tuple of arrays",
    "M": "give the time since a reference date as a float, or its parts as integers",
    "m": "divide by a unit, x / np.timedelta64(1, 's')",
    "U": "map them to integers",
    "S": "give bytes as uint8, np.frombuffer(x, 'uint8'), or map the strings to integers",
    "V": "give each field as a separate input, in a tuple of arrays",
    "f": "convert them to float32",
}


def counted(begin: str, start: int = 0) -> Name:
    """Names for rows, counted from `start`.

    >>> counted("sample", 100)(3)
    'sample 103'
    """
    return lambda row: f"{begin} {start + row}"


def is_picture(shape: Shape) -> bool:
    """Whether a sample has the shape of an image: one, three or four channels, first or last.

    >>> is_picture((3, 32, 32)), is_picture((32, 32, 1)), is_picture((32, 32)), is_picture((128,))
    (True, True, False, False)
    """
    return len(shape) == 3 and (shape[0] in _CHANNELS or shape[2] in _CHANNELS)


def default_scale(dtype: np.dtype[Any], shape: Shape) -> Scale:
    """255 for byte images, None for other integers, 1 for floats."""
    if dtype.kind == "f":
        return 1.0
    return 255.0 if dtype == np.uint8 and is_picture(shape) else None


def refuse_dtype(what: str, dtype: np.dtype[Any], allowed: str) -> None:
    """Raise a `DataError` for types that MXNet cannot compute with and that have no obvious conversion.

    Args:
        what: the beginning of the message, such as `here: data is`.
        dtype: the type.
        allowed: the allowed alternatives.
    """
    if dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return
    raise DataError(f"{what} {dtype}; {allowed}: {_ADVICE.get(dtype.kind, 'convert them')}")


def refuse_scale(source: str, dtype: np.dtype[Any], scale: Scale) -> None:
    """Raise a `DataError` for a scale that makes no sense for such data."""
    if scale is None:
        return
    if not 0 < scale < np.inf:
        raise DataError(f"{source}: full_scale is {scale}; the divisor for integer data must be above 0")
    if dtype.kind == "f" and scale != 1:
        raise DataError(f"{source}: full_scale is {scale}, but float data is not rescaled; leave it at 1")


def as_they_are(values: Array, name: Name) -> Array:
    """Numbers in MXNet's types: integers as int8, uint8, int32 or int64, floats as float32; C-contiguous.

    Args:
        values: `(n, ...)`.
        name: what messages call a row.

    Raises:
        DataError: if a number does not fit.
    """
    if values.dtype.kind == "f":
        return as_float32(values, name)
    if values.dtype.itemsize == 1:
        return np.ascontiguousarray(values)
    if values.dtype.kind == "u" and values.dtype.itemsize == 8:
        _refuse_first(values > np.uint64(2**63 - 1), values, name, "exceeds int64", "subtract an offset")
    is_short = values.dtype.itemsize == 2 or (values.dtype.kind == "i" and values.dtype.itemsize == 4)
    return np.ascontiguousarray(values, np.int32 if is_short else np.int64)


def as_float32(values: Array, name: Name) -> npt.NDArray[np.float32]:
    """Numbers as float32, C-contiguous; fractions are rounded.

    Args:
        values: `(n, ...)` integers or floats.
        name: what messages call a row.

    Raises:
        DataError: if a number becomes infinite or zero, or a whole number changes.
    """
    refuse_lossy(values, name)
    return np.ascontiguousarray(values, np.float32)


def divided(values: Array, scale: float, name: Name) -> npt.NDArray[np.float32]:
    """Integers divided by a number, as float32, C-contiguous; a quotient beyond float32 is refused."""
    with np.errstate(over="ignore"):
        quotient: npt.NDArray[np.float32] = np.divide(
            values, np.float32(scale), dtype=np.float32, casting="unsafe", order="C"
        )
    if scale < 1:
        _refuse_first(np.isinf(quotient), values, name, f"divided by {scale:g} exceeds float32", "raise the scale")
    return quotient


def refuse_lossy(values: Array, name: Name) -> None:
    """Raise a `DataError` for numbers that float32 cannot hold; see `as_float32`."""
    if values.dtype.itemsize < 4 or values.dtype == np.float32 or not values.size:
        return
    if values.dtype.kind in "iu":
        if int(values.min()) >= -_EXACT and int(values.max()) <= _EXACT:
            return
        with np.errstate(invalid="ignore"):
            is_off = values.astype(np.float32).astype(values.dtype) != values
        advice = "give them as integers without a scale, or subtract an offset"
        _refuse_first(is_off, values, name, "is a whole number that float32 cannot hold", advice)
        return
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = values.astype(np.float32)
        is_finite = np.isfinite(values)
        _refuse_first(is_finite & np.isinf(rounded), values, name, "exceeds float32 (3.4e38)", "scale the numbers")
        _refuse_first((values != 0) & (rounded == 0), values, name, "becomes 0 in float32", "scale the numbers")
        size = np.abs(values)  # above 2^53 every double is a whole number, though not meant as one
        is_off = (size > _EXACT) & (size <= 2.0**53) & (rounded != values) & (values == np.rint(values))
    advice = "give ids as integers, and times relative to a reference"
    _refuse_first(is_off, values, name, "is a whole number that float32 cannot hold", advice)


def refuse_non_finite(values: Array, name: Name) -> None:
    """Raise a `DataError` for NaN and infinity."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            row = int(np.argwhere(~finite)[0][0])
            raise DataError(f"{name(row)} has NaN or infinite values; remove or replace them")


def _refuse_first(is_bad: npt.NDArray[np.bool_], values: Array, name: Name, why: str, advice: str) -> None:
    if is_bad.any():
        place = tuple(np.argwhere(is_bad)[0].tolist())
        raise DataError(f"{name(place[0])} has the value {values[place]}, which {why}; {advice}")
