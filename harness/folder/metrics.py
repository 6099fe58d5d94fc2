"""Lines of `metrics.jsonl`: what was measured after an iteration, and reading them from a possibly damaged file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.folder.files import lines_of, open_plain
from harness.folder.reading import LARGEST, LATEST_S, parse_json
from harness.folder.unread import RecordError, Unread, described, seen

METRICS = "metrics.jsonl"
EVENTS = ("skipped", "weightless", "replaced", "rewind", "plateau", "early_stop", "input", "digest")
_NAME = 200
_DIGEST = re.compile("[0-9a-f]{64}")
_MOST_SPLITS = 20
_MOST_SAID, _SENTENCE = 20, 1000
_LARGEST_LR = 3.5e38  # a float32
_POSITION = {"epoch": (1, LARGEST), "lr": (0, _LARGEST_LR), "momentum": (-1e6, 1e6), "time": (0, LATEST_S)}
_KNOWN = {  # bounds of what the harness itself measures; a diverging run measures NaN and infinity
    "loss": (-math.inf, math.inf),
    "gradient_norm": (0, math.inf),
    "images_per_s": (0, math.inf),
    "waited_ms": (0, math.inf),
    "update_ms": (0, math.inf),
    "count": (0, LARGEST),
    "diverged_at": (1, LARGEST),
    "lr_factor": (0, _LARGEST_LR),
    "min_lr": (0, _LARGEST_LR),
    "evaluations": (1, LARGEST),
    "best_at": (0, LARGEST),
    **dict.fromkeys(("accuracy", "error", "top_k", "top_5_accuracy", "binary_accuracy", "pixel_accuracy"), (0, 1)),
    **dict.fromkeys(("miou", "f1", "roc_auc"), (0, 1)),
    **dict.fromkeys(("mcc", "correlation"), (-1, 1)),
    **dict.fromkeys(("mae", "mse", "rmse", "perplexity"), (0, math.inf)),
}


class MetricsLine(NamedTuple):
    """One line.

    Attributes:
        split: `train`; an evaluated split; `skipped` for a skipped update; `weightless` for one that changed nothing,
            because every weight was 0; `replaced` for damaged samples that others have replaced; `rewind`, `plateau`,
            `early_stop` for a change of the plan; `input` where updates were found to wait for their samples;
            `digest` after each epoch.
        iteration: after which it was written.
        epoch: of that iteration; `None` if the line does not say.
        lr: the learning rate that its update applied.
        momentum: likewise; `None` for an optimizer without one.
        values: what was measured, by name.
        time: seconds since 1970.
        said: sentences, of an event.
        digest: of all weights and the optimizer's state, of a line of that name.
    """

    split: str
    iteration: int
    epoch: int | None
    lr: float | None
    momentum: float | None
    values: Mapping[str, float]
    time: float | None = None
    said: tuple[str, ...] = ()
    digest: str | None = None

    def to_json(self) -> dict[str, object]:
        """The content of the line, without unknown fields."""
        position = {"epoch": self.epoch, "lr": self.lr}
        content = {
            "split": self.split,
            "iteration": self.iteration,
            **{name: value for name, value in position.items() if value is not None},
        }
        if self.split not in EVENTS:
            content["momentum"] = self.momentum
        content |= self.values
        if self.said:
            content["said"] = list(self.said)
        if self.digest is not None:
            content["digest"] = self.digest
        return content if self.time is None else {**content, "time": self.time}

    @classmethod
    def read(cls, data: bytes | None) -> MetricsLine:
        """Read it from the file; all fields except split and iteration may be missing.

        Raises:
            RecordError: naming what is missing, has the wrong type or is impossible.
        """
        content = parse_line(data)
        split, iteration = content.pop("split", None), iteration_of_line(content)
        del content["iteration"]
        if not isinstance(split, str) or not 0 < len(split) <= _NAME:
            raise RecordError(f"split is {described(split)}, not a name")
        if iteration == 0 and split != "rewind":
            raise RecordError("iteration is 0; the first is 1")
        said = _sentences(content.pop("said", None)) if split in EVENTS else ()
        digest = _digest(content.pop("digest", None)) if split == "digest" else None
        position = {name: _bounded(name, content.pop(name, None), *_POSITION[name]) for name in _POSITION}
        values = {}
        for name, value in content.items():
            if value.__class__ is float and name not in _KNOWN:
                values[name] = value
            elif value is not None and (split not in ("train", *EVENTS) or name in _KNOWN):
                values[name] = _measured(name, value)
        for name in values:
            if len(name) > _NAME:
                raise RecordError(f"has a name of {len(name):,} characters; at most {_NAME} are read")
        epoch = position["epoch"]
        if epoch is not None and not epoch.is_integer():
            raise RecordError(f"epoch is {epoch:g}, not a whole number")
        return cls(
            seen(split),
            iteration,
            None if epoch is None else int(epoch),
            position["lr"],
            position["momentum"],
            values,
            position["time"],
            said,
            digest,
        )


def parse_line(data: bytes | None) -> dict[str, Any]:
    """The object in a line, whatever it contains.

    Raises:
        RecordError: if the line is too long, or not a JSON object.
    """
    if data is None:
        raise RecordError("is longer than any line that the harness writes")
    content = parse_json(data, may_be_nan=True)
    if not isinstance(content, dict):
        raise RecordError(f"is {described(content)}, not an object")
    return content


def iteration_of_line(content: Mapping[str, Any]) -> int:
    """The iteration of a line.

    Raises:
        RecordError: if it has none.
    """
    iteration = content.get("iteration")
    if iteration.__class__ is not int or not 0 <= iteration <= LARGEST:
        raise RecordError(f"iteration is {described(iteration)}, not a number of updates")
    return int(iteration)


class _Held(NamedTuple):
    """The newest line of a split, held until the next one confirms it."""

    number: int
    line: MetricsLine
    before: int


def read_metrics_lines(path: Path, unread: Unread, num_iterations: int = LARGEST) -> Iterator[MetricsLine]:
    """The readable lines of a file; those of a split in order.

    A run writes them in the order of iterations. Of two neighbours out of order one is damaged: the first if the
    second fits what came before, otherwise the second.

    Args:
        path: of the file.
        unread: collects what cannot be read, or cannot be true.
        num_iterations: of the run.
    """
    newest: dict[str, _Held] = {}
    try:
        with open_plain(path) as file:
            for number, (data, _) in enumerate(lines_of(file), start=1):
                try:
                    line = MetricsLine.read(data)
                    held = newest.get(line.split)
                    _check_place(line, 0 if held is None else held.before, num_iterations, len(newest))
                except RecordError as error:
                    unread.add(path.name, error, number)
                    continue
                if line.split in EVENTS:
                    yield line
                    continue
                before = 0
                if held is not None and line.iteration < held.line.iteration:
                    before = held.before
                    said = f"iteration {held.line.iteration} is between {before} and {line.iteration}"
                    unread.add(path.name, said, held.number)
                elif held is not None:
                    before = held.line.iteration
                    yield held.line
                newest[line.split] = _Held(number, line, before)
    except (RecordError, OSError) as error:
        unread.add(path.name, error)
    for held in newest.values():
        yield held.line


def _check_place(line: MetricsLine, before: int, num_iterations: int, num_splits: int) -> None:
    if line.iteration > num_iterations:
        raise RecordError(f"iteration is {line.iteration}; the run has {num_iterations}")
    if line.iteration < before:
        raise RecordError(f"iteration {line.iteration} comes after iteration {before}")
    if num_splits > _MOST_SPLITS:
        raise RecordError(f"there are more than {_MOST_SPLITS} splits")


def _bounded(name: str, value: object, low: float, high: float) -> float | None:
    if value is None:
        return None
    if (value.__class__ is float or value.__class__ is int) and low <= value <= high:  # type-checked by class: fast
        return float(value)
    raise RecordError(f"{name} is {described(value)}; allowed: a number from {low:g} to {high:g}")


def _sentences(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MOST_SAID or not all(isinstance(one, str) for one in value):
        raise RecordError(f"said is {described(value)}; allowed: at most {_MOST_SAID} sentences")
    return tuple(seen(one, _SENTENCE) for one in value)


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise RecordError(f"digest is {described(value)}; allowed: 64 hexadecimal digits")
    return value


def _measured(name: str, value: object) -> float:
    """A measured number, which may be NaN or infinite."""
    if value.__class__ is not float and value.__class__ is not int:
        raise RecordError(f"{seen(name, 40)} is {described(value)}, not a number")
    low, high = _KNOWN.get(name, (-math.inf, math.inf))
    if isinstance(value, int) and abs(value) > 10**300:
        raise RecordError(f"{seen(name, 40)} is {described(value)}, too large for a float")
    found = float(value) if isinstance(value, int | float) else math.nan
    if found < low or found > high:
        raise RecordError(f"{seen(name, 40)} is {described(value)}; allowed: {low:g} to {high:g}")
    return found
