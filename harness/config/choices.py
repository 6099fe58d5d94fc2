"""Values of a configuration that choose by name, with parameters or without."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator

from harness.config.values import MOST, either, read_name, read_parameters


def _read_initializer(value: object) -> str | dict[str, dict[str, Any]]:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((name, params),) = value.items()
        if isinstance(name, str) and isinstance(params, dict | None):
            return {name: read_parameters(params or {}, (name,))}
    raise ValueError("must be a name (xavier), or one name with its parameters ({xavier: {magnitude: 2}})")


def _read_metric(value: object) -> str | dict[str, dict[str, Any]]:
    return _read_choice(value, "accuracy", "{top_k: {k: 3}}")


def _read_collate(value: object) -> str | dict[str, dict[str, Any]]:
    return _read_choice(value, "pad", "{pad: {value: 1}}")


def _read_hook(value: object) -> str | dict[str, dict[str, Any]]:
    plain, detailed = "mine:watch", "{mine:watch: {limit: 3}}"
    choice = _read_choice(value, plain, detailed)
    if ":" not in (choice if isinstance(choice, str) else next(iter(choice))):
        raise ValueError(f"must be package.module:function ({plain}), or one with its parameters ({detailed})")
    return choice


def _read_choice(value: object, plain: str, detailed: str) -> str | dict[str, dict[str, Any]]:
    if isinstance(value, str):
        return read_name(value)
    if isinstance(value, dict) and len(value) == 1:
        ((name, params),) = value.items()
        if isinstance(name, str) and isinstance(params, dict | None):
            return {read_name(name): read_parameters(params or {}, (name,))}
    raise ValueError(f"must be a name ({plain}), or one name with its parameters ({detailed})")


def _read_widths(value: object) -> list[int] | int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST:
        return value
    if isinstance(value, list) and value and all(type(one) is int and 1 <= one <= MOST for one in value):
        widths: list[int] = value
        if widths == sorted(set(widths)):
            return widths
    raise ValueError("must be a list of whole numbers from 1, each larger than the last, or one such number")


_NAME_OR_ONE = either({"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1})
Initializer = Annotated[
    str | dict[str, dict[str, Any]],
    PlainValidator(_read_initializer),
    _NAME_OR_ONE,
]
_COUNT = {"type": "integer", "minimum": 1}
Widths = Annotated[
    list[int] | int,
    PlainValidator(_read_widths),
    either({"type": "array", "minItems": 1, "items": _COUNT}, _COUNT),
]
CollateChoice = Annotated[
    str | dict[str, dict[str, Any]],
    PlainValidator(_read_collate),
    _NAME_OR_ONE,
]
HookChoice = Annotated[
    str | dict[str, dict[str, Any]],
    PlainValidator(_read_hook),
    _NAME_OR_ONE,
]
MetricChoice = Annotated[
    str | dict[str, dict[str, Any]],
    PlainValidator(_read_metric),
    _NAME_OR_ONE,
]
