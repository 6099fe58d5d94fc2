"""What happens when loss or gradient are no longer finite: the run stops, skips the update, or rewinds.

All ranks read the same reduced numbers, so all of them do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.checkpoint import Manifest
from harness.errors import DivergedError
from harness.folder import MetricsLine
from harness.gluon import Learner, LearnerState
from harness.plan import Amendment, Judgement, Rewind
from harness.train.plan_files import write_plan_of
from harness.train.run import Run
from harness.train.saving import Saver
from harness.train.state import RunState


class Divergence:
    """Acts by `guard.divergence`: `stop`, `skip` or `rewind`."""

    def __init__(
        self, run: Run, learner: Learner, saver: Saver, warn: Callable[[str], None], *, is_beginning: bool = True
    ) -> None:
        """With `rewind`, rank 0 keeps the first state, for a divergence before the first checkpoint.

        Args:
            run: what is trained.
            learner: whose state is put back.
            saver: knows the checkpoints.
            warn: shows a line to the user.
            is_beginning: whether the learner has the state that this attempt begins with.
        """
        self._learner, self._saver, self._warn = learner, saver, warn
        self._section = run.config.guard.divergence
        keeps = self._section.policy == "rewind" and run.world.rank == 0 and is_beginning
        self._first: LearnerState | None = learner.snapshot() if keeps else None

    def skipped(self, run: Run, state: RunState) -> RunState:
        """The state after an update that was left out because it was not finite.

        Args:
            run: what is trained.
            state: after that update.

        Raises:
            DivergedError: on every rank, once there were too many.
        """
        t, count, limit = state.iteration, state.skipped + 1, self._section.limit
        if count > limit:
            raise DivergedError(
                f"iteration {t}: loss or gradient were not finite in {count} updates, and guard.divergence.at_most "
                f"leaves out {limit}; lower the learning rate, or look for NaN in the data"
            ).at(t)
        self._warn(f"iteration {t}: loss or gradient were not finite; skipped the update ({count} of at most {limit})")
        self._saver.record(MetricsLine("skipped", t, None, run.plan.lr(t), None, {"count": count}))
        return replace(state, skipped=count)

    def answer(self, run: Run, state: RunState, t: int, error: DivergedError) -> tuple[Run, RunState]:
        """Rewind the run where that is the policy, and was not done too often; otherwise this is its end.

        Args:
            run: what is trained.
            state: with the amendments so far.
            t: the iteration that the run was at.
            error: what was seen.

        Returns:
            The run by its new plan, and the state to continue from.

        Raises:
            DivergedError: `error`, where that is not the policy or was done often enough.
        """
        done, section = sum(isinstance(amendment, Rewind) for amendment in state.amendments), self._section
        if section.policy == "rewind" and done < section.limit:
            what, times = str(error).partition(";")[0], f"{done + 1} of at most {section.limit}"
            return self._rewind(run, state, error.iteration or t, f"{what}: rewound to iteration {{}} ({times})")
        if done:
            raise DivergedError(f"{error}\n(after {done} rewinds, guard.divergence.at_most)").at(t) from error
        raise error

    def _rewind(self, run: Run, state: RunState, diverged_at: int, warning: str) -> tuple[Run, RunState]:
        """Put the newest checkpoint back and lower every learning rate after it."""
        world, factor = run.world, self._section.cut

        # The newest checkpoint holds no rewind that came after it, so those of now are kept, and one is added. What
        # evaluations decided after it is undone with them.
        found = world.on_root("rewind", self._put_back)
        self._learner.broadcast_state()
        back = run.initial_state
        if found is not None:
            back = RunState.of(Manifest.of(found[1], found[0]), found[0]).judged_by(run.config.checkpoint.best)
        rewind = Rewind(back.iteration, factor, diverged_at)
        kept = tuple(one for one in state.amendments if not _is_undone(one, back.iteration))
        back = replace(back, amendments=kept).amended(rewind)
        run = run.amended(back)

        # Files follow: metrics after that iteration are dropped, and the plan is written anew.
        self._saver.rewound(back)
        write_plan_of(run, back, self._learner, "rewind.plan")
        self._warn(f"{warning.format(back.iteration)}, learning rates x {factor:g} from here")
        cut = {"diverged_at": diverged_at, "lr_factor": factor}
        self._saver.record(MetricsLine("rewind", back.iteration, None, None, None, cut))
        return run, back

    def _put_back(self) -> list[Any] | None:
        """Restore rank 0's learner; returns the checkpoint's path and manifest, or `None` for the first state."""
        point = self._saver.newest()
        if point is None:
            if self._first is None:
                raise DivergedError(
                    "there is no checkpoint to rewind to, and since the workers have changed nobody has the state of "
                    "the beginning; save sooner (checkpoint.every), and start over with --overwrite"
                )
            self._learner.restore(self._first)
            return None
        self._learner.restore(LearnerState.load(Path(point.path)))
        return [point.path, point.manifest.content]


def _is_undone(amendment: Amendment, iteration: int) -> bool:
    """Whether a run that goes back to an iteration has not come to this decision any more."""
    return isinstance(amendment, Judgement) and amendment.iteration > iteration
