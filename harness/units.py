"""Durations as people write them: `"5ep"` (epochs), `"500it"` (iterations), `"1e6sa"` (samples), `"10%"` (of a span).

A duration stays an exact fraction until the position where it ends is known. Rounding the *ends* of phases and
never their lengths makes `80%` followed by `20%` cover a run exactly, whatever its length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from harness.named import brief

_DECIMAL = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_PATTERN = re.compile(rf"\s*(?:({_DECIMAL})\s*(ep|it|%)|((?:{_DECIMAL})(?:[eE]\+?[0-9]{{1,2}})?)\s*(sa|tok))\s*")
_CLOCK = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(s|min|h)\s*")
LENGTH_PATTERN = f"^{_PATTERN.pattern}$"
CLOCK_PATTERN = f"^{_CLOCK.pattern}$"
MOST_SECONDS = 1e9  # 31 years; system clocks cannot wait much longer
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_ALLOWED = (
    "write a length as '5ep' (epochs), '500it' (iterations), '1e6sa' (samples), '3e9tok' (tokens) or '10%' (a part of "
    "the whole)"
)
_COUNTED = {"it": "iterations", "sa": "samples", "tok": "tokens"}
_BY_LETTER = (("e", "ep"), ("i", "it"), ("sam", "sa"), ("t", "tok"))
_LONGEST_TEXT = 64  # characters; a real length has a few
_MOST = 10**18  # of any unit; no run is longer
_NUMBER = re.compile(r"\s*(-?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-z%]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Duration:
    """A length of time in a run, not yet tied to a number of iterations.

    Attributes:
        value: how many units, at least 0.
        unit: `"ep"`, `"it"`, `"sa"`, `"tok"` or `"%"`.
    """

    value: Fraction
    unit: str

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Read a duration.

        >>> Duration.parse("2.5ep").iterations(iterations_per_epoch=100, span=1000)
        Fraction(250, 1)

        Raises:
            ValueError: if `text` is not a number >= 0 with a unit (a bare 0 needs none), or if it is a
                fraction of one iteration.
        """
        if text == 0 and not isinstance(text, bool):
            return cls(Fraction(0), "it")
        is_short = isinstance(text, str) and len(text) <= _LONGEST_TEXT
        match = _PATTERN.fullmatch(text) if isinstance(text, str) and is_short else None
        if match is None:
            raise ValueError(f"{brief(text)} is not a length: {_ALLOWED}{_hint(text)}")
        duration = cls(Fraction(match[1] or match[3]), match[2] or match[4])
        if duration.value > _MOST:
            raise ValueError(f"{text!r} is longer than any run; the maximum is {_MOST} of its unit")
        if duration.unit in _COUNTED and duration.value.denominator != 1:
            nearest = f"{max(1, round_position(duration.value))}{duration.unit}"
            raise ValueError(f"{text!r} is not a whole number of {_COUNTED[duration.unit]}; write '{nearest}'")
        return duration

    def iterations(
        self,
        iterations_per_epoch: int,
        span: int,
        samples: Fraction | None = None,
        tokens: Fraction | None = None,
    ) -> Fraction:
        """The exact length in iterations.

        >>> Duration.parse("1e6sa").iterations(100, span=1000, samples=Fraction(512))
        Fraction(15625, 8)

        Args:
            iterations_per_epoch: what `1ep` is.
            span: what `%` is a part of.
            samples: in an iteration, on the average of an epoch; `None` if that is not known.
            tokens: in an iteration, likewise.

        Raises:
            ValueError: for a length in samples or tokens where their number is not known.
        """
        if self.unit == "it":
            return self.value
        if self.unit in ("sa", "tok"):
            one = samples if self.unit == "sa" else tokens
            if one is None:
                raise ValueError(
                    f"'{self}' is a number of {_COUNTED[self.unit]}, but how many an iteration has is not known here; "
                    "write a length as '500it' or '5ep'"
                )
            return self.value / one
        if self.unit == "ep":
            return self.value * iterations_per_epoch
        return self.value * span / 100

    def __str__(self) -> str:
        """The text that `parse` reads back as the same duration."""
        return f"{_decimal(self.value)}{self.unit}"


@dataclass(frozen=True)
class ClockTime:
    """A length of clock time, as written; it determines when to save, never what to compute.

    Attributes:
        text: such as `"10min"`.
        seconds: the same in seconds, above 0.
    """

    text: str
    seconds: float

    @classmethod
    def parse(cls, text: object) -> ClockTime | None:
        """Read `"90s"`, `"10min"` or `"2h"`; anything else, including 0, gives `None`.

        >>> ClockTime.parse("10min").seconds
        600.0
        """
        is_short = isinstance(text, str) and len(text) <= _LONGEST_TEXT
        match = _CLOCK.fullmatch(text) if isinstance(text, str) and is_short else None
        seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
        return cls(text.strip(), seconds) if isinstance(text, str) and 0 < seconds <= MOST_SECONDS else None

    def __str__(self) -> str:
        """The text that `parse` reads back."""
        return self.text


def round_position(position: Fraction) -> int:
    """The nearest iteration to an exact position, halves up."""
    return int((position + Fraction(1, 2)) // 1)


def _decimal(value: Fraction) -> str:
    """A fraction as an exact decimal without an exponent; a repeating one, such as 1/3, stays a fraction."""
    digits, rest = 0, value.denominator
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        digits = max(digits, power)
    if rest != 1 or not digits:
        return str(value)
    text = f"{value.numerator * 10**digits // value.denominator:0{digits + 1}d}"
    return f"{text[:-digits]}.{text[-digits:]}"


def _hint(found: object) -> str:
    """A suggestion, if a number can be recognised."""
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return ""
    if len(brief(found)) > _LONGEST_TEXT - 2:
        return ""
    match = _NUMBER.fullmatch(str(found))
    if match is None:
        return ""
    sign, number, unit = match.groups()
    if sign:
        return "; a length cannot be negative"
    if not unit:
        whole = Fraction(number).denominator == 1
        return f"; write '{number}it' or '{number}ep'" if whole else f"; write '{number}ep'"
    meant = next((short for letter, short in _BY_LETTER if unit.lower().startswith(letter)), None)
    return f"; write '{number}{meant}'" if meant else ""
