"""When a run saves, what stands in a set besides arrays, and what a failed write means.

Every rank takes the same decisions; only rank 0 copies the state and writes.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.checkpoint import (
    Best,
    CheckpointWriter,
    Manifest,
    list_checkpoints,
    mark_best,
    newest_valid,
    read_manifest,
)
from harness.comm import read_launch
from harness.errors import CheckpointError
from harness.folder import AttemptBegun, MetricsFile, MetricsLine
from harness.gluon import Learner, Requests, State
from harness.train.resume import ResumePoint
from harness.train.run import Run
from harness.units import ClockTime
from harness.versions import versions


def environment_of(run: Run) -> dict[str, str | int]:
    """What a result's last bits depend on besides the configuration."""
    return {**versions(), "threads_per_rank": run.config.threads_per_rank}


def beginning_of(run: Run) -> AttemptBegun:
    """How an attempt begins, as the run's history tells it."""
    launch, origin = read_launch(), run.origin
    launcher = "" if launch.launcher is None else launch.launcher.split()[0]
    launcher += f" {'-n' if launcher == 'srun' else '-np'} {launch.size} " if launcher else ""
    return AttemptBegun(
        after=0 if origin is None else origin.iteration,
        origin=None if origin is None else origin.path,
        ranks=run.world.size,
        comm=run.world.kind,
        host=run.world.hostname,
        command=f"{launcher}python {shlex.join(sys.argv)}",
        environment=environment_of(run),
    )


