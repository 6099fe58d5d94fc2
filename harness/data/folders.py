"""Folders of picture files: a folder a class, or a list that im2rec wrote.

Without a list, every folder that has pictures in it is a class, in the sorted order of paths, as im2rec's `--recursive`
numbers them, so a folder and the .rec file that was packed from it have the same labels. A list (`.lst`) has a line for
each picture: its key, its label or labels, and its path in the folder, between tabs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.data.arrays import Indices
from harness.data.record_format import Labels
from harness.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Picture files and their labels.

    Attributes:
        folder: that they are in.
        names: of each file, its path in the folder.
        labels: `(n, k)`.
        classes: the name of each class; `None` where labels come from a list.
    """

    folder: Path
    names: tuple[str, ...]
    labels: Labels
    classes: tuple[str, ...] | None

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.names)

    def name_of(self, row: int) -> str:
        """What messages call a picture."""
        return str(self.folder / self.names[row])

    def read(self, row: int) -> tuple[memoryview, Labels]:
        """The bytes of a file, and its labels `(k,)`.

        Raises:
            DataError: if it cannot be read.
        """
        try:
            content = (self.folder / self.names[row]).read_bytes()
        except OSError as error:
            raise DataError(f"{self.name_of(row)}: cannot be read ({error.strerror})") from error
        return memoryview(content), self.labels[row]


def listed_folder(folder: Path, class_names: Path | None = None) -> PictureFiles:
    """All pictures below a folder, a class for each folder that has any.

    Args:
        folder: with a folder for each class.
        class_names: a file with the name of a class in each line, which orders them, and leaves others out; by default
            all, sorted.

    Raises:
        DataError: if there are no pictures, or a class of the file has none.
    """
    found = {name: names for name, names in _by_folder(folder).items() if names}
    if not found:
        raise DataError(
            f"{folder}: has no picture; allowed: a folder for each class, with files ending in {', '.join(SUFFIXES)}"
        )
    if "." in found:
        raise DataError(
            f"{folder}: {found['.'][0]} lies beside the folders of classes; move it into one, or give a list (lst)"
        )
    classes = list(found) if class_names is None else class_names_of(class_names)
    missing = [name for name in classes if name not in found]
    if missing:
        raise DataError(f"{class_names}: there is no picture in {folder / missing[0]}; remove the class, or add some")
    names = [f"{one}/{name}" for one in classes for name in found[one]]
    labels = np.repeat(np.arange(len(classes)), [len(found[one]) for one in classes])
    return PictureFiles(folder, tuple(names), labels.astype(np.float32)[:, None], tuple(classes))


def class_names_of(path: Path) -> list[str]:
    """The lines of a file with a class in each.

    Raises:
        DataError: if it cannot be read, or is empty.
    """
    return _lines_of(path)


class Listed(NamedTuple):
    """The lines of a list, in their order.

    Attributes:
        keys: `(n,)`.
        names: of each picture, its path in the folder.
        labels: `(n, k)`.
    """

    keys: Indices
    names: tuple[str, ...]
    labels: Labels


def listed_file(folder: Path, path: Path) -> PictureFiles:
    """The pictures of a list, in the order of their keys.

    Args:
        folder: that the list's paths are in.
        path: of the list.

    Raises:
        DataError: as `read_list`.
    """
    listed = read_list(path)
    order = np.argsort(listed.keys)
    return PictureFiles(folder, tuple(listed.names[row] for row in order), listed.labels[order], None)


def read_list(path: Path) -> Listed:
    """What a list says.

    Args:
        path: of the list.

    Raises:
        DataError: naming the line that is none.
    """
    rows: dict[int, tuple[str, list[float]]] = {}
    width = 0
    for number, line in enumerate(_lines_of(path), start=1):
        words = line.split("\t")
        try:
            key, labels = int(words[0]), [float(word) for word in words[1:-1]]
        except ValueError:
            labels = []
        width = width or len(labels)
        if not labels or len(labels) != width or key in rows:
            raise DataError(
                f"{path}, line {number}: found {line[:80]!r}; allowed: a key that no other line has, "
                f"{width or 'one or more'} numbers, and a path, between tabs"
            )
        rows[key] = (words[-1], labels)
    names, labels_of_all = zip(*rows.values(), strict=True)
    return Listed(np.array(list(rows)), names, np.array(labels_of_all, np.float32))


def _by_folder(folder: Path) -> dict[str, list[str]]:
    """The names of the pictures in each folder below this one, by its path; both sorted."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one that has a folder for each class")
    found = {}
    for root, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        path = os.path.relpath(root, folder).replace(os.sep, "/")
        found[path] = sorted(name for name in names if name.lower().endswith(SUFFIXES))
    return found


def _lines_of(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a text file") from error
    if not lines:
        raise DataError(f"{path}: is empty")
    return lines
