"""`data.py pack`: a folder of pictures into a .rec file."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from harness.data.folders import listed_folder
from harness.data.packing.contents import QUALITY, Preparation
from harness.data.packing.listing import Listing
from harness.data.packing.pack import EXISTS, Packing
from harness.data.record_format import Record
from harness.data.records import RecordFile
from harness.errors import ConfigError
from harness.files import replace_file
from harness.report.counter import Counter, say


def pack(options: argparse.Namespace) -> None:
    """Pack, read back, and say what to write into a configuration.

    Raises:
        HarnessError: see `harness.data.packing.pack`.
    """
    folder: Path = options.folder
    output: Path = options.output
    if options.lst is not None:
        _pack_all({output: Listing.of_list(folder, options.lst)}, options)
        _advise([output])
        return
    files = listed_folder(folder)
    listing = Listing.of_folder(files, shuffled=not options.in_order)
    parts = {output: listing}
    if options.train_ratio is not None:
        paths = [output.with_name(f"{output.stem}_{part}.rec") for part in ("train", "val")]
        parts = dict(zip(paths, listing.split(options.train_ratio), strict=True))
    classes, names = output.with_suffix(".classes"), files.classes or ()
    with _written(classes, "".join(f"{name}\n" for name in names), options.overwrite):
        _pack_all(parts, options)
    _advise(list(parts), f", num_classes: {len(names)}, class_names: {_yaml(classes)}")


def _pack_all(parts: Mapping[Path, Listing], options: argparse.Namespace) -> None:
    """Pack several files, and give them their names once all are packed."""
    preparation = Preparation(options.resize, QUALITY if options.quality is None else options.quality)
    how = {
        "skip_damaged": options.skip_damaged,
        "overwrite": options.overwrite,
        "with_list": options.lst is None,
    }
    with ExitStack() as stack:
        packings = [stack.enter_context(Packing(part, path, preparation, **how)) for path, part in parts.items()]
        for packing in packings:
            _pack_one(packing, options)
        for packing in packings:
            packing.publish()


def _pack_one(packing: Packing, options: argparse.Namespace) -> None:
    path, total = packing.path, packing.num_pictures
    if packing.resumed:
        say(f"{path}: resuming after {packing.resumed} of {total} pictures")
    with Counter(total, f"pictures packed into {path.name}", packing.resumed) as counter:
        left_out = packing.run(options.workers, counter.tell)
    reader, records = _read_back(packing.records, packing.index)
    with Counter(packing.num_records, "records read back") as counter, closing(records):
        packing.verify(records, counter.tell)
    for one in left_out:
        say(f"left out: {options.folder / one.name}: {one.reason}")
    size = packing.records.stat().st_size / 1e6
    as_packed = f"{reader} reads key, labels and picture of each as they were packed"
    say(f"{path}: {packing.num_records} records, {size:.1f} MB; {as_packed}")


def _read_back(path: Path, index: Path) -> tuple[str, Generator[Record]]:
    """What reads the records, and the records: MXNet where it is installed."""
    if importlib.util.find_spec("mxnet") is not None:
        from harness.gluon.records import MXNET, records_by_mxnet

        return MXNET, records_by_mxnet(path, index)
    file = RecordFile(path, index)
    order = file.starts.argsort().tolist()
    return "the harness (there is no MXNet here)", (file.record(row) for row in order)


def _advise(paths: Sequence[Path], classes: str = "") -> None:
    named = zip(("train", "validation"), paths, strict=False)
    splits = ", ".join(f"{name}: {{rec: {_yaml(path)}}}" for name, path in named)
    say(f"to train on it: data: {{name: records, pictures: {{{splits}{classes}}}}}")


def _yaml(path: Path) -> str:
    """A path as YAML writes it within braces."""
    return str(path) if re.fullmatch(r"[\w./-]+", str(path)) else json.dumps(str(path))


@contextmanager
def _written(path: Path, text: str, overwrite: bool) -> Iterator[None]:
    """Write a file when the block ends, unless there is another one of this name."""
    try:
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text and not overwrite:
            raise ConfigError(f"{path}: {EXISTS}")
        yield
        replace_file(path, text.encode(errors="surrogateescape"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
