"""The request to a reader of a data set, and its answer about sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.functions import Functions
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.data.pictures.request import PictureRequest


@dataclass(frozen=True)
class DataRequest:
    """The part of the configuration that says which data to read.

    Attributes:
        name: `data.name`.
        root: `data.root`, the folder with the files, or None.
        download: `data.download`, whether missing files may be fetched.
        params: `data.params`, for the data sets that take parameters.
        labels_are_numbers: whether integer labels are numbers to compute with, not classes to count; None: where
            counting would read every sample.
        functions: of the user's own, between items and batches.
        pictures: `data.pictures`, for the data sets of picture files.
    """

    name: str
    root: Path | None = None
    download: bool = False
    params: Mapping[str, object] = field(default_factory=dict)
    labels_are_numbers: bool | None = False
    functions: Functions = field(default_factory=Functions)
    pictures: PictureRequest | None = None

    @property
    def where(self) -> str:
        """The beginning of messages."""
        return f"data.name: {self.name!r}"

    @property
    def folder(self) -> Path:
        """`root`, or the default folder for downloads, `~/.cache/harness/<name>`."""
        return self.root or Path.home() / ".cache" / "harness" / self.name

    def refuse(self, *settings: str) -> None:
        """Raise a `DataError` if one of these settings is given, because it would have no effect."""
        given = [f"data.{name}" for name in settings if getattr(self, name)]
        if given:
            raise DataError(f"{self.where}: {', '.join(given)}: no effect on this data set; leave it out")


@dataclass(frozen=True)
class Counts:
    """The number of samples in each split.

    Attributes:
        train: training samples, without those held out for validation.
        validation: samples of the validation split, 0 if there is none.
        test: samples of the test split, 0 if there is none.
        official: whether the files were absent and these are the published counts of the data set.
    """

    train: int
    validation: int
    test: int
    official: bool = False
