"""From a checkpoint to the optimizer of a module: gathers what the run says of its own, and carries it over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.bridge.counterparts import Counterpart, RunOptimizer
from harness.bridge.of_gluon import factors_of
from harness.bridge.optimizers import carry_over
from harness.gluon.state import LearnerState

if TYPE_CHECKING:
    import torch

    from harness.bridge.mapping import ArrayMap
    from harness.bridge.opening import Opened
    from harness.bridge.sides import Sides


def optimizer_of(opened: Opened, sides: Sides, mapping: ArrayMap) -> tuple[torch.optim.Optimizer, Counterpart]:
    """The run's optimizer for the module, with its state.

    Raises:
        ConfigError: if PyTorch has none that makes the same updates.
        CheckpointError: if the checkpoint holds weights alone.
    """
    run, state, factors = opened.run, LearnerState.load(opened.checkpoint), factors_of(sides.gluon.net)
    counts = dict(zip(factors, state.numbers["update_counts"], strict=True))
    applied = state.numbers["applied_lr"]
    left = range(opened.iteration + 1, run.sizes.num_iterations + 1)
    is_constant = all(run.plan.lr(t) == applied for t in left)
    name = type(sides.optimizer).__name__.lower()
    carried = RunOptimizer(
        name,
        dict(vars(sides.optimizer)),
        factors,
        state.optimizer_state,
        counts,
        applied,
        run.config.momentum_correction,
        is_constant,
        run.config.optimizer.clip_norm,
    )
    return carry_over(carried, sides.torch.module, mapping)
