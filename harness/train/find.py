"""The learning-rate finder of a run, and the run by what it found."""

from __future__ import annotations

from dataclasses import replace

from harness.errors import StoppedOnRequestError
from harness.finder import FinderResult, find_lr, provenance_of, result_of, take_result
from harness.gluon import Learner, Requests
from harness.guard import compare_schedules
from harness.plan import amended_plan
from harness.train.prepare import agreed
from harness.train.run import Run
from harness.versions import versions


def find_base(run: Run, learner: Learner) -> FinderResult:
    """Run the learning-rate finder; the learner's state is restored afterwards.

    Raises:
        StoppedOnRequestError: on every rank, if any was told to stop.
    """

    def ask() -> Requests:
        run.guard.enter("the learning-rate finder")
        return Requests(stop=run.guard.stop_requested)

    run.guard.defer_stops()
    run.guard.enter("the learning-rate finder", "first")
    try:
        finding = find_lr(learner, run.finder_settings, run.finder_stream, ask)
    except StoppedOnRequestError:  # the finder does not know of signals; the guard knows which rank received one
        raise run.guard.stopped("the learning-rate finder restored the state; start it again") from None
    more = {
        "world": run.world.to_json(),
        "after_iteration": run.initial_state.iteration,
        "checkpoint": None if run.resume_point is None else run.resume_point.path,
        "versions": versions(),
    }
    return result_of(finding, run.finder_settings, provenance_of(run.config, run.sizes.global_batch, **more))


def with_found_base(run: Run, result: FinderResult, report: str) -> tuple[Run, list[str]]:
    """The run whose plan, in units of the base until now, is definite.

    Args:
        run: with `lr.base: auto`.
        result: of the finder.
        report: where the user can read about it.

    Returns:
        The run, and what the user should know of the base, a sentence each.

    Raises:
        NoUsableLRError: on every rank, if the finder refused.
    """
    world = run.world
    config, remarks = agreed(world, run.config, "base", lambda: take_result(run.config, result, report))
    plan = agreed(world, config, "plan", lambda: amended_plan(config, run.sizes, run.initial_state.amendments))
    compare_schedules(world, plan, config.source)
    return replace(run, config=config, plan=plan), remarks
