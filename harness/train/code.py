"""Which code a run is: a checksum of the harness and of every module that the configuration names."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.named import CODE_PATTERN

_SHOWN = 16  # hexadecimal digits


def code_of(settings: Any) -> dict[str, str]:
    """The first digits of sha256 by name: of the harness's files, and of the file of each module of the user's own.

    What those modules import in turn is not looked at.

    Args:
        settings: a configuration as plain data, whose modules have been imported.
    """
    package = Path(__file__).parents[1]
    found = {"harness": _checksum(package, sorted(package.rglob("*.py")))}
    for name in sorted({text.partition(":")[0] for text in _texts(settings) if re.fullmatch(CODE_PATTERN, text)}):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and not name.startswith("harness."):
            found[name] = _checksum(Path(file).parent, [Path(file)])
    return found


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _checksum(folder: Path, files: list[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        total.update(f"{file.relative_to(folder)} {len(content)}\n".encode() + content)
    return total.hexdigest()[:_SHOWN]
