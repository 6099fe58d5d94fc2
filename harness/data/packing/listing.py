"""Which pictures are packed, under which keys and labels, and in which order."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from harness.data.arrays import Indices
from harness.data.folders import PictureFiles, read_list
from harness.data.record_format import Labels
from harness.errors import DataError

_SEED_OF_IM2REC = 100
_ENDS = frozenset("\t\n\r")  # of words and lines


class Listing(NamedTuple):
    """Pictures in the order of their records.

    Attributes:
        folder: that the names are relative to.
        keys: of the records, `(n,)`.
        names: of the files.
        labels: `(n, k)`.
    """

    folder: Path
    keys: Indices
    names: tuple[str, ...]
    labels: Labels

    @classmethod
    def of_folder(cls, files: PictureFiles, *, shuffled: bool = True) -> Self:
        """A folder with a folder for each class, in the order that im2rec gives it.

        Args:
            files: of `listed_folder`; the keys are their numbers.
            shuffled: as im2rec does unless it is told not to, so that whoever reads records one after the other finds
                the classes mixed.

        Raises:
            DataError: if a name cannot stand in a line of a list.
        """
        for name in files.names:
            if not _ENDS.isdisjoint(name):
                raise DataError(
                    f"{files.folder}: {name!r}: no list can have a name with a tab or an end of line; rename it"
                )
        rows = list(range(len(files)))
        if shuffled:
            random.Random(_SEED_OF_IM2REC).shuffle(rows)
        return cls(files.folder, np.array(rows), tuple(files.names[row] for row in rows), files.labels[rows])

    @classmethod
    def of_list(cls, folder: Path, path: Path) -> Self:
        """What a list says, in the order of its lines.

        Raises:
            DataError: if it is none, or a key is negative.
        """
        listed = read_list(path)
        wrong = np.flatnonzero(listed.keys < 0)
        if len(wrong):
            raise DataError(
                f"{path}, line {wrong[0] + 1}: the key is {listed.keys[wrong[0]]}; keys of records start at 0"
            )
        return cls(folder, listed.keys, tuple(listed.names), listed.labels)

    def part(self, rows: slice | Indices) -> Listing:
        """Some of the pictures."""
        numbers = np.arange(len(self.names))[rows]
        return Listing(self.folder, self.keys[rows], tuple(self.names[row] for row in numbers), self.labels[rows])

    def split(self, ratio: float) -> tuple[Listing, Listing]:
        """The first pictures, and the rest, as im2rec's `--train-ratio` splits them.

        Args:
            ratio: the share of the first, between 0 and 1.

        Raises:
            DataError: if one of them would be empty.
        """
        first = int(len(self.names) * ratio)
        if not 0 < first < len(self.names):
            raise DataError(
                f"{self.folder}: --train-ratio {ratio:g} of {len(self.names)} pictures leaves {first} to train on and "
                f"{len(self.names) - first} to validate with; each needs at least one"
            )
        return self.part(slice(first)), self.part(slice(first, None))

    def digest(self) -> str:
        """sha256 of keys, names and labels."""
        found = hashlib.sha256("\0".join(self.names).encode(errors="surrogateescape"))
        found.update(self.keys.astype("<i8").tobytes())
        found.update(self.labels.astype("<f4").tobytes())
        return found.hexdigest()

    def text(self) -> str:
        """The list, as im2rec writes it: a line with key, labels and name of each picture."""
        rows = zip(self.keys.tolist(), self.labels.tolist(), self.names, strict=True)
        return "".join(
            "\t".join([str(key), *(f"{label:f}" for label in labels), name]) + "\n" for key, labels, name in rows
        )
