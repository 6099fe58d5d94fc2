"""Reads and decodes every picture of a split, and says which are damaged, and what else a run would refuse."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from harness.data.pictures.dataset import PictureSource
from harness.data.pictures.decoding import Picture, Size, decoders
from harness.data.record_format import Labels
from harness.errors import DataError

_AT_ONCE = 8  # pictures that a thread takes
_AHEAD = 4  # times as many pieces of work as threads


class Looked(NamedTuple):
    """What was found of one picture.

    Attributes:
        row: of its source.
        problem: what is wrong with it, beginning with its file or record; `None` if nothing is.
        size: as it is looked at; `None` if its header is damaged.
        labels: `(k,)`; `None` if its record cannot be read.
    """

    row: int
    problem: str | None
    size: Size | None
    labels: Labels | None


def looked_at(source: PictureSource, workers: int, num_classes: int | None) -> Generator[Looked]:
    """Every picture of a source, in order; each is decoded to the last byte.

    Args:
        source: the pictures.
        workers: threads that decode.
        num_classes: if labels are classes; `None` leaves them numbers.

    Raises:
        ConfigError: if what decodes pictures is not installed.
    """
    decoders()
    width = None
    for found in _in_order(source, workers):
        one = found
        if one.labels is not None:
            width = width or len(one.labels)
            wrong = _wrong_labels(one.labels, width, num_classes)
            if wrong is not None and one.problem is None:
                one = one._replace(problem=f"{source.name_of(one.row)}: {wrong}")
        yield one


def _in_order(source: PictureSource, workers: int) -> Generator[Looked]:
    parts = iter(range(0, len(source), _AT_ONCE))
    waiting: deque[Future[list[Looked]]] = deque()
    threads = ThreadPoolExecutor(workers, thread_name_prefix="checking")

    def look(first: int) -> list[Looked]:
        return [_look(source, row) for row in range(first, min(first + _AT_ONCE, len(source)))]

    try:
        while True:
            waiting.extend(threads.submit(look, first) for first in islice(parts, _AHEAD * workers - len(waiting)))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _look(source: PictureSource, row: int) -> Looked:
    size = labels = None
    try:
        content, labels = source.read(row)
        picture = Picture(content)
        size = picture.size
        picture.decode()
    except DataError as error:  # which names file or record
        return Looked(row, str(error), size, labels)
    except ValueError as error:
        return Looked(row, f"{source.name_of(row)}: {error}", size, labels)
    return Looked(row, None, size, labels)


def _wrong_labels(labels: Labels, width: int, num_classes: int | None) -> str | None:
    """What is wrong with the labels of a picture."""
    if len(labels) != width:
        return f"has {len(labels)} labels, and the pictures before it have {width}"
    if num_classes is None:
        return None
    wrong = [label for label in labels.tolist() if not (0 <= label < num_classes and label == int(label))]
    return f"the label is {wrong[0]:g}, but classes are 0 to {num_classes - 1}" if wrong else None
