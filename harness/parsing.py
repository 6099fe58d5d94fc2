"""Numbers out of text and plain values of unknown origin: environment variables, sockets, YAML, JSON, command lines.

One reader of each kind, for every room. None of them raises: whoever calls knows where the text came from, what is
allowed there, and what the user should do, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

MAX_DIGITS = 9  # of a whole number in text: enough for any rank, port, pid or count of threads
_WHOLE = re.compile("[0-9]+")
_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")


def whole_number(text: str, *, low: int = 0, high: int = 10**MAX_DIGITS - 1) -> int | None:
    """The whole number that a text writes in ASCII digits; `None` if it is anything else, or out of bounds.

    `str.isdigit` accepts digits that `int` refuses, and `int` accepts signs, blanks and underscores.

    >>> whole_number("12"), whole_number("²"), whole_number("-1"), whole_number("9" * 5000), whole_number("0", low=1)
    (12, None, None, None, None)
    """
    if len(text) > MAX_DIGITS or _WHOLE.fullmatch(text) is None:
        return None
    number = int(text)
    return number if low <= number <= high else None


def version_numbers(text: str) -> tuple[int, int] | None:
    """Major and minor number at the beginning of a version; `None` where it has none.

    >>> version_numbers("1.23.5"), version_numbers("8.9"), version_numbers("unknown")
    ((1, 23), (8, 9), None)
    """
    found = _VERSION.match(text)
    return None if found is None else (int(found[1]), int(found[2]))


def as_number(value: object) -> float | None:
    """The number as a float; `None` if it is not a number, or too large for a float. A bool is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def plain_numbers(value: Any) -> Any:
    """The same value with Python's numbers for those of NumPy and others, inside of mappings and lists as well.

    A program may compute with any of them; JSON, and the readers of a configuration, know only Python's. A bool stays
    one, and so does whatever is not a real number.

    >>> from fractions import Fraction
    >>> plain_numbers({"schedule": [Fraction(1, 2), True, "3"]})
    {'schedule': [0.5, True, '3']}
    """
    if isinstance(value, bool | int | float | str) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, Mapping):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(item) for item in value]
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a scalar of NumPy, or an array without axes
        value = value.item()
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value


def is_count(value: object, least: int = 1) -> bool:
    """Whether this is an int of at least `least`. A bool is not an int here, nor is 5.0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
