"""The part of a request that is about picture files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.data.pictures.recipe import Recipe

OF_PICTURES = ("records", "folder")  # the data sets that have any


@dataclass(frozen=True)
class SplitFiles:
    """Where the pictures of a split are.

    Attributes:
        rec: RecordIO files.
        idx: the index of the only one; by default each has its own beside it.
        folder: of picture files.
        lst: the list of those.
    """

    rec: tuple[Path, ...] = ()
    idx: Path | None = None
    folder: Path | None = None
    lst: Path | None = None

    def under(self, root: Path) -> SplitFiles:
        """The same, with relative paths taken from a folder."""
        idx, folder, lst = (
            None if path is None else root / path.expanduser() for path in (self.idx, self.folder, self.lst)
        )
        return SplitFiles(tuple(root / path.expanduser() for path in self.rec), idx, folder, lst)


@dataclass(frozen=True)
class PictureRequest:
    """The part of the configuration that is about pictures alone.

    Attributes:
        train: `data.pictures.train`.
        validation: `data.pictures.validation`.
        test: `data.pictures.test`.
        recipe: what becomes of pictures.
        num_classes: `data.pictures.num_classes`.
        class_names: `data.pictures.class_names`.
        workers: threads that decode; 0 for none.
        timeout_s: that one may take for a picture.
        replace_damaged: whether a damaged picture is replaced by the next.
    """

    train: SplitFiles
    validation: SplitFiles | None
    test: SplitFiles | None
    recipe: Recipe
    num_classes: int | None = None
    class_names: Path | None = None
    workers: int = 1
    timeout_s: float = 120.0
    replace_damaged: bool = False

    def class_names_under(self, root: Path | None) -> Path | None:
        """The file with the names of classes, with a relative path taken from a folder."""
        return None if self.class_names is None else (root or Path()) / self.class_names

    def located(self, root: Path | None) -> list[SplitFiles | None]:
        """The files of the three splits, with relative paths taken from a folder."""
        splits = self.train, self.validation, self.test
        return [None if one is None else one.under(root or Path()) for one in splits]
