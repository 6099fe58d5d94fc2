"""The plan of a run whose plan was changed on the way, and how it comes to be changed when the run resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.config import RunConfig
from harness.errors import CheckpointError, ConfigError
from harness.plan.amendments import Amendment, EarlyStop, Extend, PlateauCut, Replace, Rewind
from harness.plan.lr_plan import Cut, LRPlan
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
    cuts: list[Cut] = []
    for amendment in amendments:
        if isinstance(amendment, Rewind):
            cuts.append(Cut(amendment.iteration, amendment.lr_factor))
        elif isinstance(amendment, PlateauCut):
            cuts.append(Cut(amendment.iteration, amendment.lr_factor, amendment.min_lr))
        elif isinstance(amendment, Replace):
            earlier.append((amendment.iteration, _plan_before(amendment, config, sizes, cuts)))
        elif not isinstance(amendment, Extend | EarlyStop):  # which change no rate
            raise TypeError(f"{type(amendment).__name__} says nothing of what it does to the plan")
    return LRPlan(config.lr, sizes, config.source, earlier=earlier, cuts=cuts)


def with_choice(
    amendments: Sequence[Amendment], n: int, choice: str, changes: Mapping[str, tuple[Any, Any]], saved: RunConfig
) -> tuple[Amendment, ...]:
    """The amendments with one more: which plan the user chose, the checkpoint's or the configuration's.

    Args:
        amendments: of the checkpoint.
        n: its iteration.
        choice: `config` or `checkpoint`.
        changes: by setting, the saved value and that of the configuration.
        saved: the configuration of the checkpoint.
    """
    if choice == "config":
        plain = saved.plain()
        return (*amendments, Replace(n, changes, plain["lr"], plain["train"]))
    last = amendments[-1] if amendments else None
    if isinstance(last, Extend) and last.changes == changes:
        return tuple(amendments)  # the same start script was run once more
    return (*amendments, Extend(n, changes))


def rates_around(n: int, saved: LRPlan, wanted: LRPlan) -> list[str]:
    """A small table: the learning rate at n - 1, n and n + 1 by both plans."""
    iterations = [t for t in (n - 1, n, n + 1) if t >= 1]
    table = [["learning rate at iteration", *map(str, iterations)]]
    for title, plan in (("by the saved plan", saved), ("by this configuration", wanted)):
        total = plan.sizes.num_iterations
        table.append([title, *(f"{plan.lr(t):.6g}" if t <= total else "ended" for t in iterations)])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]


def _plan_before(amendment: Replace, config: RunConfig, sizes: Sizes, cuts: Sequence[Cut]) -> LRPlan:
    """The plan that held until an amendment."""
    where = f"the plan that held until iteration {amendment.iteration}"
    try:
        # what evaluations decided until then is among the cuts, and they need not be possible any more
        lr, train = {**amendment.lr, "plateau": None}, {**amendment.train, "early_stop": None}
        old = config.changed({"lr": lr, "train": train})
        return LRPlan(old.lr, sizes.with_train(old.train, config.source), config.source, cuts=cuts)
    except ConfigError as error:
        raise CheckpointError(
            f"state.amendments: {where} cannot be used by this version ({error}); resume from a checkpoint that was "
            "saved before it (--resume PATH)"
        ) from None
