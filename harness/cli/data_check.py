"""`data.py check`: every picture of a configuration; and `data.py index`."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.config import RunConfig, load_config
from harness.config.pictures import picture_request
from harness.data.pictures.checking import looked_at
from harness.data.pictures.dataset import PictureSource
from harness.data.pictures.reader import SPLITS, open_sources, stated_classes
from harness.data.pictures.request import OF_PICTURES
from harness.data.records import RecordFile
from harness.data.request import DataRequest
from harness.data.splits import most_classes
from harness.errors import ConfigError, DataError
from harness.files import replace_file
from harness.report.counter import Counter, say


def check(options: argparse.Namespace) -> None:
    """Decode every picture of every split, and print a line for each that a run would refuse.

    Raises:
        ConfigError: if the configuration has no picture files.
        DataError: if there is any.
    """
    config = load_config(options.config, options.set)
    try:
        _check(config, options.workers)
    except (ConfigError, DataError) as error:
        error.found_in(config.source)
        raise


def _check(config: RunConfig, workers: int) -> None:
    data = config.data
    if data.name not in OF_PICTURES:
        raise ConfigError(
            f"data.name: {data.name!r}: there are no picture files to check (records, folder); other data are checked "
            "when a run reads them"
        )
    root = None if data.root is None else Path(data.root).expanduser()
    request = DataRequest(data.name, root, data.download, data.params, pictures=picture_request(data))
    pictures, sources = open_sources(request)
    given = {name: source for name, source in zip(SPLITS, sources, strict=True) if source is not None}
    num_classes = stated_classes(request, pictures, given["train"])
    total = sum(map(len, given.values()))
    with Counter(total, "pictures checked") as counter:
        done = damaged = 0
        for name, source in given.items():
            limit = num_classes or most_classes(len(source))
            are_classes = bool(pictures.num_classes) or config.network.picks_classes
            where = f"data.pictures.{name}"
            found = _check_split(where, source, workers, limit if are_classes else None, counter, done)
            num_classes = num_classes or found.largest_label + 1  # of training
            damaged += found.damaged
            done += len(source)
    if damaged:
        raise DataError(f"{damaged} of {total} pictures cannot be used; replace them, or leave them out")


class _Found(NamedTuple):
    """What was found in a split: how many damaged pictures, and the largest label."""

    damaged: int
    largest_label: int


def _check_split(
    name: str, source: PictureSource, workers: int, num_classes: int | None, counter: Counter, done: int
) -> _Found:
    """Print what is damaged, and the sizes of all."""
    damaged, largest = 0, 0.0
    edges: list[int] = []
    with closing(looked_at(source, workers, num_classes)) as found:
        for one in found:
            if one.problem is not None:
                damaged += 1
                counter.say(f"{name}: sample {one.row}: {one.problem}")
            elif one.size is not None and one.labels is not None:
                edges.append(min(one.size))
                largest = max([largest, *one.labels[np.isfinite(one.labels)].tolist()])
            counter.tell(done + one.row + 1)
    whole = np.array(edges or [0])
    counter.say(
        f"{name}: {len(source)} pictures, {damaged} of them damaged; short edges of {whole.min()} to {whole.max()} "
        f"pixels, half of them up to {int(np.median(whole))}"
    )
    return _Found(damaged, int(largest))


def index(path: Path) -> None:
    """Write the index of a .rec file.

    Raises:
        DataError: if it is none, or is damaged.
        ConfigError: if the index cannot be written.
    """
    file = RecordFile(path, walk=True)
    order = np.argsort(file.starts)
    lines = zip(file.keys[order].tolist(), file.starts[order].tolist(), strict=True)
    output = path.with_suffix(".idx")
    try:
        replace_file(output, "".join(f"{key}\t{start}\n" for key, start in lines))
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written ({error.strerror})") from None
    say(f"{output}: {len(file)} records of {path}")
