"""Reads what a run's folder says about its run. Changes nothing; reports what cannot be read, without guessing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoint import BEST, iteration_of, list_checkpoints
from harness.config import parse_config
from harness.config.reading import parse_yaml
from harness.errors import ConfigError
from harness.finder import FinderResult, read_result
from harness.folder import (
    ATTEMPTS,
    CURVE,
    LARGEST,
    METRICS,
    OUTCOME,
    PLAN,
    Attempt,
    BestCheckpoint,
    Outcome,
    PlanRecord,
    RankFailure,
    RecordError,
    Unread,
    is_there,
    read_attempts,
    read_curve,
    read_failures,
    read_object,
    read_outcome_file,
    read_plan,
    read_small,
    seen,
)
from harness.named import flat
from harness.report.charts import Numbers
from harness.report.measured import Metrics, no_numbers, read_metrics

CONFIG, RESULT = "config.yaml", "finder/result.json"
_MOST_BYTES = 1 << 18  # of config.yaml
_MOST_SETTINGS = 10_000
_MOST_SETS = 1000


class SavedCheckpoint(NamedTuple):
    """A checkpoint in the folder, which is not verified."""

    iteration: int
    size: int
    written_at: float
    is_best: bool


@dataclass(frozen=True)
class RunRecord:
    """A run as recorded in its folder.

    Attributes:
        folder: of the run.
        config_text: `config.yaml`; empty if the run ended before writing it.
        settings: the same as plain data.
        plan: `plan.json`; `None` if it is missing or cannot be read.
        curve: iterations and learning rates of `plan.csv`.
        metrics: `metrics.jsonl`.
        attempts: every start, in order.
        outcome: `outcome.json`, or how the current attempt ends.
        failures: of ranks, in the last attempt.
        sets: oldest first.
        finder: the finder's result, if there is one.
        unread: what could not be read.
    """

    folder: Path
    config_text: str
    settings: dict[str, Any]
    plan: PlanRecord | None
    curve: tuple[Numbers, Numbers]
    metrics: Metrics
    attempts: list[Attempt]
    outcome: Outcome | None
    failures: list[RankFailure]
    sets: list[SavedCheckpoint]
    finder: FinderResult | None
    unread: Unread

    @property
    def name(self) -> str:
        """The run's name."""
        name = self.settings.get("name")
        return seen(name if isinstance(name, str) and name else self.folder.name, 200)

    @property
    def ending(self) -> Outcome | None:
        """How the last attempt ended; `None` if that was not recorded.

        Where the history is damaged, the outcome that is there is the best that is known.
        """
        if self.attempts and (self.attempts[-1].ended or ATTEMPTS not in self.unread.counts):
            return self.attempts[-1].ended
        return self.outcome

    @property
    def has_lost_ending(self) -> bool:
        """Whether the end of the last attempt was recorded but cannot be read."""
        return self.ending is None and OUTCOME in self.unread.counts

    @property
    def last_iteration(self) -> int:
        """The last iteration that the folder mentions."""
        known = [one.iteration for one in self.sets]
        return max([*known, self.metrics.last_iteration], default=0)

    @property
    def num_iterations(self) -> int | None:
        """The number of iterations of the run, if its plan was written."""
        return None if self.plan is None else self.plan.sizes.num_iterations

    @property
    def stopped_early_at(self) -> int | None:
        """The iteration after which evaluations last ended the run early, if its plan tells."""
        amendments = [] if self.plan is None else self.plan.amendments
        return max((one.iteration for one in amendments if one.choice == "early_stop"), default=None)

    @property
    def iterations_per_epoch(self) -> int | None:
        """The number of iterations per epoch, if the plan was written."""
        return None if self.plan is None else self.plan.sizes.iterations_per_epoch


def read_record(folder: Path, ending: Outcome | None = None) -> RunRecord:
    """Read a run's folder.

    Args:
        folder: of the run.
        ending: how the current attempt ends, as `outcome.json` will record it.

    Raises:
        ConfigError: if the folder is not a run's, or its configuration cannot be read.
    """
    unread = Unread()
    config_text, settings = _read_config(folder, unread)
    plan, curve = _read_plan(folder, unread)
    total = LARGEST if plan is None else plan.sizes.num_iterations
    outcome = _read_outcome(folder, unread)
    attempts = read_attempts(folder, unread, outcome, ending)
    if attempts and attempts[-1].start.after > total:
        unread.add(
            ATTEMPTS, f"the last attempt started after iteration {attempts[-1].start.after}; the run has {total}"
        )
    ranks = attempts[-1].start.ranks if attempts else None
    return RunRecord(
        folder=folder,
        config_text=config_text,
        settings=settings,
        plan=plan,
        curve=curve,
        metrics=read_metrics(folder / METRICS, unread, total),
        attempts=attempts,
        outcome=ending or outcome,
        failures=read_failures(folder, unread, ranks),
        sets=_read_sets(folder / "checkpoints", unread, total),
        finder=_read_finder(folder, unread),
        unread=unread,
    )


