"""YAML as people mean it: `1e-3` is a number, `1:30` and `off` are text, and a duplicate key is an error.

PyYAML follows YAML 1.1, where `1e-3` is a string, `1:30` is 90, `010` is 8, `off` is false, and the last of duplicate
keys wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from harness.config.finding import advice_for
from harness.errors import ConfigError
from harness.named import brief, cut

MOST_BYTES = 500_000  # of a file, which is read at once
MOST_VALUES = 20_000
MOST_DEPTH = 60


class _OwnError(yaml.constructor.ConstructorError):
    """A problem that PyYAML itself would accept."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's plain scalars, which stops when a text is too large for a configuration."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._num_values = 0
        self._depth = 0
        self._weights: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Count the values; those behind an alias count at every use, because each use copies them."""
        is_alias = self.check_event(yaml.AliasEvent)
        event = self._peek()
        before = self._num_values
        self._num_values += self._weights.get(event.anchor, 1) if is_alias else 1
        self._depth += 1
        if self._num_values > MOST_VALUES:
            raise _OwnError(
                None,
                None,
                f"more than {MOST_VALUES:,} values, counting aliases (*name) each time they are used; a "
                "configuration has a few hundred, and tables belong in separate files",
                event.start_mark,
            )
        if self._depth > MOST_DEPTH:
            problem = f"nested too deeply, more than {MOST_DEPTH} levels; write plain values"
            raise _OwnError(None, None, problem, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias and event.anchor is not None:
            self._weights[event.anchor] = self._num_values - before
        return node

    def _peek(self) -> Any:
        peek: Callable[[], Any] = self.peek_event
        return peek()

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _at(key, "a key must be text, not a list or a mapping")
            if key.value in seen:
                raise _at(key, f"the key {brief(key.value)} appears twice in one mapping; keep one of the two")
            seen.add(key.value)
        return node

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        try:
            return int(self.construct_scalar(node))  # not SafeLoader's, for which 010 is 8
        except ValueError:
            raise _at(node, f"{node.value[:20]!r} is not a usable whole number") from None


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes any text that either version of YAML would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_SCALARS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)
_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))
    _Dumper.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_decimal)

_MEANT = (  # what PyYAML says, and what to say instead
    (r"found character '\\t'", "a tab; indent with spaces"),
    (
        r"mapping values are not allowed",
        "a ':' cannot start a value here; indent the line above, or put text in quotes",
    ),
    (r"but found another document", "a second document ('---'); a configuration is one"),
    (r"could not determine a constructor for the tag '(.*)'", r"the tag \1 is not allowed; write a plain value"),
    (r"found undefined alias '?(.*?)'?$", r"the alias *\1 has no anchor; put text that begins with * in quotes"),
    (
        r"but (found|got) '<(stream|document) end>'|found unexpected end of stream",
        "the text ends before every bracket and quote is closed",
    ),
)


def read_yaml(path: Path) -> Any:
    """The plain data in a YAML file.

    Raises:
        ConfigError: if the file cannot be read or is not valid YAML; the message gives the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content[:MOST_BYTES].decode("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); {advice_for(path)}") from None
    if len(content) > MOST_BYTES:
        raise ConfigError(
            f"{path}: is larger than {MOST_BYTES:,} bytes, too large for a configuration; give another file with "
            "--config"
        )
    return parse_yaml(text.replace("\r\n", "\n"), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The plain data in YAML text; `source` names it in messages.

    Raises:
        ConfigError: if it is not valid YAML, or if a value contains itself.
    """
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark and "\n" in text else source
        problem = str(getattr(error, "problem", None) or error)
        raise ConfigError(f"{where}: {problem if isinstance(error, _OwnError) else _in_words(problem)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = (
            "nested too deeply"
            if isinstance(error, RecursionError)
            else f"a tag does not fit its value ({cut(str(error), 200)})"
        )
        raise ConfigError(f"{source}: {reason}; write plain values") from None
    if _contains_itself(data, [], set()):
        raise ConfigError(f"{source}: an alias (*name) appears inside the value that it repeats; write the value out")
    return data


def dump_yaml(data: Any) -> str:
    """Plain data as YAML that `parse_yaml` reads back as equal data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def path_of(override: str) -> tuple[str, ...]:
    """The keys of an override `key.path=value`."""
    return tuple(override.partition("=")[0].strip().split("."))


def apply_override(raw: Any, override: str) -> None:
    """Apply one `key.path=value` to plain data, in place; missing mappings on the way are created.

    Raises:
        ConfigError: if the override has no `=`, its value is not valid YAML, or the path leads through a value.
    """
    _, equals, text = override.partition("=")
    keys = path_of(override)
    if not equals or not all(keys):
        raise ConfigError("must be key.path=value, such as lr.base=0.1")
    if len(keys) > MOST_DEPTH:
        raise ConfigError(f"the key is nested too deeply, with {len(keys)} levels; no setting is")
    value = parse_yaml(text, "its value")
    where = raw
    for depth, key in enumerate(keys[:-1], start=1):
        if where.get(key) is None:
            where[key] = {}
        where = where[key]
        if not isinstance(where, dict):
            place = ".".join(keys[:depth])
            raise ConfigError(f"{place} holds {brief(where)}, which has no keys; set all of it: {place}=...")
    where[keys[-1]] = value


def _at(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return _OwnError(None, None, problem, node.start_mark)


def _in_words(problem: str) -> str:
    problem = problem.splitlines()[0]
    for pattern, meaning in _MEANT:
        match = re.search(pattern, problem)
        if match:
            return cut(match.expand(meaning), 200)
    return f"this is not valid YAML: {cut(problem, 200)}"


def _contains_itself(value: Any, above: list[int], done: set[int]) -> bool:
    if not isinstance(value, dict | list) or id(value) in done:
        return False
    if id(value) in above:
        return True
    above.append(id(value))
    found = any(_contains_itself(v, above, done) for v in (value.values() if isinstance(value, dict) else value))
    above.pop()
    done.add(id(value))
    return found
