"""MXNet's updaters, which hold the state of an optimizer: create it, multiply it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.model.parameters import held


def create_state(updater: Any, parameters: Sequence[Any], ctx: Any, *, is_settled: bool) -> None:
    """Create an optimizer's state on a device; a state that is not settled moves to where its weight is first met."""
    optimizer = updater.optimizer
    optimizer.param_dict = dict(enumerate(parameters))
    optimizer._set_current_context(ctx.device_id)
    for index, parameter in enumerate(parameters):
        updater.states[index] = optimizer.create_state_multi_precision(index, held(parameter, ctx))
        updater.states_synced[index] = is_settled


def multiply_state(updaters: Sequence[Any], factor: float) -> None:
    """Multiply every array of the state; a factor of 1 costs nothing."""
    if factor != 1:
        for updater in updaters:
            for array in updater.states.values():
                array *= factor


def is_sgd(optimizer: Any) -> bool:
    """Whether it is MXNet's SGD or one of its name, whose kernel takes several weights at a time."""
    return type(optimizer).__name__ == "SGD"
