"""`npy`: arrays in NumPy's own files, memory-mapped.

`root` contains `train_data.npy` and `train_label.npy`, and optionally `validation_data.npy`, `validation_label.npy`,
`test_data.npy` and `test_label.npy`. Byte images are divided by 255; other integers stay integers, and floats are
unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.data.arrays import ArrayDataset, default_scales
from harness.data.download import missing_files
from harness.data.leaves import Array
from harness.data.npy_header import read_header
from harness.data.request import Counts, DataRequest
from harness.data.splits import Splits, as_num_classes, make_splits
from harness.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def load_npy(request: DataRequest) -> Splits:
    """The splits whose files exist; `params.num_classes` gives the number of classes if the labels do not.

    Raises:
        DataError: if a file is missing, contains objects, or does not match the others.
    """
    train, validation, test = _read(request)
    assert train is not None  # a missing one has raised an error
    count = not request.labels_are_numbers
    return make_splits(train, validation, test, _num_classes(request), count_classes=count)


def count_npy(request: DataRequest) -> Counts:
    """The sizes from the file headers.

    Raises:
        DataError: as in `load_npy`, except for the values.
    """
    _num_classes(request)
    train, validation, test = (0 if split is None else len(split) for split in _read(request))
    return Counts(train, validation, test)


def _read(request: DataRequest) -> list[ArrayDataset | None]:
    request.refuse("download")
    if request.root is None:
        raise DataError(f"{request.where}: needs data.root, the folder with train_data.npy and train_label.npy")
    return [_read_split(request, request.root, split) for split in ("train", "validation", "test")]


def _read_split(request: DataRequest, root: Path, split: str) -> ArrayDataset | None:
    paths = [root / f"{split}_data.npy", root / f"{split}_label.npy"]
    missing = [path.name for path in paths if not path.is_file()]
    if len(missing) == 2 and split != "train":
        return None
    if missing:
        raise missing_files(request, missing)
    data, label = (_open(path) for path in paths)
    return ArrayDataset(data, label, default_scales(data), str(paths[0]))


def _open(path: Path) -> Array:
    header = read_header(path)
    try:
        return np.memmap(path, header.dtype, "r", header.start, header.shape, order="F" if header.is_fortran else "C")
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be memory-mapped ({error}); check its permissions") from error


def _num_classes(request: DataRequest) -> int | None:
    unknown = sorted(set(request.params) - {"num_classes"})
    if unknown:
        raise DataError(f"data.params: {', '.join(unknown)} unknown to {request.where}; it takes only num_classes")
    return as_num_classes("data.params", request.params.get("num_classes"))
