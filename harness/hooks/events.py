"""What a hook is told, each event with what the run's files get; and what a hook may ask for.

An event is made anew for every hook, so a hook may change what is in it. Arrays are read-only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.checkpoint import read_manifest
from harness.folder import AmendmentRecord, AttemptStart, MetricsLine, Outcome


class Ask(NamedTuple):
    """What a hook asks of all ranks; they do it after the same update, the next one.

    Attributes:
        save: write a checkpoint.
        stop: save and end, as after SIGTERM.
        why: in words, for the message that says why the run stopped.
    """

    save: bool = False
    stop: bool = False
    why: str = ""


@dataclass(frozen=True)
class Event:
    """Something that has happened in a run.

    Attributes:
        folder: of the run.
        iteration: the last update before it; 0 before the first.
    """

    folder: Path
    iteration: int


@dataclass(frozen=True)
class Opened(Event):
    """An attempt is about to train; the first event of each.

    Attributes:
        name: of the run.
        start: how the attempt begins, as `attempts.jsonl` has it.
        config: as `config.yaml` has it; of a `Job` its arguments that are plain values.
        lr: the learning rate of every update, `(iterations,)`, as `plan.csv` has it.
    """

    name: str
    start: AttemptStart
    config: dict[str, Any]
    lr: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Logged(Event):
    """A line of `metrics.jsonl` that is no evaluation: a loss, or one of the lines listed at `MetricsLine.split`.

    Attributes:
        line: as the file has it.
    """

    line: MetricsLine


@dataclass(frozen=True)
class Evaluated(Event):
    """An evaluation has ended.

    Attributes:
        lines: of `metrics.jsonl`, one for each split.
    """

    lines: tuple[MetricsLine, ...]


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint is complete on disk.

    Attributes:
        checkpoint: its folder, which later ones may replace.
    """

    checkpoint: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """What its `manifest.json` says, read when it is asked for.

        Raises:
            CheckpointError: if it is there no more.
        """
        return read_manifest(self.checkpoint)


@dataclass(frozen=True)
class Amended(Event):
    """The plan was changed: by an evaluation, a rewind, or a run that resumes by another configuration.

    Attributes:
        amendment: as `plan.json` and checkpoints have it.
        lr: the learning rate of every update by the new plan.
    """

    amendment: AmendmentRecord
    lr: npt.NDArray[np.float64]


@dataclass(frozen=True)
class WorldChanged(Event):
    """The run goes on with another number of workers.

    Attributes:
        before: the number of workers until then.
        after: the number from now on.
        why: in words.
        time: when, in seconds since 1970.
    """

    before: int
    after: int
    why: str
    time: float


@dataclass(frozen=True)
class Ended(Event):
    """The attempt is over; its last event, unless it was killed.

    Attributes:
        outcome: as `outcome.json` will have it; where rank 0 alone has failed, that also says in what.
    """

    outcome: Outcome


Hook = Callable[[Any], Ask | None]
"""Called with every event."""
