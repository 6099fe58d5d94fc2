"""Where checkpoints are: their names, in order, and the path that stands for some of them. Looks into none."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import CheckpointError

_NAME = re.compile(r"iteration-([0-9]{9,})")


def checkpoint_path(folder: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration is."""
    return folder / f"iteration-{iteration:09d}"


def iteration_of(path: Path) -> int | None:
    """The iteration in a checkpoint's name; `None` for any other name."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; whether they are valid is not checked.

    Raises:
        CheckpointError: if the folder cannot be read.
    """
    try:
        numbered = [(iteration_of(path), path) for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error.strerror}); make it readable") from None
    return [path for _, path in sorted((number, path) for number, path in numbered if number is not None)]


def locate(path: Path) -> list[Path]:
    """The checkpoints that a path stands for, oldest first: one itself, a folder of them, or a run's folder.

    Raises:
        CheckpointError: if there are none.
    """
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:  # a name that no file system takes
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{str(path)[:80]}: cannot be read ({reason}); give another path") from None
    if iteration_of(path) is not None and is_folder:
        return [path]
    found = list_checkpoints(path) or list_checkpoints(path / "checkpoints")
    if not found:
        there = "holds no checkpoints" if is_folder else "is a file" if path.exists() else "there is no such folder"
        raise CheckpointError(
            f"{path}: {there}; give a checkpoint (runs/NAME/checkpoints/iteration-000000100), a folder of checkpoints, "
            "or a run's folder"
        )
    return found
