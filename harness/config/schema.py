"""Descriptions of the configuration: JSON Schema for editors, and a reference page for people.

Both come from the types and descriptions of the fields, so nothing is written twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from harness.config.model import RunConfig
from harness.schedules.schema import schedule_schema


def json_schema() -> str:
    """The JSON Schema of a configuration file, as text."""
    schema = RunConfig.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A run of mxnet-horovod-harness"
    schema["$defs"]["Schedule"] = schedule_schema()
    return json.dumps(_with_schedules(schema), indent=1) + "\n"


def reference() -> str:
    """Every setting with its default and its meaning, as a Markdown table."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {default} | {text} |" for key, default, text in _rows(RunConfig, "")]
    return "\n".join(lines) + "\n"


def _with_schedules(value: Any) -> Any:
    """Insert the definition of schedules where a field's type has left a marker."""
    if isinstance(value, dict):
        if value.get("$comment") == "schedule":
            rest = {key: item for key, item in value.items() if key != "$comment"}
            return {**rest, "$ref": "#/$defs/Schedule"}
        return {key: _with_schedules(item) for key, item in value.items()}
    return [_with_schedules(item) for item in value] if isinstance(value, list) else value


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        section = _section_of(field.annotation)
        if section is not None:
            yield key, "" if field.default is not None else "`null`", field.description or ""
            yield from _rows(section, f"{key}.")
            continue
        default = "required" if field.default is PydanticUndefined else f"`{_shown(field.default)}`"
        yield key, default, " ".join((field.description or "").split()).replace("|", "\\|")


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, or may hold; None if it holds none."""
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _shown(default: object) -> str:
    return json.dumps(default) if isinstance(default, bool | int | float | list | dict | None) else str(default)
