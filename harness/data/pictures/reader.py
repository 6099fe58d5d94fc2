"""`records` and `folder`: splits of picture files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.folders import PictureFiles, class_names_of, listed_file, listed_folder
from harness.data.memory import BatchMemory
from harness.data.pictures.dataset import PictureDataset, PictureSource, is_unreadable, what_to_do
from harness.data.pictures.request import PictureRequest, SplitFiles
from harness.data.records import RecordFile, RecordFiles, RecordPictures
from harness.data.request import Counts, DataRequest
from harness.data.splits import Splits, make_splits, most_classes
from harness.errors import DataError

_KINDS = {"records": ("rec", "folder"), "folder": ("folder", "rec")}  # what each reads, and what it does not
SPLITS = ("train", "validation", "test")
_FEW_RECORDS = 100_000  # whose labels are read to count classes


def load_pictures(request: DataRequest) -> Splits:
    """The splits; nothing but indices, lists and the names of files is read.

    Raises:
        DataError: naming the file that is missing or damaged, if nothing says how many classes there are, or if there
            are not as many names of classes.
    """
    pictures, sources = open_sources(request)
    num_classes = None
    if pictures.num_classes is not None or not request.labels_are_numbers:  # the number says that they are classes
        num_classes = stated_classes(request, pictures, sources[0])
        if num_classes is None:
            num_classes = _count_classes(request, pictures, sources[0])
    memory = BatchMemory()
    splits = [
        None
        if source is None
        else PictureDataset(
            source,
            pictures.recipe,
            f"data.pictures.{name}",
            workers=pictures.workers,
            timeout_s=pictures.timeout_s,
            num_classes=num_classes,
            replace_damaged=pictures.replace_damaged,
            memory=memory,
        )
        for name, source in zip(SPLITS, sources, strict=True)
    ]
    train, validation, test = splits
    assert train is not None
    return make_splits(train, validation, test, num_classes, count_classes=False)


def count_pictures(request: DataRequest) -> Counts:
    """The sizes, from indices, lists and the names of files.

    Raises:
        DataError: as in `load_pictures`.
    """
    _, sources = open_sources(request)
    train, validation, test = (0 if source is None else len(source) for source in sources)
    return Counts(train, validation, test)


def open_sources(request: DataRequest) -> tuple[PictureRequest, list[PictureSource | None]]:
    """The request for pictures, and those of training, validation and test.

    Raises:
        DataError: as in `load_pictures`.
    """
    request.refuse("download", "params")
    pictures = request.pictures
    if pictures is None:
        raise DataError(f"{request.where}: needs data.pictures, with train: {{{_KINDS[request.name][0]}: PATH}}")
    class_names = pictures.class_names_under(request.root)
    located = pictures.located(request.root)
    sources: list[PictureSource | None] = []
    for name, files in zip(SPLITS, located, strict=True):
        first = sources[0] if sources else None
        of_training = first.classes if isinstance(first, PictureFiles) else None
        where = f"data.pictures.{name}"
        sources.append(None if files is None else _open(where, request.name, files, class_names, of_training))
        if files is not None and located[0] is not None:
            _refuse_other_classes(where, files, located[0])
    return pictures, sources


def stated_classes(request: DataRequest, pictures: PictureRequest, train: PictureSource | None) -> int | None:
    """The number of classes as the configuration or folders state it; `None` if only labels can tell.

    Raises:
        DataError: if there are names of another number of classes.
    """
    path = pictures.class_names_under(request.root)
    if path is None and pictures.num_classes is None:
        return len(train.classes) if isinstance(train, PictureFiles) and train.classes is not None else None
    if path is None:
        return pictures.num_classes
    names = class_names_of(path)
    if pictures.num_classes not in (None, len(names)):
        raise DataError(
            f"data.pictures.class_names: {path} has {len(names)} names, from {names[0]} to {names[-1]}, but "
            f"data.pictures.num_classes is {pictures.num_classes}; name all classes, or leave the number out"
        )
    return len(names)


def _refuse_other_classes(where: str, files: SplitFiles, of_training: SplitFiles) -> None:
    """Refuse records whose classes `launch/data.py pack` has numbered in another way, as it says beside them."""
    if files.rec and of_training.rec:
        own, training = (one.rec[0].with_suffix(".classes") for one in (files, of_training))
        if own.is_file() and training.is_file() and own.read_bytes() != training.read_bytes():
            raise DataError(
                f"{where}.rec: {own} has other classes than {training}, so a label means another class in each; pack "
                "folders of the same classes, or by lists (launch/data.py pack --lst)"
            )


def _open(
    where: str, name: str, files: SplitFiles, class_names: Path | None, of_training: tuple[str, ...] | None
) -> PictureSource:
    wanted, other = _KINDS[name]
    if not getattr(files, wanted) or getattr(files, other):
        raise DataError(f"{where}: data.name: {name!r} needs {wanted}, and no {other}")
    if wanted == "rec":
        if files.lst is not None:
            raise DataError(f"{where}.lst: has no effect on records, which have their labels inside; remove it")
        if files.idx is not None and len(files.rec) > 1:
            raise DataError(f"{where}.idx: there are {len(files.rec)} .rec files; put an .idx file beside each")
        return RecordPictures(RecordFiles([RecordFile(path, files.idx) for path in files.rec]))
    if files.idx is not None:
        raise DataError(f"{where}.idx: has no effect on a folder; remove it")
    assert files.folder is not None
    if files.lst is not None:
        return listed_file(files.folder, files.lst)
    return listed_folder(files.folder, class_names, of_training)


def _count_classes(request: DataRequest, pictures: PictureRequest, train: PictureSource | None) -> int:
    """As many as are in the labels."""
    assert train is not None
    if isinstance(train, PictureFiles):
        return int(train.labels.max()) + 1
    assert isinstance(train, RecordPictures)
    if len(train) > _FEW_RECORDS:
        raise DataError(
            f"{request.where}: counting classes would read all of {len(train):,} records; set data.pictures.num_classes"
        )
    largest, sample = _largest_label(train, pictures.replace_damaged)
    if not largest < most_classes(len(train)):
        raise DataError(
            f"data.pictures.train: sample {sample}: {train.name_of(sample)}: the label is {largest:g}, of {len(train)} "
            "pictures, which can hardly be a class; mend it, or set data.pictures.num_classes"
        )
    return max(0, int(largest)) + 1


def _largest_label(train: RecordPictures, replace_damaged: bool) -> tuple[float, int]:
    """The largest label, NaN before all others, and its sample; of records that others may replace nothing is asked."""
    found, damaged = [], None
    for row in range(len(train)):
        try:
            found.append((float(np.max(train.labels(row))), row))
        except DataError as error:
            if not replace_damaged or is_unreadable(error):
                raise DataError(f"data.pictures.train: sample {row}: {error}; {what_to_do(error)}") from error
            damaged = damaged or error
    if not found:
        raise DataError(f"data.pictures.train: every record is damaged; the first: {damaged}") from damaged
    return max(found, key=lambda one: (one[0] != one[0], one[0], -one[1]))
