"""Turns what pydantic found into sentences: key path, what was found, what is allowed, a guess at what was meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from harness.errors import ConfigError
from harness.named import did_you_mean
from harness.schedules import SpecError

_MIXED_PRECISION = (
    "mixed precision is not supported: MXNet's AMP patches its operators for good, and its loss scale would "
    "skip updates "
    "that the plan counts; parameters and gradients are float32"
)
_UNSUPPORTED = {
    **dict.fromkeys(("amp", "fp16", "bf16", "dtype", "mixed_precision", "multi_precision"), _MIXED_PRECISION),
    **dict.fromkeys(
        ("sparse", "sparse_grad", "row_sparse"),
        "sparse parameters are not supported: reducing a row_sparse gradient through Horovod 0.28.1 corrupts memory",
    ),
    **dict.fromkeys(
        ("plateau", "reduce_on_plateau", "reduce_lr_on_plateau", "patience"),
        "plateau schedules are not supported: a learning rate that depends on measured losses is no function of the "
        "iteration, so neither ranks nor a resumed run could be proved to agree; use multi_factor or "
        "warmup_stable_decay",
    ),
    "accumulation": "is set through batch.shards: more shards than workers means that each worker accumulates",
}


class Problem(NamedTuple):
    """One thing wrong: where in the configuration, and what."""

    path: tuple[str | int, ...]
    message: str


def config_error(source: str, problems: Sequence[Problem]) -> ConfigError:
    """One error for all problems, a line each."""
    lines = []
    for path, message in problems:
        where = ".".join(map(str, path))
        lines.append(f"{source}: {where}: {message}" if where else f"{source}: {message}")
    return ConfigError("\n".join(lines))


def explain(error: ValidationError, model: type[BaseModel], raw: dict[str, Any]) -> list[Problem]:
    """The problems in a pydantic error, in the order of the file, with a guess at misspelt keys."""
    problems: list[Problem] = []
    for item in error.errors():
        path = item["loc"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, SpecError):
            problems += [Problem((*path, *inner), message) for inner, message in cause.problems]
        elif item["type"] == "extra_forbidden":
            problems.append(Problem(path, _unknown_key(path, model)))
        elif item["type"] == "missing":
            problems.append(Problem(path, "is missing and has no default"))
        elif cause is not None and isinstance(item["input"], dict | BaseModel):
            problems.append(Problem(path, str(cause)))
        elif cause is not None:
            problems.append(
                Problem(path, f"{item['input']!r} is not possible: {cause}" if "allowed:" in str(cause) else str(cause))
            )
        else:
            problems.append(Problem(path, f"found {item['input']!r}; {item['msg'][0].lower()}{item['msg'][1:]}"))
    return _merge_unions(problems, raw)


def _unknown_key(path: tuple[str | int, ...], model: type[BaseModel]) -> str:
    *parents, key = path
    if str(key) in _UNSUPPORTED:
        return _UNSUPPORTED[str(key)]
    section: Any = model
    for parent in parents:
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        section = next(
            (
                kind
                for kind in _kinds(fields[str(parent)].annotation)
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            ),
            section,
        )
    known = [field.alias or name for name, field in section.model_fields.items()]
    return f"unknown key; {did_you_mean(str(key), known)}known here: {', '.join(known)}"


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def _merge_unions(problems: list[Problem], raw: dict[str, Any]) -> list[Problem]:
    """Pydantic reports a failed union once per branch, the branch's name as a last key that the file does not have."""
    merged: dict[tuple[str | int, ...], list[str]] = {}
    for path, message in problems:
        while len(path) > 1 and not _is_container(raw, path[:-1]):
            path = path[:-1]
        merged.setdefault(path, [])
        if message not in merged[path]:
            merged[path].append(message)
    return [Problem(path, " or ".join(messages)) for path, messages in merged.items()]


def _is_container(raw: Any, path: Sequence[str | int]) -> bool:
    for key in path:
        try:
            raw = raw[key]
        except (KeyError, IndexError, TypeError):
            return False
    return isinstance(raw, dict | list)
