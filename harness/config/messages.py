"""Turns pydantic's errors into sentences: key path, what was found, what is allowed, and a suggestion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.config.values import Problem, RefusedError
from harness.errors import ConfigError
from harness.named import LONGEST_NAME, brief, cut, did_you_mean
from harness.schedules import SpecError

_MIXED_PRECISION = (
    "mixed precision is not supported: MXNet's AMP patches its operators permanently, and its loss scaling would skip "
    "updates that the plan counts; remove it (parameters and gradients are float32)"
)
_UNSUPPORTED = {
    **dict.fromkeys(("amp", "fp16", "bf16", "dtype", "mixed_precision", "multi_precision"), _MIXED_PRECISION),
    **dict.fromkeys(
        ("sparse", "sparse_grad", "row_sparse"),
        "is not a setting: an embedding of your own network has sparse_grad=True (nn.Embedding), and its gradient is "
        "summed by rows",
    ),
    **dict.fromkeys(
        ("plateau", "reduce_on_plateau", "reduce_lr_on_plateau", "patience"),
        "is not a setting here: lr.plateau, beside a schedule, lowers its rates once evaluations no longer improve",
    ),
    **dict.fromkeys(
        ("early_stop", "early_stopping"),
        "is not a setting here: train.early_stop ends a run once evaluations no longer improve",
    ),
    "accumulation": "is set through batch.shards: more shards than workers means that each worker accumulates",
}
RUN_NAME_IN_WORDS = "letters, digits, '.', '_' and '-', the first a letter or a digit, at most 100 in all"
_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list, such as [{0}]",
    "dict_type": "a mapping, such as {{key: value}}",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:.0f}",
    "less_than_equal": "at most {le:.0f}",
    "string_pattern_mismatch": RUN_NAME_IN_WORDS,
}
_YAML_1_1_FLAGS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
MOST_PROBLEMS = 20  # that one message lists


def config_error(source: str, problems: Sequence[Problem]) -> ConfigError:
    """One error for all problems, a line each; for very many, the first ones and the number of the others."""
    lines = []
    for path, message in problems[:MOST_PROBLEMS]:
        where = ".".join(cut(str(key), LONGEST_NAME) for key in path)
        lines.append(f"{source}: {where}: {message}" if where else f"{source}: {message}")
    if len(problems) > MOST_PROBLEMS:
        lines.append(f"{source}: and {len(problems) - MOST_PROBLEMS:,} more problems; fix these first")
    error = ConfigError("\n".join(lines))
    error.source = source  # every line starts with it
    return error


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """The problems in a pydantic error, with suggestions for misspelt keys."""
    problems: list[Problem] = []
    for item in error.errors(include_url=False):
        if len(problems) < MOST_PROBLEMS:
            problems += _problems(item, model)
        else:  # only count it, because suggestions for thousands of keys take minutes
            cause = item.get("ctx", {}).get("error")
            number = len(cause.problems) if isinstance(cause, SpecError | RefusedError) else 1
            problems += [Problem((), "")] * number
    return problems


def _problems(item: Any, model: type[BaseModel]) -> list[Problem]:
    path: tuple[str | int, ...] = tuple(key for key in item["loc"] if key != "[key]")
    if path != item["loc"]:  # a key of free parameters
        return [Problem(path[:-1], f"the key {brief(path[-1])} is not text; put it in quotes, or remove it")]
    context = item.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, SpecError | RefusedError):
        return [Problem((*path, *inner), message) for inner, message in cause.problems]
    if cause is not None:
        said = str(cause)
        found = "" if said.startswith((brief(item["input"]), "a ")) else f"found {show(item['input'])}; "
        return [Problem(path, found + said)]
    if item["type"] == "extra_forbidden":
        return [Problem(path, _unknown_key(path, model))]
    if item["type"] == "missing":
        return [Problem(path, f"is missing{_needs(_section(path, model), '; give a mapping')}")]
    if item["type"] == "invalid_key":
        return [Problem(path[:-1], f"the key {brief(path[-1])} is not text; put it in quotes, or remove it")]
    wanted = _wanted(item["type"], context, path, model)
    return [Problem(path, f"found {show(item['input'])}; must be {wanted}" + _hint(item))]


def show(value: object) -> str:
    """A value as written in YAML, shortened if it is long."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    return brief(value)


def _wanted(kind: str, context: Mapping[str, Any], path: tuple[str | int, ...], model: type[BaseModel]) -> str:
    if kind == "model_type":
        return _needs(_section(path, model), "a mapping")
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    example = {"mean": "0.5", "std": "0.5", "metrics": "accuracy"}.get(str(path[-1]), "value")
    return _WANTED[kind].format(example, **context)


def _hint(item: Mapping[str, Any]) -> str:
    found, kind = item["input"], item["type"]
    if kind == "string_type" and isinstance(found, int | float):
        return f"; put it in quotes: '{show(found)}'"
    if kind == "bool_type" and isinstance(found, str) and found.lower() in _YAML_1_1_FLAGS:
        return f"; write {_YAML_1_1_FLAGS[found.lower()]}"
    if kind == "literal_error" and isinstance(found, str):
        hint = did_you_mean(found, re.findall(r"'(\w+)'", item["ctx"]["expected"])).strip()
        return f"; {hint}" if hint else ""
    if (
        kind.startswith("int_")
        and isinstance(found, str | float)
        and len(str(found)) < LONGEST_NAME
        and re.fullmatch(r"[0-9]+(\.0)?", str(found))
    ):
        return f"; write {int(float(found))}"
    return ""


def _needs(section: type[BaseModel] | None, words: str) -> str:
    return f"{words} with the keys {', '.join(_keys(section))}" if section else ""


def _unknown_key(path: tuple[str | int, ...], model: type[BaseModel]) -> str:
    *parents, last = path
    key = str(last)
    if key in _UNSUPPORTED:
        return _UNSUPPORTED[key]
    section = _section(parents, model) or model
    known = list(_keys(section))
    hint = did_you_mean(key, known)
    if not hint:
        elsewhere = [".".join(place) for place in _places(model) if place[-1] == key]
        hint = f"did you mean {' or '.join(map(repr, elsewhere))}? " if elsewhere else ""
    parameters = "; parameters go into params" if "params" in known and not hint else ""
    return f"unknown key; {hint}known here: {', '.join(known)}{parameters}"


def _keys(section: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _section(path: Sequence[str | int], model: type[BaseModel]) -> type[BaseModel] | None:
    """The section at a path; None if it is something else."""
    section: type[BaseModel] | None = model
    for key in path:
        field = _keys(section).get(str(key)) if section else None
        kinds = (field.annotation, *getattr(field.annotation, "__args__", ())) if field else ()
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return section


def _places(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all keys."""
    for key in _keys(_section(above, model) or model):
        yield (*above, key)
        if _section((*above, key), model) is not None:
            yield from _places(model, (*above, key))
