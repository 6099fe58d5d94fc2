"""YAML as people mean it: `1e-3` is a number, `1:30` and `off` are text, a key that stands twice is an error.

PyYAML follows YAML 1.1, where `1e-3` is a string, `1:30` is 90, `off` is false and the last of two equal keys wins.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from harness.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's plain scalars."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key.value!r} stands twice in one mapping; keep one of the two",
                    key.start_mark,
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_SCALARS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)
_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))


def read_yaml(path: Path) -> Any:
    """The plain data in a YAML file.

    Raises:
        ConfigError: if the file cannot be read or is no YAML; the message has the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"{path}: cannot be read ({reason}); give an existing file, such as configs/digits.yaml"
        ) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The plain data in YAML text; `source` names it in messages."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}: {problem}") from None


def set_path(raw: Any, override: str) -> None:
    """Apply one `key.path=value` to plain data, in place; missing mappings on the way are made.

    Raises:
        ConfigError: if the override has no `=`, its value is no YAML, or the path leads through a value.
    """
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise ConfigError("expected key.path=value, such as lr.base=0.1")
    value = parse_yaml(text, "its value")
    where = raw
    for key in keys[:-1]:
        if where.get(key) is None:
            where[key] = {}
        where = where[key]
        if not isinstance(where, dict):
            raise ConfigError(f"{key!r} holds {where!r}, not a mapping, so nothing can be set inside it")
    where[keys[-1]] = value
