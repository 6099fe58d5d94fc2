"""Folders of picture files: a folder a class, or a list that im2rec wrote.

Without a list, every folder that has pictures in it is a class, in the sorted order of paths, as im2rec's `--recursive`
numbers them, so a folder and the .rec file that was packed from it have the same labels. A list (`.lst`) has a line for
each picture: its key, its label or labels, and its path in the folder, between tabs.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.data.arrays import Indices
from harness.data.paths import Paths
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
    names: Paths
    labels: Labels
    classes: tuple[str, ...] | None

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.names)

    def name_of(self, row: int) -> str:
        """What messages call a picture."""
        return str(self.folder / self.names[row])

    def listing(self) -> str:
        """A digest of all names and labels."""
        total = hashlib.blake2b(self.labels.tobytes(), digest_size=8)
        for block in self.names.blocks():
            total.update(block)
        return total.hexdigest()

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


def listed_folder(
    folder: Path, class_names: Path | None = None, of_training: tuple[str, ...] | None = None
) -> PictureFiles:
    """All pictures below a folder, a class for each folder that has any.

    Args:
        folder: with a folder for each class.
        class_names: a file with the name of a class in each line, which orders them, and leaves others out; by default
            all, sorted.
        of_training: the classes of the training set, which number those of a set that is held out; it need not have
            pictures of all.

    Raises:
        DataError: if there are no pictures, a folder cannot be read, a class of the file has no pictures in the
            training set, or there is a class that the training set does not have.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one that has a folder for each class")
    wanted = None if class_names is None else class_names_of(class_names)
    twice = [name for name, count in Counter(wanted or ()).items() if count > 1]
    if twice:
        raise DataError(f"{class_names}: {twice[0]} is there twice; remove one")
    counts: dict[str, int] = {}

    def paths() -> Iterator[str]:
        for path, names in _by_folder(folder) if wanted is None else ((one, _names_in(folder / one)) for one in wanted):
            if names:
                if of_training is not None and path not in of_training and path != ".":
                    raise DataError(
                        f"{folder / path}: the training set has no pictures of a class {path!r}; remove the folder, or "
                        "add some there. Its classes number those of every set"
                    )
                counts[path] = len(names)
                yield from (f"{path}/{name}" for name in names)

    found = Paths.of(paths())
    if not counts and (wanted is None or of_training is not None):
        raise DataError(
            f"{folder}: has no picture; allowed: a folder for each class, with files ending in {', '.join(SUFFIXES)}"
        )
    if "." in counts:
        raise DataError(
            f"{folder}: {found[0].removeprefix('./')} lies beside the folders of classes; move it into one, or give a "
            "list (lst)"
        )
    missing = [name for name in wanted or () if name not in counts and of_training is None]
    if missing:
        raise DataError(f"{class_names}: there is no picture in {folder / missing[0]}; remove the class, or add some")
    classes = tuple(counts) if of_training is None else of_training
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.repeat(np.array([numbers[name] for name in counts], np.float32), list(counts.values()))
    return PictureFiles(folder, found, labels[:, None], classes)


def class_names_of(path: Path) -> list[str]:
    """The lines of a file with a class in each.

    Raises:
        DataError: if it cannot be read, or is empty.
    """
    return [line for _, line in _numbered_lines(path)]


class Listed(NamedTuple):
    """The lines of a list, in their order.

    Attributes:
        keys: `(n,)`.
        names: of each picture, its path in the folder.
        labels: `(n, k)`.
    """

    keys: Indices
    names: Paths
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
    return PictureFiles(folder, listed.names.ordered(order), listed.labels[order], None)


def read_list(path: Path) -> Listed:
    """What a list says, read line by line, so that a million lines take little more than what they say.

    Args:
        path: of the list.

    Raises:
        DataError: naming the line that is none.
    """
    keys, labels = array("q"), array("f")

    def names() -> Iterator[str]:
        width = 0
        for number, line in _numbered_lines(path):
            words = line.split("\t")
            try:
                keys.append(int(words[0]))
                labels.extend(float(word) for word in words[1:-1])
            except (ValueError, OverflowError):
                raise _wrong_line(path, number, line, width) from None
            width = width or len(words) - 2
            if width < 1 or len(words) - 2 != width or "\0" in line:
                raise _wrong_line(path, number, line, width)
            yield words[-1]

    found = Paths.of(names())
    held = np.array(keys)
    width = len(labels) // len(held)
    order = np.argsort(held, kind="stable")
    twice = order[1:][np.diff(held[order]) == 0]  # not the first of the same key
    if len(twice):
        number, line = next(islice(_numbered_lines(path), int(twice.min()), None))
        raise _wrong_line(path, number, line, width)
    return Listed(held, found, np.array(labels).reshape(-1, width))


def _wrong_line(path: Path, number: int, line: str, width: int) -> DataError:
    return DataError(
        f"{path}, line {number}: found {line[:80]!r}; allowed: a key that no other line has, {width or 'one or more'} "
        "numbers, and a path, between tabs"
    )


def _by_folder(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below this one by its path, sorted, and the names of the pictures in it, sorted."""
    for root, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        folders.sort()
        yield os.path.relpath(root, folder).replace(os.sep, "/"), _pictures_of(names)


def _names_in(folder: Path) -> list[str]:
    """The names of the pictures in a folder, sorted; none if there is no such folder."""
    _, _, names = next(os.walk(folder, onerror=_refuse), ("", [], [])) if folder.is_dir() else ("", [], [])
    return _pictures_of(names)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); no folder is left out") from error


def _pictures_of(names: list[str]) -> list[str]:
    return sorted(name for name in names if name.lower().endswith(SUFFIXES))


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text that are not empty, and their numbers from 1."""
    is_empty = True
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    is_empty = False
                    yield number, line.rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a text file") from error
    if is_empty:
        raise DataError(f"{path}: is empty")
