"""A run opened from its folder: its configuration, its checkpoint, its data and its network, in this one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.bridge.layers import Array
from harness.checkpoint import iteration_of, locate, newest_valid, read_arrays
from harness.comm import Launch, SingleWorld, configure_threads
from harness.config import load_config
from harness.data import evaluation_samples
from harness.data.leaves import Data
from harness.errors import CheckpointError

if TYPE_CHECKING:
    from harness.train.run import Run

CONFIG = "config.yaml"


class Opened(NamedTuple):
    """A run at one of its checkpoints.

    Attributes:
        folder: of the run.
        checkpoint: its path.
        iteration: the last update that it contains.
        run: with plan, data and order; nothing has been trained.
        arrays: `parameters` and `slots`, each by structural name.
    """

    folder: Path
    checkpoint: Path
    iteration: int
    run: Run
    arrays: Mapping[str, Mapping[str, Array]]

    def samples(self, count: int) -> tuple[Data, Data]:
        """The first training samples and their labels, not augmented at random."""
        dataset = self.run.data.splits.train
        return evaluation_samples(dataset, np.arange(min(count, len(dataset))), self.run.augmentation)


@contextmanager
def opened(path: Path, overrides: list[str]) -> Iterator[Opened]:
    """Open a run's folder, or one of its checkpoints; nothing in it is changed.

    Args:
        path: of either.
        overrides: of its configuration, as `--set` has them: where data lie now.

    Raises:
        HarnessError: if there is no checkpoint, or configuration and data do not fit it.
    """
    checkpoint = newest(path)
    folder = checkpoint.parent.parent
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: has no {CONFIG}; give the folder of a run that launch/train.py has written")
    here = [f"output={folder.parent}", f"name={folder.name}"]
    config = load_config(folder / CONFIG, [*here, *overrides])
    threads = configure_threads(config.threads_per_rank, Launch())
    # not before: MXNet reads the number of threads when it is imported
    from harness.train.prepare import prepare_run
    from harness.train.resume import StartOptions

    start = StartOptions(resume=str(checkpoint), on_conflict="checkpoint")
    run = prepare_run(config, SingleWorld(), threads=threads, start=start)
    try:
        run.folder.close()  # which was locked to look for checkpoints; nothing is written there
        yield Opened(folder, checkpoint, iteration_of(checkpoint) or 0, run, read_arrays(checkpoint))
    finally:
        run.close()


def newest(path: Path) -> Path:
    """The newest valid checkpoint that a path stands for.

    Raises:
        CheckpointError: if there is none.
    """
    found = newest_valid(locate(path))
    if found.newest is None:
        reasons = "\n  ".join(reason for _, reason in found.rejected)
        raise CheckpointError(f"{path}: contains no valid checkpoint:\n  {reasons}")
    return found.newest
