"""What evaluations may decide about a plan while its run trains, in words, before it does."""

from __future__ import annotations

from harness.config import RunConfig
from harness.plan.sizes import Sizes


def describe_decisions(config: RunConfig, sizes: Sizes) -> list[str]:
    """How a plateau may change the plan and how the run may end before its end, a sentence each; as a rule none.

    Args:
        config: of the run.
        sizes: of the run.
    """
    plateau, early_stop, every = config.lr.plateau, config.train.early_stop, config.evaluation.every
    if every is None or (plateau is None and early_stop is None):
        return []
    # one after the last update changes no update of this run
    num_evaluations = (sizes.num_iterations - 1) // max(1, sizes.iterations(every))
    lines = []
    if plateau is not None:
        floor = f" (at least {plateau.min_lr})" if plateau.min_lr else ""
        said = f"all later learning rates are x {plateau.factor:g}{floor}"
        lines.append(
            f"a plateau may change the plan: after more than {_evaluations(plateau.patience)} of {plateau.monitor} in "
            f"a row without improvement, {said}" + _too_few(num_evaluations, plateau.patience + 2)
        )
    if early_stop is not None:
        lines.append(
            f"the run may end early: after {_evaluations(early_stop.patience)} of {early_stop.monitor} in a row "
            "without improvement" + _too_few(num_evaluations, early_stop.patience + 1)
        )
    return lines


def _evaluations(count: int) -> str:
    return f"{count} evaluation{'' if count == 1 else 's'}"


def _too_few(found: int, least: int) -> str:
    """Where that cannot come, unless values are not numbers: the first evaluation always is an improvement."""
    if found >= least:
        return ""
    return f"; before its last update the run has {_evaluations(found)}, too few for that"
