"""Learning rates and momenta in PyTorch: a schedule or a plan as a scheduler of any optimizer of `torch.optim`.

Knows nothing of runs and data.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from harness.errors import ConfigError
from harness.named import brief
from harness.parsing import plain_numbers
from harness.plan import LRPlan
from harness.schedules import ScheduleLike, as_schedule

_KEY = "iteration"


def as_torch(
    source: object, optimizer: Optimizer, *, momentum: object | None = None, iteration: int = 0
) -> PlannedRates:
    """A schedule or a plan as a scheduler for an optimizer of `torch.optim`.

    Args:
        source: an `LRPlan`, with scaling, warm-up, amendments and momentum as it has them; or whatever
            `harness.schedules.as_schedule` accepts.
        optimizer: its groups may have `lr_mult`, by which their rates are multiplied.
        momentum: a schedule for the momentum, beside a schedule; a plan has its own.
        iteration: how many updates there have been.

    Raises:
        ConfigError: for a plan in units of a base that is still to be found, a second momentum, or a momentum for an
            optimizer that has none.
        TypeError: for anything else.
    """
    if not isinstance(source, LRPlan):
        return PlannedRates(
            optimizer, as_schedule(source), None if momentum is None else as_schedule(momentum), iteration=iteration
        )
    if momentum is not None:
        raise ConfigError("as_torch: momentum: the plan has its own (lr.momentum); leave it out")
    if source.in_units_of_base:
        raise ConfigError(
            "as_torch: lr.base: auto: the base of this plan is still to be found; find it (launch/find_lr.py), or open "
            "a run that has"
        )
    return PlannedRates(optimizer, source.schedule, source.momentum_schedule, iteration=iteration)


class PlannedRates(LRScheduler):
    """Sets the rates of update t = 1, 2, ... by t alone; call `step()` after each update.

    Group g is stepped at `schedule(t) * lr_mult(g)`, with its factor (1 unless the group has `lr_mult`) and its own
    momentum as they were when it was first seen. A schedule of the momentum sets `momentum`, or the first of `betas`,
    in every group; where it gives NaN, the group's own holds. So `state_dict()` is one number, the updates that there
    have been, and `load_state_dict` gives what an unbroken run has.

    Attributes:
        schedule: the learning rate of every update.
        momentum_schedule: the momentum of every update; `None` for the optimizer's own.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: ScheduleLike,
        momentum_schedule: ScheduleLike | None = None,
        *,
        iteration: int = 0,
    ) -> None:
        """Set the rates of the first update, or of the one after `iteration`.

        Raises:
            ConfigError: if there is a momentum for an optimizer that has none, or a rate is not possible.
        """
        self.schedule, self.momentum_schedule = schedule, momentum_schedule
        self._factors: dict[int, float] = {}
        self._own: dict[int, float] = {}
        super().__init__(optimizer)
        if iteration:
            self.load_state_dict({_KEY: iteration})

    @property
    def iteration(self) -> int:
        """The updates that there have been."""
        return int(self.last_epoch)

    @override
    def get_lr(self) -> list[float | Tensor]:
        """The rates of the next update, a number for each group; its momenta are set on the way."""
        t = self.iteration + 1
        rate = float(self.schedule(t))
        if not 0 <= rate < math.inf:
            raise ConfigError(f"as_torch: iteration {t}: found the learning rate {rate:g}; must be finite, 0 or more")
        if self.momentum_schedule is not None:
            self._set_momenta(float(self.momentum_schedule(t)))
        return [rate * self._factor(number, group) for number, group in enumerate(self.optimizer.param_groups)]

    @override
    def state_dict(self) -> dict[str, Any]:
        """The updates that there have been, as `iteration`."""
        return {_KEY: self.iteration}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the rates of the update after `iteration`; load the optimizer's own state before.

        Raises:
            ConfigError: for any other state.
        """
        iteration = plain_numbers(state_dict.get(_KEY))
        if type(iteration) is not int or iteration < 0 or len(state_dict) > 1:
            raise ConfigError(
                f"as_torch: state_dict: found {brief(state_dict)}; must be {{'{_KEY}': N}}, the updates there have been"
            )
        self.last_epoch = iteration
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            _put(group, "lr", rate)
        self._last_lr = [
            rate.clone() if isinstance(rate, Tensor) else rate
            for rate in (group["lr"] for group in self.optimizer.param_groups)
        ]

    def _factor(self, number: int, group: dict[str, Any]) -> float:
        return self._factors.setdefault(number, float(group.get("lr_mult", 1.0)))

    def _set_momenta(self, planned: float) -> None:
        for number, group in enumerate(self.optimizer.param_groups):
            if "momentum" in group:
                own = self._own.setdefault(number, float(group["momentum"]))
                _put(group, "momentum", own if math.isnan(planned) else planned)
            elif "betas" in group:
                own = self._own.setdefault(number, float(group["betas"][0]))
                group["betas"] = (own if math.isnan(planned) else planned, *group["betas"][1:])
            elif not math.isnan(planned):
                raise ConfigError(
                    f"as_torch: {type(self.optimizer).__name__} has neither momentum nor betas, which a schedule of "
                    "the momentum would set; leave lr.momentum out"
                )


def _put(group: dict[str, Any], key: str, value: float | Tensor) -> None:
    """Set a number of a group; a tensor stays the one that a captured graph reads."""
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value
