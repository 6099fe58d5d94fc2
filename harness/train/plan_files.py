"""The plan in a run's folder, as a run writes it: at its beginning, and after each change on the way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from harness.folder import FactorGroup
from harness.gluon import Learner
from harness.model.optimizers import factor_groups
from harness.plan.layers import describe_factors
from harness.report import write_plan
from harness.train.run import Run
from harness.train.state import RunState


def factors_of(run: Run, learner: Learner) -> Sequence[FactorGroup]:
    """Groups of parameters by their factors; none where all are alike."""
    return factor_groups(learner.parameters) if describe_factors(run.config.optimizer) else []


def write_plan_of(run: Run, state: RunState, learner: Learner, name: str = "plan") -> None:
    """Write the plan's files on rank 0, and tell hooks of what is new in it; a collective.

    Args:
        run: by its plan of now.
        state: with the changes so far.
        learner: of the run.
        name: of the collective.

    Raises:
        ConfigError: on every rank, if the folder cannot be written.
    """
    factors, folder = factors_of(run, learner), run.folder.path
    run.world.on_root(name, lambda: write_plan(folder, run.config, run.plan, state.amendments, factors))
    run.hooks.amended([one.to_json() for one in state.amendments], partial(rates_of, run))


def rates_of(run: Run) -> npt.NDArray[np.float64]:
    """The learning rate of every update by the plan of now, `(iterations,)`."""
    return run.plan.lrs(np.arange(1, run.sizes.num_iterations + 1))
