"""What happens when loss or gradient are no longer finite: the run stops, leaves the update out, or goes back.

All ranks read the same reduced numbers, so all of them do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import DivergedError
from harness.folder import MetricsLine
from harness.gluon import Learner, State
from harness.plan import Rewind
from harness.report import write_plan
from harness.train.run import Run
from harness.train.saving import Saver


class Divergence:
    """Acts by `guard.divergence`: `stop`, `skip` or `rewind`."""

    def __init__(self, run: Run, learner: Learner, saver: Saver, warn: Callable[[str], None]) -> None:
        """Start; with `rewind` rank 0 keeps the first state, for a divergence before the first set.

        Args:
            run: what is trained; a rewind cuts its learning rates.
            learner: whose state is put back.
            saver: knows the sets.
            warn: shows a line to the user.
        """
        self._run, self._learner, self._saver, self._warn = run, learner, saver, warn
        self._section = run.config.guard.divergence
        self._skipped = learner.skipped
        self._total = 0 if run.origin is None else run.origin.manifest.state.skipped
        run.num_skipped = self._total
        self._first: State | None = None
        if self._section.policy == "rewind" and run.world.rank == 0:
            self._first = learner.snapshot()
        self._begun = 0 if run.origin is None else run.origin.iteration

    def was_skipped(self, t: int) -> bool:
        """Whether update `t`, which was just made, was left out.

        Raises:
            DivergedError: on every rank, once there were too many.
        """
        if self._learner.skipped == self._skipped:
            return False
        self._skipped = self._learner.skipped
        self._run.num_skipped += 1
        count, most = self._run.num_skipped, self._section.limit
        if count > most:
            raise DivergedError(
                f"iteration {t}: loss or gradient were not finite in {count} updates, and guard.divergence.at_most "
                f"leaves out {most}; lower the learning rate, or look for NaN in the data"
            ).at(t)
        self._warn(
            f"iteration {t}: loss or gradient were not finite; the update is left out ({count} of at most {most})"
        )
        self._saver.record(MetricsLine("skipped", t, None, self._run.plan.lr(t), None, {"count": count}))
        return True

    def go_back(self, t: int, error: DivergedError) -> int:
        """Put the newest set back and lower the learning rate from there on.

        Args:
            t: the iteration that the run was at.
            error: what was seen.

        Returns:
            The iteration to go on after.

        Raises:
            DivergedError: `error`, where that is not the policy or was done often enough.
        """
        run, section = self._run, self._section
        done = sum(isinstance(amendment, Rewind) for amendment in run.amendments)
        if section.policy != "rewind" or done >= section.limit:
            if done:
                raise DivergedError(f"{error}\n(after {done} rewinds, guard.divergence.at_most)").at(t) from error
            raise error
        back, numbers = run.world.on_root("rewind", self._put_back)
        self._learner.broadcast_state()
        diverged_at = error.iteration or t
        run.cut(back, section.cut, diverged_at)
        self._saver.go_back(back)
        run.num_skipped = numbers
        run.world.on_root("rewind.plan", lambda: write_plan(run.folder.path, run.config, run.plan, run.amendments))
        what, times = str(error).partition(";")[0], f"{done + 1} of at most {section.limit}"
        self._warn(f"{what}: rewound to iteration {back} ({times}), learning rates x {section.cut:g} from here")
        cut = {"diverged_at": diverged_at, "lr_factor": section.cut}
        self._saver.record(MetricsLine("rewind", back, None, None, None, cut))
        return int(back)

    def _put_back(self) -> list[int]:
        origin = self._saver.rewind()
        if origin is None:
            if self._first is None:
                raise RuntimeError("the first state was not kept")
            self._learner.restore(self._first)
            return [self._begun, self._total]
        self._learner.restore(State.load(Path(origin.path)))
        return [origin.iteration, origin.manifest.state.skipped]