def differing_settings(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """The settings that differ between runs, by key, except name and folder."""
    settings = [dict(flat(record.settings)) for record in records]
    keys = list(dict.fromkeys(key for one in settings for key in one))
    rows = {key: [one.get(key, "") for one in settings] for key in keys if key not in ("name", "output")}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _read_config(folder: Path, unread: Unread) -> tuple[str, dict[str, Any]]:
    """`config.yaml` as text and as plain data; empty for a run that ended before writing it."""
    path = folder / CONFIG
    if not is_there(path) and (is_there(folder / OUTCOME) or is_there(folder / ATTEMPTS)):
        return "", {}
    if not os.path.isfile(path):
        found = f"has no {CONFIG}" if os.path.isdir(folder) else "is not a folder"
        raise ConfigError(f"{folder}: is not the folder of a run (it {found}); give one, such as runs/digits")
    try:
        text = read_small(path, _MOST_BYTES).decode("utf-8")
    except (RecordError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, RecordError) else f"is not UTF-8 text at byte {error.start}"
        raise ConfigError(f"{path}: {reason}; give the folder of a run") from None
    settings = parse_yaml(text, str(path))
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: contains no settings; give the folder of a run")
    if not _is_small(settings):
        raise ConfigError(f"{path}: contains more than {_MOST_SETTINGS:,} values; give the folder of a run")
    try:
        parse_config(settings, CONFIG)
    except Exception as error:  # a page of what else is there is worth more than a reason
        unread.add(CONFIG, f"this version refuses it: {str(error).removeprefix(f'{CONFIG}: ')}")
    return text, settings


def _is_small(settings: Any) -> bool:
    """Whether data has at most `_MOST_SETTINGS` values; an alias counts each time it is used."""
    left, waiting = _MOST_SETTINGS, [settings]
    while waiting and left >= 0:
        value = waiting.pop()
        left -= 1
        if isinstance(value, dict | list | tuple | set):
            if len(value) > left:
                return False
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return left >= 0


def _read_outcome(folder: Path, unread: Unread) -> Outcome | None:
    try:
        return read_outcome_file(folder)
    except RecordError as error:
        unread.add(OUTCOME, error)
    return None


def _read_plan(folder: Path, unread: Unread) -> tuple[PlanRecord | None, tuple[Numbers, Numbers]]:
    plan = None
    try:
        plan = read_plan(folder)
    except RecordError as error:
        unread.add(PLAN, error)
    try:
        return plan, read_curve(folder, plan)
    except RecordError as error:
        unread.add(CURVE, error)
    return plan, (no_numbers(), no_numbers())


def _read_sets(folder: Path, unread: Unread, num_iterations: int) -> list[SavedCheckpoint]:
    try:
        best = BestCheckpoint.read(read_object(folder / BEST)).name if is_there(folder / BEST) else None
    except RecordError as error:
        best = None
        unread.add(f"{folder.name}/{BEST}", error)
    sets = []
    try:
        paths = list_checkpoints(folder)[-_MOST_SETS:]
    except OSError as error:
        paths = []
        unread.add(folder.name, f"cannot be read ({error.strerror})")
    for path in paths:
        name, iteration = f"{folder.name}/{path.name}", iteration_of(path) or 0
        if not 0 < iteration <= num_iterations:
            unread.add(name, f"is of iteration {iteration}; the run has {num_iterations}")
            continue
        try:
            files = [entry.stat() for entry in os.scandir(path) if entry.is_file()]
        except OSError as error:  # a run that is at work removes old ones
            unread.add(name, f"cannot be read ({error.strerror})")
            continue
        if not files:
            unread.add(name, "is empty")
            continue
        size, written_at = sum(file.st_size for file in files), max(file.st_mtime for file in files)
        sets.append(SavedCheckpoint(iteration, size, written_at, path.name == best))
    return sets


def _read_finder(folder: Path, unread: Unread) -> FinderResult | None:
    path = folder / RESULT
    try:
        return read_result(path) if is_there(path) else None
    except ConfigError as error:
        unread.add(RESULT, str(error).removeprefix(f"{path}: ").partition("; ")[0])
    return None
