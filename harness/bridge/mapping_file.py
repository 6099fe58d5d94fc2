"""`mapping.yaml`: written by `match`, to be corrected by hand, and kept once somebody has done so."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.bridge.layers import Layer
from harness.bridge.mapping import OPEN, ArrayMap, Source
from harness.config.reading import read_yaml
from harness.errors import ConfigError, listed
from harness.files import move_aside, read_regular, replace_file
from harness.named import brief

_HOW = {"from", "axes", "blocks", "repeat", "flat"}
_KEYS = ("module", "arrays", "unused")
_AS_WRITTEN = "# match replaces this file only while it is as match wrote it: "


def write_mapping(
    path: Path, mapping: ArrayMap, layers: Sequence[tuple[Layer, Layer]], module: str, *, overwrite: bool = False
) -> Path | None:
    """Write `mapping.yaml`; one that somebody has edited is refused, or moved aside.

    Args:
        path: of the file.
        mapping: what to write.
        layers: the pairs of layers (of the run, of the module) that it follows, for its comments.
        module: what `--module` names.
        overwrite: move an edited file aside.

    Returns:
        Where that was moved to.

    Raises:
        ConfigError: if there is an edited file, or nothing can be written.
    """
    lines = [
        "# Which array of the module (left) comes from which array of the run (right). Correct what is wrong, replace",
        f"# every {OPEN}, and run `verify`. docs/leaving.md says what can stand on the right.",
        f"module: {module}",
        "arrays:",
    ]
    comments = {
        name: f"{there.described()} <- {here.described()}"
        for here, there in layers
        for name in list(there.arrays.values())[:1]
    }
    for target, source in mapping.sources.items():
        lines += [f"  # {comments[target]}"] if target in comments else []
        lines.append(f"  {target}: {_flow(source.plain())}")
    for target, names in mapping.open.items():
        lines.append(f"  {target}: '{OPEN}'  # one of {', '.join(names)}")
    if mapping.unused:
        lines += ["# arrays of the run that the module does not need", "unused:"]
        lines += [f"  - {name}" for name in mapping.unused]
    text = "\n".join(lines) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_edited = path.exists() and _is_edited(read_regular(path), text.encode())
        if is_edited and not overwrite:
            raise ConfigError(
                f"{path}: has been edited, or an earlier version wrote it, so it is kept; compare by it with verify, "
                "move it aside with --overwrite, or choose another --mapping"
            )
        moved = move_aside(path) if is_edited else None
        replace_file(path, f"{text}{_AS_WRITTEN}{_digest(text.encode())}\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --mapping") from None
    return moved


def read_mapping(path: Path) -> tuple[ArrayMap, str]:
    """A mapping from its file, and the module that it was written for.

    Raises:
        ConfigError: if it cannot be read, or an entry is not what it may be.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("arrays"), dict):
        raise ConfigError(f"{path}: must be a mapping with `arrays`, as `bridge match` writes it")
    sources, left_open, problems = {}, {}, []
    for target, value in raw["arrays"].items():
        if value == OPEN:
            left_open[str(target)] = ["the run's arrays"]
            continue
        try:
            sources[str(target)] = _source(value)
        except ConfigError as error:
            problems.append(f"arrays.{target}: {error}")
    problems += [f"{key}: unknown key; known: {', '.join(_KEYS)}" for key in raw if key not in _KEYS]
    unused = raw.get("unused") or []
    if not isinstance(unused, list):
        problems.append(f"unused: found {brief(unused)}; give a list of the run's arrays")
    if problems:
        raise ConfigError(f"{path}:{listed(problems)}")
    return ArrayMap(sources, [str(name) for name in unused], left_open), str(raw.get("module", ""))


def _source(value: Any) -> Source:
    if isinstance(value, bool) or value is None or isinstance(value, list):
        raise ConfigError(f"found {brief(value)}; give the name of an array, a number, or {{from: name, ...}}")
    if isinstance(value, int | float):
        return Source(number=float(value))
    if isinstance(value, str):
        return Source(value)
    unknown = set(value) - _HOW
    if unknown or not isinstance(value.get("from"), str):
        raise ConfigError(f"found {brief(value)}; it must have `from`, and may have axes, blocks, repeat and flat")
    numbers: dict[str, Any] = {}
    for key in ("axes", "blocks", "flat"):
        if key in value:
            numbers[key] = _whole_numbers(value[key], key)
    for key in ("axes", "blocks"):
        if key in numbers and sorted(numbers[key]) != list(range(len(numbers[key]))):
            raise ConfigError(f"{key} is {value[key]}; give each of 0 to {len(numbers[key]) - 1} once")
    repeat = value.get("repeat", 1)
    if not isinstance(repeat, int) or repeat < 1:
        raise ConfigError(f"repeat is {brief(repeat)}; give a whole number from 1")
    return Source(value["from"], repeat=repeat, **numbers)


def _whole_numbers(value: Any, key: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or any(not isinstance(one, int) or one < 0 for one in value):
        raise ConfigError(f"{key} is {brief(value)}; give a list of whole numbers")
    return tuple(value)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {one}" for key, one in value.items()) + "}"
    return str(value)


def _is_edited(content: bytes, new: bytes) -> bool:
    text, _, digest = content.rpartition(_AS_WRITTEN.encode())
    return content != new and digest != f"{_digest(text)}\n".encode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
