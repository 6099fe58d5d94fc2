"""Which file `--config` means: a path, or the name of a configuration."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from harness.shipped import shipped_configs

_OWN = Path("configs")


def find_config(path: str | Path) -> Path:
    """The file that is meant.

    A file that exists always wins. Only a bare name (`digits`, `digits.yaml`) is looked up, first in the folder
    `configs/` of the working directory and then among the shipped configurations; a path with a folder is never
    replaced by another file.
    """
    text = str(path)
    if os.path.dirname(text) or (os.path.exists(text) and not os.path.isdir(text)):
        return Path(path)
    name = text.removesuffix(".yaml")
    return {**shipped_configs(), **_files_in(_OWN)}.get(name, Path(path))


def advice_for(path: Path) -> str:
    """What to do about a file that cannot be read: the one that was probably meant, or all that have names."""
    for folder in (path.parent, _OWN):
        files = {name: file for name, file in _files_in(folder).items() if file != path}
        close = difflib.get_close_matches(path.stem, files, n=1)
        if close:
            return f"did you mean '{files[close[0]]}'?"
    names = list(shipped_configs())
    close = difflib.get_close_matches(path.stem, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"give a file, or a name: {', '.join(names)}"


def _files_in(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted(folder.glob("*.y*ml"))} if folder.is_dir() else {}
