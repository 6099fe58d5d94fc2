"""`metrics.jsonl` as columns of numbers: a million lines are too many for dictionaries, and a billion are thinned."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.folder import EVENTS, METRICS, MetricsLine, RecordError, Unread, is_there, read_metrics_lines
from harness.folder.reading import LARGEST
from harness.report.charts import Numbers

_TRAINING = ("iteration", "lr", "loss", "momentum", "images_per_s")
MOST_LINES = 1 << 21  # of training that are kept
_MOST_EVALUATIONS = 1 << 16  # of a curve that are kept
_MOST_CURVES = 50  # of evaluations, by split and metric
_MOST_EVENTS = 10_000
_MOST_DIGESTS = 100_000


class Metrics(NamedTuple):
    """`metrics.jsonl`.

    Attributes:
        training: columns of the training lines: `iteration`, `lr`, `loss`, `momentum`, `images_per_s`, each `(n,)`.
        evaluations: by split and metric, iterations and values.
        events: lines of updates that were left out, and of rewinds; the first ones.
        digests: of weights and optimizer state, by the iteration after which they were taken; the newest ones.
        num_not_finite: training losses that are not finite.
        num_unreadable: lines that are none of ours.
        is_thinned: whether there are so many lines that of neighbours only the highest and the lowest are kept.
    """

    training: dict[str, Numbers]
    evaluations: dict[str, dict[str, tuple[Numbers, Numbers]]]
    events: list[MetricsLine]
    digests: dict[int, str]
    num_not_finite: int
    num_unreadable: int
    is_thinned: bool

    @property
    def last_iteration(self) -> int:
        """The last iteration of any line; 0 if there is none."""
        ends = [x for found in self.evaluations.values() for x, _ in found.values()]
        return max((int(x[-1]) for x in [self.training["iteration"], *ends] if x.size), default=0)


class _Rows:
    """Growing columns; beyond a limit, only the lowest and the highest of four neighbours stay."""

    def __init__(self, width: int, judged: int, most: int) -> None:
        self.columns = [array("d") for _ in range(width)]
        self.is_thinned = False
        self._judged, self._most = judged, most

    def add(self, *row: float | None) -> None:
        for column, value in zip(self.columns, row, strict=True):
            column.append(np.nan if value is None else value)
        if len(self.columns[0]) >= self._most:
            self._thin()

    def numbers(self) -> list[Numbers]:
        return [np.frombuffer(column) if column else no_numbers() for column in self.columns]

    def _thin(self) -> None:
        self.is_thinned = True
        size = (len(self.columns[0]) - 1) // 4 * 4  # the newest stays whatever it is
        judged = np.frombuffer(self.columns[self._judged])[:size].reshape(-1, 4)
        low = np.where(np.isnan(judged), np.inf, judged).argmin(axis=1)
        high = np.where(np.isnan(judged), -np.inf, judged).argmax(axis=1)
        high = np.where(low == high, (low + 1) % 4, high)
        rows = np.sort(np.stack([low, high], axis=1), axis=1) + np.arange(0, size, 4)[:, None]
        chosen = np.concatenate([rows.reshape(-1), np.arange(size, len(self.columns[0]))])
        self.columns = [array("d", np.frombuffer(column)[chosen].tobytes()) for column in self.columns]


def no_numbers() -> Numbers:
    """An empty column."""
    return np.zeros(0)


def read_metrics(path: Path, unread: Unread, num_iterations: int = LARGEST) -> Metrics:
    """Read `metrics.jsonl` line by line, in bounded memory.

    Args:
        path: of the file, which may be missing.
        unread: takes what cannot be read, or cannot be right.
        num_iterations: of the run.
    """
    training = _Rows(len(_TRAINING), _TRAINING.index("loss"), MOST_LINES)
    evaluations: dict[tuple[str, str], _Rows] = {}
    events: list[MetricsLine] = []
    digests: dict[int, str] = {}
    num_not_finite = 0
    for line in read_metrics_lines(path, unread, num_iterations) if is_there(path) else ():
        if line.split == "train":
            values = line.values
            loss = values.get("loss")
            num_not_finite += loss is None or not np.isfinite(loss)
            training.add(line.iteration, line.lr, loss, line.momentum, values.get("images_per_s"))
        elif line.digest is not None:
            digests[line.iteration] = line.digest
            if len(digests) > _MOST_DIGESTS:
                del digests[next(iter(digests))]
        elif line.split in EVENTS:
            if len(events) < _MOST_EVENTS:
                events.append(line)
        else:
            _evaluated(evaluations, line, unread)
    found: dict[str, dict[str, tuple[Numbers, Numbers]]] = {}
    for (split, name), rows in sorted(evaluations.items(), key=lambda item: item[0][1]):
        x, y = rows.numbers()
        found.setdefault(split, {})[name] = (x, y)
    return Metrics(
        training=dict(zip(_TRAINING, training.numbers(), strict=True)),
        evaluations={split: found[split] for split in dict.fromkeys(split for split, _ in evaluations)},
        events=events,
        digests=digests,
        num_not_finite=num_not_finite,
        num_unreadable=unread.counts.get(METRICS, 0),
        is_thinned=training.is_thinned or any(rows.is_thinned for rows in evaluations.values()),
    )


def _evaluated(evaluations: dict[tuple[str, str], _Rows], line: MetricsLine, unread: Unread) -> None:
    for name, value in line.values.items():
        key = (line.split, name)
        if key not in evaluations and len(evaluations) >= _MOST_CURVES:
            unread.add(METRICS, RecordError(f"has more than {_MOST_CURVES} curves; {name} on {line.split} is left out"))
            continue
        evaluations.setdefault(key, _Rows(2, 1, _MOST_EVALUATIONS)).add(line.iteration, value)
