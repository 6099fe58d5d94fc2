"""Turns untrusted bytes into checked values: limits first, then JSON, then every field by its type and range.

A record may have been truncated by a full disk, edited by hand, or written by an attacker. Whatever it contains,
reading it gives a checked value or a `RecordError` that says where, what was found, and what is allowed, in
bounded memory and time. Knows no record in particular.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.folder.files import MB, read_small
from harness.folder.unread import TEXT, RecordError, described, seen

T = TypeVar("T")

LARGEST = 2**53  # every whole number up to here is a float
LATEST_S = 253_402_300_799.0  # the last second of the year 9999
_MOST_VALUES = 1_000_000  # in one JSON text; an empty list takes 2 bytes there and 64 in memory
_DEEPEST = 40  # levels of plain data that is passed on unchanged


def read_object(path: Path, most: int = MB, *, follow: bool = False) -> Fields:
    """The JSON object in a small file; see `open_plain`.

    Raises:
        RecordError: if it cannot be read, is too large, or is not a JSON object.
    """
    return Fields(parse_json(read_small(path, most, follow=follow)))


def parse_json(data: bytes, *, may_be_nan: bool = False) -> Any:
    """The content of JSON text.

    Args:
        data: UTF-8.
        may_be_nan: whether to allow `NaN` and `Infinity`, which Python writes but JSON does not define.

    Raises:
        RecordError: if it is not JSON, not UTF-8, nested too deeply, or contains too many values, a duplicate key or
            a number with thousands of digits.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > _MOST_VALUES:
        raise RecordError(f"contains more than {_MOST_VALUES:,} values")
    try:
        text = data.decode("utf-8")
        if may_be_nan:
            content = _FLAT.decode(text)
            if isinstance(content, dict) and text.count('":') == len(content):
                return content  # the usual line of numbers; no key can be duplicate
        return (_WITH_NAN if may_be_nan else _STRICT).decode(text)
    except UnicodeDecodeError as error:
        raise RecordError(f"is not UTF-8 text at byte {error.start}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise RecordError(f"is not valid JSON at {place}" if text.strip() else "is empty") from None
    except RecursionError:
        raise RecordError("is nested too deeply") from None
    except ValueError:
        raise RecordError("contains a number with thousands of digits") from None


class Fields:
    """The entries of a JSON object, each read by its type; keys that are not read belong to another version."""

    def __init__(self, content: object, where: str = "") -> None:
        """Wrap an object.

        Args:
            content: the parsed value.
            where: its place in the record, such as `sweeps[0]`.

        Raises:
            RecordError: if it is not an object.
        """
        if not isinstance(content, dict):
            raise RecordError(f"{where or 'the record'} is {described(content)}, not an object")
        self._content: Mapping[str, Any] = content
        self._where = where

    def place(self, key: str) -> str:
        """Where a field is, for messages."""
        return f"{self._where}.{key}" if self._where else key

    def has(self, key: str) -> bool:
        """Whether there is such a field that is not null."""
        return self._content.get(key) is not None

    def maybe(self, take: Callable[..., T], key: str, *limits: Any) -> T | None:
        """A field that may be missing or null, otherwise read by `take(key, *limits)`."""
        return take(key, *limits) if self.has(key) else None

    def value(self, key: str) -> Any:
        """The parsed value, which is checked only to exist."""
        return self._get(key)

    def text(self, key: str, most: int = TEXT) -> str:
        """A text, made displayable by `seen`."""
        value = self._get(key)
        if not isinstance(value, str):
            raise self._wrong(key, value, "text")
        return seen(value, most)

    def whole(self, key: str, low: int = 0, high: int = LARGEST) -> int:
        """A whole number within bounds."""
        return whole(self._get(key), self.place(key), low, high)

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number within bounds."""
        return number(self._get(key), self.place(key), low, high)

    def inner(self, key: str) -> Fields:
        """An object."""
        return Fields(self._get(key), self.place(key))

    def items(self, key: str) -> list[Any]:
        """A list, unchanged."""
        value = self._get(key)
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list")
        return value

    def inners(self, key: str) -> list[Fields]:
        """A list of objects."""
        return [Fields(item, f"{self.place(key)}[{k}]") for k, item in enumerate(self.items(key))]

    def plain(self, key: str, most: int = 1000) -> dict[str, Any]:
        """An object of any JSON values, finite and not too deep, with displayable texts."""
        value = self._get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        if len(value) > most:
            raise RecordError(f"{self.place(key)} has {len(value):,} fields; at most {most:,} are read")
        return {seen(name, 200): plain(inner, f"{self.place(key)}.{seen(name, 40)}") for name, inner in value.items()}

    def keys(self) -> list[str]:
        """The names of all fields."""
        return list(self._content)

    def _get(self, key: str) -> Any:
        if key not in self._content:
            raise RecordError(f"{self.place(key)} is missing")
        return self._content[key]

    def _wrong(self, key: str, value: object, wanted: str) -> RecordError:
        return RecordError(f"{self.place(key)} is {described(value)}, not {wanted}")


def whole(value: object, where: str, low: int = 0, high: int = LARGEST) -> int:
    """A whole number within bounds.

    Raises:
        RecordError: if it is anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise RecordError(f"{where} is {described(value)}, not a whole number")
    if not low <= value <= high:
        raise RecordError(f"{where} is {described(value)}; allowed: {low:,} to {high:,}")
    return value


def number(value: object, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number within bounds, as a float.

    Raises:
        RecordError: if it is anything else.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RecordError(f"{where} is {described(value)}, not a number")
    if isinstance(value, int) and abs(value) > 10**300:
        raise RecordError(f"{where} is {described(value)}, too large for a float")
    if not (math.isfinite(value) and low <= value <= high):
        allowed = "a finite number" if (low, high) == (-math.inf, math.inf) else f"{low:g} to {high:g}"
        raise RecordError(f"{where} is {described(value)}; allowed: {allowed}")
    return float(value)


def plain(value: object, where: str, depth: int = 0) -> Any:
    """Plain data to pass on: finite, not too deep, with displayable texts.

    Raises:
        RecordError: naming the place that violates this.
    """
    if depth > _DEEPEST:
        raise RecordError(f"{seen(where, 60)} is nested too deeply")
    if isinstance(value, dict):
        return {seen(name, 200): plain(inner, where, depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner, where, depth + 1) for inner in value]
    if isinstance(value, str):
        return seen(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        number(value, where)
    return value


def _refuse_constant(name: str) -> float:
    raise RecordError(f"contains {name}, which is not a JSON number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RecordError(f"has the key {seen(twice, 40)!r} twice")
    return content


_FLAT = json.JSONDecoder()
_WITH_NAN = json.JSONDecoder(object_pairs_hook=_each_once)
_STRICT = json.JSONDecoder(object_pairs_hook=_each_once, parse_constant=_refuse_constant)
