"""What the values of a plan must be: learning rates that float32 holds, momenta below 1, and pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from harness.config import Problem
from harness.errors import ConfigError
from harness.named import cut
from harness.schedules import ScheduleLike
from harness.schedules.bounds import BELOW_ONE, LARGEST, SMALLEST
from harness.schedules.purity import impurity, own_schedules


def lr_out_of_bounds(lr: ScheduleLike, iterations: Iterable[int]) -> list[Problem]:
    """The first learning rate that no update could use; 0 is allowed."""
    for t in iterations:
        rate = _asked(lr, t)
        if SMALLEST <= rate <= LARGEST or rate == 0:
            continue
        found = f"the learning rate is {rate:g} at iteration {t}; "
        if 0 < rate < SMALLEST:
            found += f"float32, in which weights are updated, holds 0 and {SMALLEST:.2g} to {LARGEST:.2g}; give the "
            found += "schedule a floor (raised, floor_lr), or end it at 0"
        else:
            found += f"it must be at least 0 and a float32 (at most {LARGEST:.2g})"
        return [Problem(("lr",), found)]
    return []


def momentum_out_of_bounds(momentum: ScheduleLike, iterations: Iterable[int]) -> list[Problem]:
    """The first momentum that no update could use."""
    for t in iterations:
        value = _asked(momentum, t)
        if 0 < value < SMALLEST or not 0 <= value < BELOW_ONE:
            found = (
                f"is {value:.9g} at iteration {t}; it must be 0, or at least {SMALLEST:.2g} and below 1 (in float32)"
            )
            return [Problem(("lr", "momentum"), found)]
    return []


def _asked(schedule: ScheduleLike, t: int) -> float:
    """The value of an iteration; functions that a program has put into a schedule of ours may do anything."""
    try:
        return float(schedule(t))
    except (ConfigError, OverflowError):
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {cut(str(error), 200)}"
        raise ConfigError(
            f"failed at iteration {t} ({reason}); every function in it must give a finite number of at least 0"
        ) from error


def impure(key: str, schedule: ScheduleLike, own_values: dict[str, dict[int, float]]) -> list[Problem]:
    """Schedules of the user's own that give something else when they are asked again.

    Args:
        key: `schedule` or `momentum`.
        schedule: in which they may be.
        own_values: what each of them gave is added, by its name.
    """
    own = own_schedules(schedule)
    found = [impurity(one) for one in own]
    for one in own:
        own_values.setdefault(one.name, {}).update(one.asked)
    return [Problem(("lr", key), problem) for problem in found if problem is not None]
