"""Data sets by name: the only place that knows all of them.

A new one is a module with a `load` and a `count` function and a line in `DATASETS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.cifar import count_cifar10, load_cifar10
from harness.data.custom import count_custom, load_custom
from harness.data.digits import count_digits, load_digits
from harness.data.functions import Functions
from harness.data.idx import count_idx, load_idx
from harness.data.npy import count_npy, load_npy
from harness.data.pictures.reader import count_pictures, load_pictures
from harness.data.pictures.request import OF_PICTURES, PictureRequest
from harness.data.request import Counts, DataRequest
from harness.data.scales import rescaled
from harness.data.splits import Splits, hold_out, holdout_size, splits_with
from harness.errors import DataError
from harness.named import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_NONE = Functions()


@dataclass(frozen=True)
class Reader:
    """How to load a data set, and how to count its samples without loading it."""

    load: Callable[[DataRequest], Splits]
    count: Callable[[DataRequest], Counts]


DATASETS = {
    "digits": Reader(load_digits, count_digits),
    "mnist": Reader(load_idx, count_idx),
    "fashion_mnist": Reader(load_idx, count_idx),
    "cifar10": Reader(load_cifar10, count_cifar10),
    "npy": Reader(load_npy, count_npy),
    "records": Reader(load_pictures, count_pictures),
    "folder": Reader(load_pictures, count_pictures),
}


def load(
    name: str,
    *,
    root: str | None = None,
    download: bool = False,
    validation: float = 0,
    params: Mapping[str, object] | None = None,
    seed: int = 0,
    scale: float | str | None = None,
    labels_are_numbers: bool | None = False,
    functions: Functions = _NONE,
    pictures: PictureRequest | None = None,
) -> Splits:
    """The splits of a data set, checked.

    Args:
        name: a key of `DATASETS`, or `package.module:function`.
        root: the folder with the files; None is `~/.cache/harness/<name>` for the data sets that can be downloaded.
        download: download missing files; all ranks may do so at the same time.
        validation: training samples to hold out: a number, a fraction, or 0 for none. Which ones depends only
            on `seed` and the number of samples.
        params: `num_classes` for `npy`; the arguments for a function.
        seed: the run's seed.
        scale: the divisor for integer data, or `"keep"` to leave all integers unchanged; by default byte
            images are divided by 255, and other integers stay integers.
        labels_are_numbers: whether integer labels are numbers to compute with, as for the loss `l2`, not classes
            to count; None, as for a loss of the user's own: where counting would read every sample.
        functions: between items and batches (`harness.data.functions`).
        pictures: the files of `records` and `folder`, and what becomes of them.

    Raises:
        DataError: if the data set is unknown, its files are missing or damaged, or a setting does not fit it.
    """
    request = replace(
        _request(name, root, download, params, functions, pictures), labels_are_numbers=labels_are_numbers
    )
    splits = rescaled(splits_with(_reader(name).load(request), functions), scale)
    size = _holdout(request, validation, len(splits.train), splits.validation is not None)
    if size == 0:
        return splits
    train, held_out = hold_out(splits.train, size, seed)
    return replace(splits, train=train, validation=held_out)


def count_samples(
    name: str,
    *,
    root: str | None = None,
    download: bool = False,
    validation: float = 0,
    params: Mapping[str, object] | None = None,
    functions: Functions = _NONE,
    pictures: PictureRequest | None = None,
) -> Counts:
    """The number of samples that `load` would return for the same arguments, from the file headers.

    If a public data set has no files, its official counts are returned and `official` is true. A function has
    to be called.

    Raises:
        DataError: as in `load`, except for what only reading the data shows.
    """
    request = _request(name, root, download, params, functions, pictures)
    counts = _reader(name).count(request)
    size = _holdout(request, validation, counts.train, counts.validation > 0)
    return replace(counts, train=counts.train - size, validation=counts.validation + size)


def _request(
    name: str,
    root: str | None,
    download: bool,
    params: Mapping[str, object] | None,
    functions: Functions,
    pictures: PictureRequest | None,
) -> DataRequest:
    folder = None if root is None else Path(root).expanduser()
    request = DataRequest(name, folder, download, dict(params or {}), functions=functions, pictures=pictures)
    if name not in OF_PICTURES:
        request.refuse("pictures")
    return request


def _reader(name: str) -> Reader:
    if ":" in name:
        return Reader(load_custom, count_custom)
    return choose(name, DATASETS, "data.name", DataError)


def _holdout(request: DataRequest, validation: float, num_train: int, has_validation: bool) -> int:
    size = holdout_size(num_train, validation)
    if size and has_validation:
        raise DataError(
            f"{request.where}: has a validation split of its own, but data.validation is {validation!r}; set it to 0"
        )
    return size
