"""`mnist` and `fashion_mnist`: the four IDX files under their official names, compressed with gzip or not.

An IDX file is a magic number (two zero bytes, 8 for bytes as elements, the number of dimensions), the dimensions as
big-endian 32-bit numbers, and the elements (Y. LeCun, C. Cortes, C. Burges: The MNIST Database of Handwritten Digits).
Any data set of ten classes with files of these names and this format can be read from its own `root`.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.data.arrays import ArrayDataset
from harness.data.download import Remote, download, missing_files
from harness.data.leaves import Array
from harness.data.request import Counts, DataRequest
from harness.data.splits import Splits, make_splits
from harness.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_NUM_CLASSES = 10
_OFFICIAL = Counts(60_000, 0, 10_000, official=True)
_SPLITS = ("train", "t10k")
_MOST_PACKED = 1032  # bytes that gzip can pack into one byte
_PIECE_BYTES = 1 << 20

REMOTES = {
    "mnist": Remote(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": Remote(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
}


@dataclass(frozen=True)
class _Header:
    """The shape of the elements and the byte where they start."""

    shape: tuple[int, ...]
    start: int

    @property
    def size_bytes(self) -> int:
        return self.start + math.prod(self.shape)


def load_idx(request: DataRequest) -> Splits:
    """The training and test images as `(N, 1, height, width)` bytes; plain files are memory-mapped.

    Raises:
        DataError: if a file is missing, damaged, or does not match its partner.
    """
    request.refuse("params")
    folder = request.folder
    if request.download:
        remote = REMOTES[request.name]
        download(remote.only([f"{name}.gz" for name in _names() if _find(folder, name) is None]), folder)
    if _missing(folder):
        raise missing_files(request, [f"{name}[.gz]" for name in _missing(folder)], REMOTES)
    train, test = (_read_split(folder, split) for split in _SPLITS)
    return make_splits(train, test=test, num_classes=_NUM_CLASSES)


def count_idx(request: DataRequest) -> Counts:
    """The sizes from the file headers, or the official ones if there are no files at all.

    Raises:
        DataError: if some of the files are missing, or a header is damaged.
    """
    request.refuse("params")
    missing = _missing(request.folder)
    if missing and (request.download or len(missing) == len(_names())):
        return _OFFICIAL
    if missing:
        raise missing_files(request, [f"{name}[.gz]" for name in missing], REMOTES)
    train, test = (_read_header(_path(request.folder, f"{split}-images-idx3-ubyte"), 3).shape[0] for split in _SPLITS)
    return Counts(train, 0, test)


def _names() -> list[str]:
    return [f"{split}-{kind}-ubyte" for split in _SPLITS for kind in ("images-idx3", "labels-idx1")]


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _path(folder: Path, name: str) -> Path:
    path = _find(folder, name)
    assert path is not None, name  # both callers have checked for missing files
    return path


def _missing(folder: Path) -> list[str]:
    return [name for name in _names() if _find(folder, name) is None]


def _read_split(folder: Path, split: str) -> ArrayDataset:
    images_path = _path(folder, f"{split}-images-idx3-ubyte")
    labels_path = _path(folder, f"{split}-labels-idx1-ubyte")
    images, labels = _read(images_path, 3), _read(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path}: {len(images)} images, but {labels_path.name} has {len(labels)} labels; the two files do "
            "not belong together; download both again"
        )
    return ArrayDataset(images[:, None], labels, 255.0, str(images_path))


def _read(path: Path, ndim: int) -> Array:
    """The elements of a file, checked against its header."""
    header = _read_header(path, ndim)
    data: Array
    if path.suffix == ".gz":
        data = _unpack(path, header)
    else:
        _check_size(path, header, path.stat().st_size)
        data = np.memmap(path, np.uint8, "r", header.start)
    return data.reshape(header.shape)


def _unpack(path: Path, header: _Header) -> Array:
    """The elements of a compressed file; memory is used for the actual content, not for what the header promises.

    It reads one byte more than expected: anything after that is never unpacked, and at the end gzip compares checksums.
    """
    if header.size_bytes > _MOST_PACKED * path.stat().st_size:
        raise _wrong_size(
            path, header, f"{path.stat().st_size} bytes cannot contain that many (gzip packs at most 1032 into one)"
        )
    data = np.empty(math.prod(header.shape), np.uint8)  # no memory is used before it is written to
    filled = 0
    with _reading(path), gzip.open(path) as file:
        file.read(header.start)
        while filled < len(data):
            count = file.readinto(data[filled : filled + _PIECE_BYTES].data)
            if not count:
                raise _wrong_size(path, header, f"{header.start + filled} bytes (uncompressed)")
            filled += count
        if file.read(1):
            packed = path.read_bytes()[-4:] if path.stat().st_size < _PIECE_BYTES else b""
            size = int.from_bytes(packed, "little")  # as recorded by gzip: not trusted, only shown
            found = str(size) if size > header.size_bytes else f"more than {header.size_bytes}"
            raise _wrong_size(path, header, f"{found} bytes (uncompressed)")
    return data


def _read_header(path: Path, ndim: int) -> _Header:
    length = 4 + 4 * ndim
    start = _read_bytes(path, length)
    if len(start) < length:
        raise DataError(
            f"{path}: {len(start)} bytes are too few for the header of an IDX file; download the file again"
        )
    magic, *shape = np.frombuffer(start, ">u4").tolist()
    if magic != 0x0800 + ndim:
        what = "images" if ndim == 3 else "labels"
        raise DataError(
            f"{path}: the file starts with the number {magic}, but an IDX file of {what} with {0x0800 + ndim}; check "
            f"that images and labels are not swapped, or download the file again"
        )
    if 0 in shape:
        raise DataError(f"{path}: the header says {'x'.join(map(str, shape))} elements, so the file is empty")
    return _Header(tuple(shape), length)


def _check_size(path: Path, header: _Header, size: int) -> None:
    if size != header.size_bytes:
        raise _wrong_size(path, header, f"{size} bytes (uncompressed)")


def _wrong_size(path: Path, header: _Header, found: str) -> DataError:
    return DataError(
        f"{path}: {found}, but according to its header {'x'.join(map(str, header.shape))} elements make "
        f"{header.size_bytes}; the file is truncated or damaged; download it again"
    )


def _read_bytes(path: Path, length: int) -> bytes:
    with _reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.read(length)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error from reading a file into one message."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); check its permissions, or download the file again"
        ) from error
