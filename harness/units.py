"""Durations as people write them: `"5ep"` (epochs), `"500it"` (iterations), `"10%"` (of a span).

A duration is kept as an exact fraction until the place where it ends is known. Rounding the *ends* of phases and
never their lengths is what makes `80%` followed by `20%` cover a run exactly, whatever its length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ep|it|%)\s*")
_ALLOWED = "a length is written '5ep' (epochs), '500it' (iterations) or '10%' (of the run)"


@dataclass(frozen=True)
class Duration:
    """A length of time in a run, not yet tied to a number of iterations.

    Attributes:
        value: how many units, at least 0.
        unit: `"ep"`, `"it"` or `"%"`.
    """

    value: Fraction
    unit: str

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Read a duration.

        >>> Duration.parse("2.5ep").iterations(iterations_per_epoch=100, span=1000)
        Fraction(250, 1)

        Raises:
            ValueError: if `text` is anything but a number >= 0 with a unit (a bare 0 needs none), or if it is a
                fraction of one iteration.
        """
        if text == 0 and not isinstance(text, bool):
            return cls(Fraction(0), "it")
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            hint = f"; write '{text}it' or '{text}ep'" if _is_count(text) else ""
            raise ValueError(f"{text!r} is not a length: {_ALLOWED}{hint}")
        duration = cls(Fraction(match[1]), match[2])
        if duration.unit == "it" and duration.value.denominator != 1:
            raise ValueError(f"{text!r} is not a whole number of iterations")
        return duration

    def iterations(self, iterations_per_epoch: int, span: int) -> Fraction:
        """The exact length in iterations; `span` is what `%` is a part of."""
        if self.unit == "it":
            return self.value
        if self.unit == "ep":
            return self.value * iterations_per_epoch
        return self.value * span / 100

    def __str__(self) -> str:
        """The text that `parse` reads back as the same duration."""
        value = self.value
        number = str(value.numerator) if value.denominator == 1 else repr(float(value))
        return f"{number}{self.unit}"


def round_position(position: Fraction) -> int:
    """The nearest iteration to an exact position, halves up."""
    return int((position + Fraction(1, 2)) // 1)


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
