"""What a finder has done so far, on disk: a range test that was stopped or killed resumes to the same bits.

It holds the learner's state in the middle of a sweep, and the losses until then, as one checkpoint: either both are
there or neither. It knows of no configuration: what the sweeps depend on is given as facts, and compared.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checkpoint import (
    iteration_of,
    list_checkpoints,
    newest_valid,
    read_manifest,
    remove_debris,
    write_checkpoint,
)
from harness.checkpoint.store import keep_newest
from harness.errors import CheckpointError, ConfigError
from harness.files import make_folder
from harness.finder.records import SweepRecord, points_json, read_points, read_probes
from harness.finder.runner import Progress, UnderWay
from harness.folder import Fields, RecordError, plain

if TYPE_CHECKING:
    from harness.gluon import Learner, Requests

UNFINISHED = "unfinished"  # the folder's name, beside the report that will be
_MOST_TOLD = 5


class Journal:
    """Saves how far a finder has come, and takes it up again; every rank has one, and rank 0's writes.

    Attributes:
        folder: of the checkpoints.
        taken_up: what it resumed with; `None` if it started over.
    """

    def __init__(
        self,
        learner: Learner,
        folder: Path,
        facts: Mapping[str, Any],
        *,
        every: int | None = None,
        every_s: float | None = None,
    ) -> None:
        """Nothing is touched yet.

        Args:
            learner: whose state is saved.
            folder: made when it is first needed.
            facts: everything that sweeps depend on (JSON can hold it); a journal with others is refused.
            every: save each time so many iterations of a sweep are done.
            every_s: save each time so many seconds have passed by rank 0's clock, which asks all ranks.
        """
        self.folder = folder
        self.taken_up: Progress | None = None
        self._learner, self._world = learner, learner.world
        self._facts = plain(dict(facts), "facts")
        self._every, self._every_s = every, every_s
        self._since_s, self._number = time.monotonic(), 0

    def asks_to_save(self) -> bool:
        """Whether rank 0's clock says so; to be asked of all ranks with the next update."""
        return self._every_s is not None and self._world.rank == 0 and time.monotonic() - self._since_s >= self._every_s

    def is_due(self, done: int, requests: Requests) -> bool:
        """Whether to save, the same on every rank.

        Args:
            done: iterations of the sweep.
            requests: what ranks have asked with the last of them.
        """
        return requests.save or requests.stop or (self._every is not None and done % self._every == 0)

    def save(self, progress: Progress) -> None:
        """Write the learner's state, and what is known by now; a collective.

        Raises:
            CheckpointError: on every rank, if it cannot be written.
        """
        self._since_s = time.monotonic()
        self._learner.gather_state()
        self._world.on_root("finder.save", lambda: self._write(progress))

    def resume(self, digest: str) -> Progress:
        """What was done before, with the learner in the state that it had then; nothing, if there is none.

        Args:
            digest: of the state that the sweeps start from.

        Raises:
            CheckpointError: on every rank, if the journal is of another finder, or none in it is valid.
        """
        self._facts["start"] = digest
        found = self._world.on_root("finder.resume", self._read)
        if found is None:
            return Progress([], UnderWay())
        self._learner.broadcast_state()
        progress = _progress_of(Fields(found))
        # the sweep under way fills the lists of what is returned
        self.taken_up = Progress(list(progress.sweeps), replace(progress.under_way))
        return progress

    def told(self) -> list[str]:
        """What the user is told of it."""
        if self.taken_up is None:
            return []
        sweeps, now = self.taken_up
        return [f"resumed after {len(sweeps)} sweeps and {now.done} iterations from {self.folder}"]

    def _write(self, progress: Progress) -> None:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            make_folder(self.folder)
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: cannot be made ({error.strerror or error}); choose another --output"
            ) from None
        self._number += 1  # of the checkpoint; a sweep's iterations begin again with each
        state, content = self._learner.snapshot(), {"facts": self._facts, **_to_json(progress)}
        manifest = {"state": {"iteration": self._number, **state.numbers}, "finder": content}
        write_checkpoint(self.folder, self._number, state.arrays, manifest)
        keep_newest(self.folder, 1)

    def _read(self) -> dict[str, Any] | None:
        """The newest valid content on rank 0, whose learner gets the state."""
        from harness.gluon import LearnerState  # imports MXNet

        if self.folder.is_dir():
            remove_debris(self.folder)
        checkpoints = list_checkpoints(self.folder)
        if not checkpoints:
            return None
        newest, rejected = newest_valid(checkpoints)
        if newest is None:
            reasons = "\n  ".join(reason for _, reason in rejected)
            raise CheckpointError(f"no valid state to resume from:\n  {reasons}\nstart over with --overwrite")
        try:
            content = Fields(read_manifest(newest)).inner("finder")
            self._compare(content.plain("facts"), newest)
            progress = _progress_of(content)
        except RecordError as error:
            raise CheckpointError(f"{newest}: manifest.json: {error}; start over with --overwrite") from None
        state = LearnerState.load(newest)
        problems = self._learner.mismatches(state)
        if problems:
            raise CheckpointError(f"{newest}: {problems[0]}; start over with --overwrite")
        self._learner.restore(state)
        self._number = iteration_of(newest) or 0
        return _to_json(progress)

    def _compare(self, saved: Mapping[str, Any], path: Path) -> None:
        names = sorted({*saved, *self._facts})
        differing = [name for name in names if saved.get(name) != self._facts.get(name)]
        if not differing:
            return
        told = [f"{name}: {_brief(saved.get(name))} -> {_brief(self._facts.get(name))}" for name in differing]
        more = f"\n  and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
        raise CheckpointError(
            f"{path}: is of another range test (saved -> now):\n  "
            + "\n  ".join(told[:_MOST_TOLD])
            + f"{more}\nresume it with the settings that it was started with, or start over with --overwrite"
        )


def remove_unfinished(folder: Path) -> None:
    """Remove what was kept to resume from, once the report is written.

    Args:
        folder: of the report.
    """
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def refuse_what_is_there(folder: Path, result: str) -> None:
    """Refuse a folder that holds a finder's result, or a range test that has not ended.

    Args:
        folder: of the report.
        result: the name of the file that a finished one has.

    Raises:
        ConfigError: that says how to go on.
    """
    if (folder / result).exists():
        raise ConfigError(
            f"{folder} already holds a result; show it again with --resume auto, move it aside with --overwrite, or "
            "choose another --output"
        )
    if (folder / UNFINISHED).exists():
        raise ConfigError(
            f"{folder} holds a range test that has not ended; resume it with --resume auto, move it aside with "
            "--overwrite, or choose another --output"
        )


def _to_json(progress: Progress) -> dict[str, Any]:
    now = progress.under_way
    return {
        "sweeps": [SweepRecord.of(sweep).to_json() for sweep in progress.sweeps],
        "under_way": {"done": now.done, "probes": now.probes, "points": points_json(now.points)},
    }


def _progress_of(fields: Fields) -> Progress:
    sweeps = [SweepRecord.read(one).result(one.place("stop")) for one in fields.inners("sweeps")]
    now = fields.inner("under_way")
    return Progress(sweeps, UnderWay(now.whole("done"), read_probes(now), read_points(now)))


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
