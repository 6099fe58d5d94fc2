"""When a run saves, what stands in a checkpoint besides arrays, and what a failed write means.

Every rank takes the same decisions; only rank 0 copies the state and writes. It reads the run's state and never changes
it.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.checkpoint import (
    CheckpointWriter,
    Manifest,
    iteration_of,
    list_checkpoints,
    mark_best,
    newest_valid,
    read_manifest,
    write_checkpoint,
)
from harness.comm import read_launch
from harness.config import deciding
from harness.errors import CheckpointError
from harness.folder import AttemptStart, MetricsFile, MetricsLine
from harness.gluon import Learner, LearnerState, Requests
from harness.guard import ConsistencyCheck
from harness.plan import LRPlan, Sizes
from harness.shipped import typed_words
from harness.train.resume import ResumePoint
from harness.train.run import Run
from harness.train.state import RunState, is_due
from harness.units import ClockTime
from harness.versions import code_of, versions


def environment_of(run: Run) -> dict[str, str | int]:
    """What a result's last bits depend on besides the configuration."""
    return {**versions(), "threads_per_rank": run.config.threads_per_rank}


def attempt_start(run: Run) -> AttemptStart:
    """How an attempt begins, as the run's history tells it."""
    launch, resume_point = read_launch(), run.resume_point
    launcher = "" if launch.launcher is None else launch.launcher.split()[0]
    launcher += f" {'-n' if launcher == 'srun' else '-np'} {launch.size} " if launcher else ""
    return AttemptStart(
        after=run.initial_state.iteration,
        origin=None if resume_point is None else resume_point.path,
        ranks=run.world.size,
        comm=run.world.kind,
        host=run.world.hostname,
        command=launcher + shlex.join(typed_words(sys.argv)),
        environment=environment_of(run),
        code=code_of(deciding(run.config.plain())),
        data=run.data.fingerprint,
    )


def sizes_to_json(sizes: Sizes) -> dict[str, Any]:
    """What a manifest says of sizes: shards and batch beside the others."""
    others = {key: value for key, value in sizes.to_json().items() if key not in ("shards", "batch_size")}
    return {"shards": sizes.shards, "batch_size": sizes.batch_size, "sizes": others}


def plan_to_json(plan: LRPlan, fingerprint: str, t: int) -> dict[str, Any]:
    """What a manifest says of a plan after update `t`."""
    around = [i for i in (t - 1, t, t + 1) if 1 <= i <= plan.sizes.num_iterations]
    return {
        "described": plan.describe(),
        "fingerprint": fingerprint,
        # a few rates by which a resumed run proves that it has the same plan
        "lr": {str(i): plan.lr(i) for i in around},
    }


