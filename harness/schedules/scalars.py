"""The single values of a schedule in YAML: numbers, and learning rates written `Nx`.

Each reader takes what YAML gives and raises ValueError with what was found and what is allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.named import brief
from harness.parsing import as_number
from harness.schedules.bounds import Interval

MULTIPLE = r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\s*x\s*"
"""How `Nx` is written, at least 0."""

_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(x?)\s*")


@dataclass(frozen=True)
class Multiple:
    """`Nx`: `count` times what `1x` turns out to be."""

    count: float

    def __str__(self) -> str:
        """The text that is read back as the same multiple."""
        return f"{repr(self.count).removesuffix('.0')}x"


def read_number(raw: object, allowed: Interval) -> float:
    """A plain number, also as text: PyYAML reads 1e-3 as text.

    Raises:
        ValueError: if it is not a number, or is not allowed.
    """
    split = _split(raw)
    number = split[0] if split and not split[1] else as_number(raw)
    if number is None or not allowed.holds(number):
        raise ValueError(f"must be {allowed}, found {found(raw)}")
    return number


def read_rate(raw: object, allowed: Interval, allow_x: bool) -> float | Multiple:
    """A learning rate.

    >>> read_rate("0.1x", Interval(), allow_x=True)
    Multiple(count=0.1)

    Raises:
        ValueError: if it is neither a number nor `Nx`, if it is not allowed, or if it is `Nx` without `allow_x`.
    """
    split = _split(raw)
    if split and split[1]:
        if not allow_x:
            raise ValueError(f"momentum is never scaled: write a plain number, found {found(raw)}")
        if not allowed.holds(split[0]):
            raise ValueError(f"must be x times {allowed}, found {found(raw)}")
        return Multiple(split[0])
    if allow_x and not split and as_number(raw) is None:
        raise ValueError(f"must be {allowed} or text like '0.1x', found {found(raw)}")
    return read_number(raw, allowed)


def is_rate(raw: object) -> bool:
    """Whether it is written like a learning rate."""
    return as_number(raw) is not None or _split(raw) is not None


def found(raw: object) -> str:
    """The value that YAML gave, for a message."""
    return "nothing" if raw is None else brief(raw)


def _split(raw: object) -> tuple[float, bool] | None:
    match = _NUMBER.fullmatch(raw) if isinstance(raw, str) else None
    return (float(match[1]), match[2] == "x") if match else None
