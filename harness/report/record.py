"""What a run's folder knows of its run. Reads files and needs none but `config.yaml`; changes nothing."""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.checkpoint import BEST, iteration_of, list_sets
from harness.config.reading import read_yaml
from harness.errors import ConfigError
from harness.finder import read_result
from harness.folder import Attempt, Outcome, RankFailure, Unread, read_attempts, read_failures
from harness.report.charts import Numbers

_TRAINING = ("iteration", "lr", "loss", "momentum", "images_per_s")
_NO_METRIC = ("split", "iteration", "epoch", "lr", "momentum", "time")
_NONE: Numbers = np.zeros(0)


class Metrics(NamedTuple):
    """`metrics.jsonl`.

    Attributes:
        training: columns of the training lines: `iteration`, `lr`, `loss`, `momentum`, `images_per_s`, each `(n,)`.
        evaluations: by split and metric, iterations and values.
        events: lines of updates that were left out, and of rewinds.
        num_unreadable: lines that are none of ours.
    """

    training: dict[str, Numbers]
    evaluations: dict[str, dict[str, tuple[Numbers, Numbers]]]
    events: list[dict[str, Any]]
    num_unreadable: int

    @property
    def num_not_finite(self) -> int:
        """Training losses that are not finite."""
        return int((~np.isfinite(self.training["loss"])).sum())


class SavedSet(NamedTuple):
    """A set that lies in the folder; whether it is whole is not looked at."""

    iteration: int
    size: int
    written_at: float
    is_best: bool


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it.

    Attributes:
        folder: where it lies.
        config_text: `config.yaml`.
        settings: the same as plain data.
        plan: `plan.json`; empty where it is missing.
        curve: iterations and learning rates of `plan.csv`.
        metrics: `metrics.jsonl`.
        attempts: every start, in order.
        failures: of ranks, in the last attempt.
        sets: oldest first.
        finder: the finder's result, if there is one.
        unread: what could not be read.
    """

    folder: Path
    config_text: str
    settings: dict[str, Any]
    plan: dict[str, Any]
    curve: tuple[Numbers, Numbers]
    metrics: Metrics
    attempts: list[Attempt]
    failures: list[RankFailure]
    sets: list[SavedSet]
    finder: dict[str, Any] | None
    unread: Unread

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.settings.get("name") or self.folder.name)

    @property
    def ending(self) -> Outcome | None:
        """How the last attempt ended; `None` if it left no word."""
        return self.attempts[-1].ended if self.attempts else None

    @property
    def last_iteration(self) -> int:
        """The last iteration that the folder knows of."""
        seen = [int(x[-1]) for split in self.metrics.evaluations.values() for x, _ in split.values()]
        seen += [one.iteration for one in self.sets]
        return max([*seen, *map(int, self.metrics.training["iteration"][-1:])], default=0)

    @property
    def num_iterations(self) -> int | None:
        """Iterations of the whole run, where its plan was written."""
        return self.plan["sizes"]["num_iterations"] if self.plan else None

    @property
    def iterations_per_epoch(self) -> int | None:
        """Iterations of an epoch, where the plan was written."""
        return self.plan["sizes"]["iterations_per_epoch"] if self.plan else None


def read_record(folder: Path, ending: Outcome | None = None) -> RunRecord:
    """Read a run's folder.

    Args:
        folder: of the run.
        ending: how the attempt that is at work ends, as `outcome.json` will say.

    Raises:
        ConfigError: if it is no run's.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        found = "has no config.yaml" if folder.is_dir() else "is no folder"
        raise ConfigError(f"{folder}: is not the folder of a run (it {found}); give one such as runs/digits")
    settings = read_yaml(config)
    if not isinstance(settings, dict):
        raise ConfigError(f"{config}: holds no settings; give the folder of a run")
    unread = Unread()
    return RunRecord(
        folder=folder,
        config_text=config.read_text(encoding="utf-8"),
        settings=settings,
        plan=_read_json(folder / "plan.json"),
        curve=_read_curve(folder / "plan.csv"),
        metrics=read_metrics(folder / "metrics.jsonl"),
        attempts=read_attempts(folder, unread, ending),
        failures=read_failures(folder, unread),
        sets=_read_sets(folder / "checkpoints"),
        finder=_read_finder(folder / "finder" / "result.json"),
        unread=unread,
    )


def read_metrics(path: Path) -> Metrics:
    """Read `metrics.jsonl`, line by line: a million of them is no table of dictionaries."""
    training = {name: array("d") for name in _TRAINING}
    evaluations: dict[str, dict[str, tuple[array[float], array[float]]]] = {}
    events, num_unreadable = [], 0
    for line in _json_lines(path):
        split, iteration = line.get("split"), line.get("iteration")
        if not isinstance(split, str) or not isinstance(iteration, int):
            num_unreadable += 1
        elif split == "train":
            for name, column in training.items():
                value = line.get(name)
                column.append(value if value.__class__ is float else _number(value))
        elif split in ("skipped", "rewind"):
            events.append(line)
        else:
            for name in line.keys() - _NO_METRIC:
                x, y = evaluations.setdefault(split, {}).setdefault(name, (array("d"), array("d")))
                x.append(iteration)
                y.append(_number(line[name]))
    return Metrics(
        {name: np.array(column) for name, column in training.items()},
        {
            split: {name: (np.array(x), np.array(y)) for name, (x, y) in sorted(found.items())}
            for split, found in evaluations.items()
        },
        events,
        num_unreadable,
    )


def differing_settings(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """The settings that runs do not share, by key; name and folder, which say nothing of a run, are left out."""
    flat = [dict(_flat("", record.settings)) for record in records]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = {key: [one.get(key, "") for one in flat] for key in keys if key not in ("name", "output")}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), inner)
    else:
        yield key, value


def _json_lines(path: Path, whole: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a file of lines, or the one that is the whole file; an empty one for what is none."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:  # json is twice as fast with text as with bytes
        for text in [file.read()] if whole else file:
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            yield line if isinstance(line, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one if the file is missing, or was torn when its run was killed."""
    return next(_json_lines(path, whole=True), {})


def _read_curve(path: Path) -> tuple[Numbers, Numbers]:
    try:
        with path.open(encoding="utf-8") as file:
            rows = [(float(row["iteration"]), float(row["lr"])) for row in csv.DictReader(file)]
    except (OSError, TypeError, ValueError):  # missing, or torn when its run was killed
        return _NONE, _NONE
    table = np.array(rows).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _read_sets(folder: Path) -> list[SavedSet]:
    best = _read_json(folder / BEST).get("set")
    sets = []
    for path in list_sets(folder):
        files = [file.stat() for file in path.iterdir() if file.is_file()]
        size, written_at = sum(file.st_size for file in files), max((file.st_mtime for file in files), default=0.0)
        sets.append(SavedSet(iteration_of(path) or 0, size, written_at, path.name == best))
    return sets


def _read_finder(path: Path) -> dict[str, Any] | None:
    try:
        return read_result(path) if path.exists() else None
    except ConfigError:
        return None  # of another version: its own page shows it


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
