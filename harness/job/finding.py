"""The learning-rate finder of an open job, and the plan by what it found."""

from __future__ import annotations

from dataclasses import asdict

from harness.errors import ConfigError, NoUsableLRError
from harness.finder import FinderResult, FinderSettings, find_lr, result_of
from harness.gluon import Requests
from harness.job.session import Session
from harness.job.settings import WHERE
from harness.model.optimizers import factor_groups
from harness.plan import LRPlan
from harness.versions import versions

_PROBES = 8  # in a network that has been trained, where the first loss says little


def find_rate(session: Session, settings: FinderSettings | None, trained: int) -> tuple[FinderResult, LRPlan]:
    """Sweep, put everything back, and make a plan in units of the base definite; a collective.

    Args:
        session: of the job.
        settings: of the sweep, or `None` for the defaults.
        trained: updates that the network has had.

    Raises:
        ConfigError: for a curve of held-out samples.
        NoUsableLRError: on every rank, if the base is wanted and no rate is reliable.
        DisagreementError: on every rank, if they sweep by other settings.
    """

    def ask() -> Requests:
        session.ranks.enter("the learning-rate finder")
        return Requests()

    settings = settings or FinderSettings(probes=_PROBES if trained else 0)
    if settings.held_out_batches is not None:
        raise ConfigError(
            f"{WHERE}: find_lr: settings.held_out_batches is {settings.held_out_batches}, but a job has no held-out "
            "samples of its own; leave it out, or call harness.finder.find_lr with held_out=..."
        ).on_all_ranks()
    # With other settings a rank would sweep longer than the others, and wait for them.
    facts = {"settings": asdict(settings), "after iteration": trained}
    session.world.must_be_equal("finder", facts, "call job.find_lr() with the same settings on every rank")
    finding = find_lr(session.learner, settings, session.finder_stream, ask)
    given, sizes = session.given, session.sizes
    result = result_of(
        finding,
        settings,
        {
            "global_batch": sizes.global_batch,
            "shards": sizes.shards,
            "batch_size": sizes.batch_size,
            "network": {"name": type(given.calls.net).__name__, "params": {}},
            "optimizer": {"name": type(given.optimizer).__name__.lower(), "params": {}},
            "data": session.data.splits.train.source,
            "world": session.world.to_json(),
            "after_iteration": trained,
            "versions": versions(),
        },
        session.plan.config,
        factor_groups(session.learner.parameters),
    )
    plan = session.plan
    return result, plan_by_result(plan, result) if plan.in_units_of_base else plan


def plan_by_result(plan: LRPlan, result: FinderResult) -> LRPlan:
    """The plan by what was found, scaled from the global batch that it was found at.

    Raises:
        NoUsableLRError: if no rate is reliable.
    """
    suggestion = result.suggestion
    if suggestion.lr is None:
        reason, advice = suggestion.refusal or ("it gave no reason", "find again")
        raise NoUsableLRError(
            f"{WHERE}: lr.base: no reliable learning rate found: {reason}. To continue: {advice}; or give a number"
        ).on_all_ranks()
    return plan_by_base(plan, suggestion.lr, result.global_batch)


def plan_by_base(plan: LRPlan, base: float, batch: int | None) -> LRPlan:
    """The plan with a number as base, meant for a global batch of `batch` samples where anything is scaled."""
    is_scaled = plan.config.scales and plan.config.scaling != "none"
    config = plan.config.model_copy(update={"base": base, "reference_batch": batch if is_scaled else None})
    return LRPlan(config, plan.sizes, WHERE)
