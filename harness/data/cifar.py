"""`cifar10`: the binary version, records of one label byte and 3,072 pixel bytes (32x32 red, green, blue).

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. The reader looks for the files in `root` and
in its folder `cifar-10-batches-bin`, which the official archive unpacks to. A part of the training files
is enough: it reads those that exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.data.arrays import ArrayDataset
from harness.data.download import Remote, download, extract, missing_files
from harness.data.request import Counts, DataRequest
from harness.data.splits import Splits, make_splits
from harness.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_RECORD_BYTES = 1 + 3 * 32 * 32
_OFFICIAL = Counts(50_000, 0, 10_000, official=True)
_FOLDER = "cifar-10-batches-bin"
_TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]
_TEST = "test_batch.bin"
_ARCHIVE = "cifar-10-binary.tar.gz"

REMOTES = {
    "cifar10": Remote("https://www.cs.toronto.edu/~kriz/", {_ARCHIVE: "md5:c32a1d4ab5d03f1284b67883e8d87530"}),
}


def load_cifar10(request: DataRequest) -> Splits:
    """The training and test images as `(N, 3, 32, 32)` bytes, in memory.

    Raises:
        DataError: if a file is missing or damaged.
    """
    request.refuse("params")
    if request.download and _find(request.folder) is None:
        download(REMOTES[request.name], request.folder)
        extract(request.folder / _ARCHIVE, [f"{_FOLDER}/{name}" for name in (*_TRAIN, _TEST)], request.folder)
    found = _find(request.folder)
    if found is None:
        raise missing_files(request, ["data_batch_1.bin to data_batch_5.bin (at least one)", _TEST], REMOTES)
    train, test = found
    return make_splits(_read(train), test=_read([test]), num_classes=10)


def count_cifar10(request: DataRequest) -> Counts:
    """The sizes from the lengths of the files, or the official ones if there are no files at all.

    Raises:
        DataError: if the training or the test files are missing, or one is not a whole number of records.
    """
    request.refuse("params")
    found = _find(request.folder)
    if found is None:
        if request.download or not any(path.exists() for path in _candidates(request.folder)):
            return _OFFICIAL
        raise missing_files(request, ["data_batch_1.bin to data_batch_5.bin (at least one)", _TEST], REMOTES)
    train, test = found
    return Counts(sum(_num_records(path) for path in train), 0, _num_records(test))


def _candidates(root: Path) -> list[Path]:
    return [folder / name for folder in (root, root / _FOLDER) for name in (*_TRAIN, _TEST)]


def _find(root: Path) -> tuple[list[Path], Path] | None:
    """The training files and the test file of the first folder that has both."""
    for folder in (root, root / _FOLDER):
        train = [folder / name for name in _TRAIN if (folder / name).is_file()]
        if train and (folder / _TEST).is_file():
            return train, folder / _TEST
    return None


def _num_records(path: Path) -> int:
    count, rest = divmod(path.stat().st_size, _RECORD_BYTES)
    if rest or not count:
        raise DataError(
            f"{path}: {path.stat().st_size} bytes are not a whole number of records of {_RECORD_BYTES} bytes; the file "
            "is truncated or not CIFAR-10's binary version; download it again"
        )
    return count


def _read(paths: list[Path]) -> ArrayDataset:
    counts = [_num_records(path) for path in paths]
    images = np.empty((sum(counts), 3, 32, 32), np.uint8)
    labels = np.empty(sum(counts), np.uint8)
    start = 0
    for path, count in zip(paths, counts, strict=True):
        records = np.memmap(path, np.uint8, "r").reshape(count, _RECORD_BYTES)
        labels[start : start + count] = records[:, 0]
        images[start : start + count] = records[:, 1:].reshape(count, 3, 32, 32)
        start += count
    source = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent}/data_batch_*.bin"
    return ArrayDataset(images, labels, 255.0, source)