def manifest_of(
    run: Run, state: RunState, numbers: Mapping[str, Any], init: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a checkpoint's manifest says of the run; `docs/checkpoint-format.md` explains each key.

    Args:
        run: by its plan of now.
        state: of now.
        numbers: of the learner.
        init: which weights the run began with; `None` for the initializer's.
    """
    return {
        "state": {"iteration": state.iteration, **numbers, **state.to_json()},
        **sizes_to_json(run.sizes),
        "data": run.data.fingerprint,
        **({} if run.data.items_digest is None else {"items": run.data.items_digest}),
        "plan": plan_to_json(run.plan, run.plan_fingerprint, state.iteration),
        "config": run.config.plain(),
        **({} if init is None else {"init": dict(init)}),
        "environment": environment_of(run),
        "world": run.world.to_json(),
    }


def save_alone(run: Run, state: RunState, learner: Learner) -> Path | None:
    """Save by one process that cannot find the others any more; `None` if another of them has saved as much.

    Raises:
        CheckpointError: if it cannot be written.
        ConfigError: if another process writes to the folder.
    """
    run.folder.lock()
    folder = run.folder.path / "checkpoints"
    newest = max((iteration_of(path) or 0 for path in list_checkpoints(folder)), default=0)
    if newest >= state.iteration:
        return None
    kept, point = learner.snapshot(), run.resume_point
    init = learner.began_with if point is None else point.manifest.init
    return write_checkpoint(folder, state.iteration, kept.arrays, manifest_of(run, state, kept.numbers, init))


def verify(check: ConsistencyCheck, run: Run, t: int) -> None:
    """Compare the ranks after update `t`: rates, counters and checksums of every array."""
    check.verify(t, run.plan.lr(t), run.plan.momentum(t), t * run.sizes.global_batch)


class Saver:
    """Writes the checkpoints and metrics of one run.

    A checkpoint is due by iterations, by rank 0's clock, after a new best evaluation, at the end, and before the run
    stops on request.

    Attributes:
        saved: what the newest checkpoint holds, as every rank knows it.
    """

    def __init__(
        self,
        run: Run,
        learner: Learner,
        check: ConsistencyCheck,
        metrics: MetricsFile | None,
        warn: Callable[[str], None],
        saved: RunState | None = None,
    ) -> None:
        """Start the writer on rank 0; to be used as a context, which ends it.

        Args:
            run: what is trained.
            learner: whose state is saved.
            check: compares the ranks before each checkpoint.
            metrics: on rank 0, the file whose lines must be on disk before a checkpoint that is newer.
            warn: shows a line to the user.
            saved: what the newest checkpoint holds, by default that with which this attempt began.
        """
        # the plan may change on the way, so `save` is given the run anew; what is read from it here does not
        self._world, self._learner, self._check = run.world, learner, check
        self._metrics, self._warn, self._hooks = metrics, warn, run.hooks
        self._settings, self._total = run.config.checkpoint, run.sizes.num_iterations
        every = self._settings.every
        self._every = self._every_s = None
        if isinstance(every, ClockTime):
            self._every_s = every.seconds
        elif every is not None:
            self._every = max(1, run.sizes.iterations(every))
        self._folder = run.folder.path / "checkpoints"
        self._writer = CheckpointWriter(self._folder, self._settings.keep) if run.world.rank == 0 else None
        self._buffer: LearnerState | None = None
        self._failure: CheckpointError | None = None
        self._asked = False
        self._since_s = time.monotonic()
        # what this folder's newest checkpoint holds; a run that is forked from another folder has none here yet
        is_here = run.resume_point is not None and run.resume_point.here
        begun = run.initial_state if is_here else replace(run.initial_state, iteration=0)
        self.saved = saved or begun
        if (is_here or saved is not None) and self._writer is not None:
            self._repair_best()

    def ask(self, stop: bool = False, reshape: bool = False) -> Requests:
        """What this rank asks of all ranks with the next update.

        Only rank 0 has a clock and a disk, so what it wants must travel to the others before anybody acts on it.

        Args:
            stop: whether it was told to stop.
            reshape: whether it wants another world.
        """
        if self._writer is None:
            return Requests(stop=stop, reshape=reshape)
        # a write that has ended meanwhile is noticed here, at most one update later
        self._take(self._writer.poll())
        self._tell_written()
        # asked once: the next update tells all ranks, and the save that follows sets the clock back
        is_time = self._every_s is not None and time.monotonic() - self._since_s >= self._every_s
        save = (is_time or self._hooks.wants_save) and not self._asked
        self._asked = self._asked or save
        return Requests(save, failure=self._failure is not None, stop=stop or self._hooks.wants_stop, reshape=reshape)

    def record(self, *lines: MetricsLine) -> None:
        """Write lines of metrics on rank 0, and tell hooks of them; a failure counts as that of a checkpoint."""
        if self._metrics is None:
            return
        stamped = [line._replace(time=round(time.time(), 3)) for line in lines]
        try:
            for line in stamped:
                self._metrics.write(line.to_json())
        except CheckpointError as error:
            self._take(error)
        self._hooks.recorded(stamped)

    def is_due(self, state: RunState, requests: Requests) -> bool:
        """Whether a checkpoint has to be saved now, the same on every rank.

        Args:
            state: of now.
            requests: what ranks have asked with the update that was just made.

        Raises:
            CheckpointError: on every rank, if an earlier one could not be written and the policy is to stop.
        """
        if requests.failure:
            self._world.on_root("checkpoint", self._raise_failure)
        t = state.iteration
        by_count = is_due(t, self._every)
        ends = t == self._total or state.stops_early
        at_end = ends and (self._settings.every is not None or self._settings.best is not None)
        is_best = state.best != self.saved.best
        stops = requests.stop or state.evaluation_due
        # every term is the same on every rank: counts, what was asked with the update, and a state that all hold alike
        return (by_count or at_end or requests.save or is_best or stops) and t > self.saved.iteration

    def save(self, run: Run, state: RunState) -> None:
        """Save the state after an update; the write itself runs beside the updates that follow.

        Raises:
            DisagreementError: on every rank, if the ranks have drifted apart.
            DivergedError: on every rank, if the weights are no longer finite.
        """
        run.timing.enter("checkpoint")
        self.saved, self._asked, self._since_s = state, False, time.monotonic()
        self._hooks.wants_save = False
        # a checkpoint that nobody could resume from must not become the newest
        verify(self._check, run, state.iteration)
        self._learner.check_weights(state.iteration)
        if self._writer is None:
            return
        # the buffer belongs to the write before this one until that has ended
        self._take(self._writer.wait())
        self._tell_written()
        if self._failure is not None:
            return  # the other ranks hear of it with the next update
        self._buffer = self._learner.snapshot(self._buffer)
        init = self._learner.began_with if run.resume_point is None else run.resume_point.manifest.init
        manifest = manifest_of(run, state, self._buffer.numbers, init)
        best = None if state.best is None else state.best.to_json()
        # metrics are forced to disk first, so that no checkpoint is newer than the lines before it
        sync = None if self._metrics is None else self._metrics.sync
        self._writer.start(state.iteration, self._buffer.arrays, manifest, best=best, first=sync)

    def wait_until_written(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            CheckpointError: on every rank, if it could not be written and the policy is to stop.
        """
        self._world.on_root("checkpoint.last", self._wait)

    def newest(self) -> ResumePoint | None:
        """On rank 0, the run's newest valid checkpoint, once nothing is being written; `None` if there is none."""
        self._wait()
        path = newest_valid(list_checkpoints(self._folder)).newest
        return None if path is None else ResumePoint(str(path), Manifest.of(read_manifest(path), path), True, [], [])

    def rewound(self, state: RunState) -> None:
        """Forget, on every rank, what was saved and asked after the iteration that the run has gone back to."""
        self.saved, self._asked = state, False
        self._learner.pop_requests()
        if self._metrics is not None:
            self._metrics.cut_back(state.iteration)

    def _repair_best(self) -> None:
        """Let `best.json` name what the checkpoint says: a later attempt that was given up may have changed it."""
        if self.saved.best is None:
            return
        try:
            mark_best(self._folder, self.saved.best.to_json())
        except OSError as error:
            self._take(
                CheckpointError(
                    f"{self._folder}: best.json could not be written ({error.strerror}); free some disk space"
                )
            )

    def _wait(self) -> None:
        if self._writer is not None:
            self._take(self._writer.wait())
            self._tell_written()
        self._raise_failure()

    def _tell_written(self) -> None:
        """Tell hooks of checkpoints that have become complete."""
        for path in self._writer.pop_written() if self._writer is not None else ():
            self._hooks.saved(iteration_of(path) or 0, path)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _take(self, error: CheckpointError | None) -> None:
        """Keep a failure until all ranks hear of it with the next update, or only warn, as the user has chosen."""
        if error is None:
            return
        if self._settings.on_failure == "stop":
            self._failure = error
        else:
            self._warn(f"warning: {error} (continuing, as checkpoint.on_failure says)")

    def __enter__(self) -> Saver:
        """The saver, ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread, after the write under way: a checkpoint that is complete stays, whatever ended the run."""
        if self._writer is not None:
            self._writer.close()
            self._tell_written()