class Saver:
    """Writes metrics and sets of one run: sets by iterations, by rank 0's clock, and when a metric was at its best."""

    def __init__(
        self,
        run: Run,
        learner: Learner,
        folder: Path,
        metrics: MetricsFile | None,
        warn: Callable[[str], None],
        verify: Callable[[int], None],
    ) -> None:
        """Start.

        Args:
            run: what is trained.
            learner: whose state is saved.
            folder: of the sets.
            metrics: on rank 0, the file whose lines must be on disk before a set that is newer.
            warn: shows a line to the user.
            verify: makes sure that the ranks agree after an iteration, before it is saved.
        """
        config = run.config.checkpoint
        self._run, self._learner, self._metrics, self._warn = run, learner, metrics, warn
        self._folder, self._verify = folder, verify
        self._stops = config.on_failure == "stop"
        self._metric, self._mode = config.best, run.best_is
        self._enabled = config.every is not None or config.best is not None
        self._every_s, self._every = None, None
        if isinstance(config.every, ClockTime):
            self._every_s = config.every.seconds
        elif config.every is not None:
            self._every = max(1, run.sizes.iterations(config.every))
        self._writer = CheckpointWriter(folder, config.keep) if run.world.rank == 0 else None
        self._buffer: State | None = None
        self._failure: CheckpointError | None = None
        self._best: Best | None = None
        self._last = 0
        if run.origin is not None:
            self._last = run.origin.iteration if run.origin.here else 0
            self._best = run.origin.manifest.state.best
            if self._best is not None and self._best.metric.partition(".")[2] != self._metric:
                self._best = None
            if self._writer is not None and self._best is not None and run.origin.here:
                self._mark_best(folder, self._best)
        self._is_best = False
        self._asked = False
        self._evaluation_due = False
        self._since_s = time.monotonic()

    def _mark_best(self, folder: Path, best: Best) -> None:
        try:
            mark_best(folder, best.to_json())
        except OSError as error:
            self._take(CheckpointError(f"{folder}: best.json could not be written ({error.strerror}); make room"))

    def ask(self, stop: bool = False) -> Requests:
        """What this rank has to ask of all ranks with the next update.

        Args:
            stop: whether it was told to stop.
        """
        if self._writer is None:
            return Requests(stop=stop)
        self._take(self._writer.poll())
        due = self._every_s is not None and time.monotonic() - self._since_s >= self._every_s and not self._asked
        self._asked = self._asked or due
        return Requests(save=due, failure=self._failure is not None, stop=stop)

    def record(self, line: MetricsLine) -> None:
        """Write a line of metrics on rank 0; a failure counts as that of a set."""
        if self._metrics is None:
            return
        try:
            self._metrics.write(line.to_json())
        except CheckpointError as error:
            self._take(error)

    def evaluated(self, t: int, split: str, values: Mapping[str, float]) -> None:
        """Note the metrics that sets are judged by."""
        if self._metric is None:
            return
        value, best = values[self._metric], self._best
        sign = 1.0 if self._mode == "highest" else -1.0
        if value == value and (best is None or sign * value > sign * best.value):
            self._best = Best(t, f"{split}.{self._metric}", value)
            self._is_best = True

    def after(self, t: int, requests: Requests, evaluation_due: bool = False) -> None:
        """Save if it is time to; in any case where the run was asked to stop.

        Args:
            t: the iteration.
            requests: what ranks have asked with its update.
            evaluation_due: whether its evaluation was left for the run that goes on.

        Raises:
            CheckpointError: on every rank, if a set could not be written and the policy is to stop.
        """
        self._evaluation_due = evaluation_due
        if requests.failure:
            self._run.world.on_root("checkpoint", self._raise)
        by_count = self._every is not None and t % self._every == 0
        at_end = self._enabled and t == self._run.sizes.num_iterations
        stops = requests.stop or evaluation_due
        if (by_count or at_end or requests.save or self._is_best or stops) and t > self._last:
            self._save(t)

    def finish(self) -> None:
        """Wait until the last set is on disk.

        Raises:
            CheckpointError: on every rank, if it could not be written and the policy is to stop.
        """
        self._run.world.on_root("checkpoint.last", self._finish)

    def rewind(self) -> ResumePoint | None:
        """On rank 0, the newest whole set of the run, once nothing is being written; later iterations are forgotten."""
        if self._writer is None:
            return None
        self._take(self._writer.wait())
        self._raise()
        found = newest_valid(list_checkpoints(self._folder)).newest
        return (
            None if found is None else ResumePoint(str(found), Manifest.of(read_manifest(found), found), True, [], [])
        )

    def go_back(self, t: int) -> None:
        """Forget, on every rank, what was saved and asked after iteration `t`."""
        self._last, self._asked, self._is_best = t, False, False
        self._learner.pop_requests()
        if self._metrics is not None:
            self._metrics.cut_back(t)

    def _finish(self) -> None:
        if self._writer is not None:
            self._take(self._writer.wait())
        self._raise()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _take(self, error: CheckpointError | None) -> None:
        if error is None:
            return
        if self._stops:
            self._failure = error
        else:
            self._warn(f"warning: {error} (going on, as checkpoint.on_failure says)")

    def _save(self, t: int) -> None:
        self._last, self._is_best, self._asked = t, False, False
        self._since_s = time.monotonic()
        self._verify(t)
        self._learner.check_weights(t)  # a set that nobody could go on from must not become the newest
        if self._writer is None:
            return
        self._take(self._writer.wait())
        if self._failure is not None:
            return
        self._buffer = self._learner.snapshot(self._buffer)
        sync = None if self._metrics is None else self._metrics.sync
        manifest = self._manifest(t, self._buffer.numbers)
        best = None if self._best is None else self._best.to_json()
        self._writer.start(t, self._buffer.arrays, manifest, best=best, first=sync)

    def _manifest(self, t: int, numbers: Mapping[str, Any]) -> dict[str, Any]:
        run, plan = self._run, self._run.plan
        best = None if self._best is None else self._best.to_json()
        more: dict[str, Any] = {"evaluation_due": True} if self._evaluation_due else {}
        more |= {"skipped": run.num_skipped} if run.num_skipped else {}
        amendments = [one.to_json() for one in run.amendments]
        around = [i for i in (t - 1, t, t + 1) if 1 <= i <= run.sizes.num_iterations]
        return {
            "state": {
                "iteration": t,
                **numbers,
                "amendments": amendments,
                "best": best,
                **more,
            },
            "shards": run.sizes.shards,
            "batch_size": run.sizes.batch_size,
            "sizes": {key: value for key, value in vars(run.sizes).items() if key not in ("shards", "batch_size")},
            "data": run.data_fingerprint,
            **({} if run.items_digest is None else {"items": run.items_digest}),
            "plan": {
                "described": plan.describe(),
                "fingerprint": run.plan_fingerprint,
                "lr": {str(i): plan.lr(i) for i in around},
            },
            "config": run.config.plain(),
            **({} if run.began_with is None else {"init": run.began_with}),
            "environment": environment_of(run),
            "world": {"kind": run.world.kind, "size": run.world.size},
        }

    def __enter__(self) -> Saver:
        """The saver, ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread, after the set that it is at: what is whole stays, whatever ended the run."""
        if self._writer is not None:
            self._writer.close()
