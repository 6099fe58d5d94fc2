"""The plan of a run whose plan was changed on the way."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config import RunConfig
from harness.errors import CheckpointError, ConfigError
from harness.plan.amendments import Amendment, Replace, Rewind
from harness.plan.lr_plan import LRPlan
from harness.plan.sizes import Sizes


def amended_plan(config: RunConfig, sizes: Sizes, amendments: Sequence[Amendment]) -> LRPlan:
    """The plan by a configuration and what was changed on the way.

    Args:
        config: what holds now.
        sizes: of the run, by `config`.
        amendments: in the order of their iterations.

    Raises:
        ConfigError: if `config` gives no plan.
        CheckpointError: if an amendment holds no plan.
    """
    earlier: list[tuple[int, LRPlan]] = []
    cuts: list[tuple[int, float]] = []
    for amendment in amendments:
        if isinstance(amendment, Rewind):
            cuts.append((amendment.iteration, amendment.lr_factor))
        elif isinstance(amendment, Replace):
            earlier.append((amendment.iteration, _plan_before(amendment, config, sizes, cuts)))
    return LRPlan(config.lr, sizes, config.source, earlier=earlier, cuts=cuts)


def _plan_before(amendment: Replace, config: RunConfig, sizes: Sizes, cuts: Sequence[tuple[int, float]]) -> LRPlan:
    """The plan that held until an amendment."""
    where = f"the plan that held until iteration {amendment.iteration}"
    try:
        old = config.changed({"lr": dict(amendment.lr), "train": dict(amendment.train)})
        return LRPlan(old.lr, sizes.with_train(old.train, config.source), config.source, cuts=cuts)
    except ConfigError as error:
        raise CheckpointError(
            f"state.amendments: {where} cannot be used by this version ({error}); resume from a checkpoint that was "
            "saved before it (--resume PATH)"
        ) from None
