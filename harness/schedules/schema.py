"""The form of a schedule in YAML, as JSON Schema, for editors that complete and check while you type."""

from __future__ import annotations

import inspect
import math
from typing import Any

from harness.named import CODE_PATTERN
from harness.schedules.bounds import Interval
from harness.schedules.catalogue import (
    CATALOGUE,
    REPEATABLE,
    Choice,
    Inner,
    Inners,
    Kind,
    Length,
    Number,
    Positions,
    Rate,
    Seed,
    parameters_of,
)
from harness.schedules.scalars import MULTIPLE
from harness.units import LENGTH_PATTERN

_X = f"^{MULTIPLE}$"
_OWN = f"^{CODE_PATTERN}$"
_LENGTH = {"anyOf": [{"type": "string", "pattern": LENGTH_PATTERN}, {"const": 0}]}
_REFERENCE = {"$ref": "#/$defs/Schedule"}

_MOMENTUM = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
OPPOSITE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "opposite": {
            "description": "Falls while the learning rate rises: `high` where it is lowest, `low` where it is highest.",
            "type": "object",
            "properties": {"high": _MOMENTUM, "low": _MOMENTUM},
            "required": ["high", "low"],
            "additionalProperties": False,
        }
    },
    "required": ["opposite"],
    "additionalProperties": False,
}
"""The form of a momentum that is opposite to the learning rate."""


def schedule_schema() -> dict[str, Any]:
    """The definition `Schedule`: a number, a multiple of the base, or one schedule's name with its parameters."""
    return {
        "description": "A constant, or one schedule by its name with its parameters.",
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": _X},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "properties": {name: _entry(name) for name in CATALOGUE},
                "patternProperties": {_OWN: {"description": "Your own function.", "type": ["object", "null"]}},
                "additionalProperties": False,
            },
        ],
    }


def _entry(name: str) -> dict[str, Any]:
    parameters = parameters_of(name, None)
    if name == "cyclical":  # it takes the parameters of the schedule that it repeats, whichever that is
        for inner in REPEATABLE:
            for parameter, (kind, _) in parameters_of(name, inner).items():
                parameters.setdefault(parameter, (kind, None))
    required = [parameter for parameter, (_, default) in parameters.items() if default is inspect.Parameter.empty]
    summary = inspect.getdoc(CATALOGUE[name].make) or ""
    return {
        "description": summary.splitlines()[0],
        "type": "object",
        "properties": {parameter: _of_kind(kind) for parameter, (kind, _) in parameters.items()},
        "required": [parameter for parameter in required if name != "cyclical" or parameter == "cycle_length"],
        "additionalProperties": False,
    }


def _of_kind(kind: Kind) -> dict[str, Any]:
    if isinstance(kind, Rate):
        return {"anyOf": [_number(kind.allowed), {"type": "string", "pattern": _X}]}
    if isinstance(kind, Number):
        return _number(kind.allowed)
    if isinstance(kind, Length):
        return _LENGTH
    if isinstance(kind, Positions):
        return {"type": "array", "items": _LENGTH}
    if isinstance(kind, Inner):
        return _REFERENCE
    if isinstance(kind, Inners):
        return {"type": "array", "items": _REFERENCE, "minItems": 1 if kind.at_boundaries else 2}
    if isinstance(kind, Seed):
        return {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
    assert isinstance(kind, Choice)
    return {"enum": list(kind.words)}


def _number(allowed: Interval) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "number"}
    schema["exclusiveMinimum" if allowed.open_low else "minimum"] = allowed.low
    if math.isfinite(allowed.high):
        schema["exclusiveMaximum" if allowed.open_high else "maximum"] = allowed.high
    return schema
