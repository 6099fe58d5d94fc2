"""The plan of a run that goes on: by its configuration, by what was changed on the way, and as its checkpoint tells it.

A checkpoint keeps a few learning rates around its iteration; its own configuration and amendments have to give them.
"""

from __future__ import annotations

import math
from typing import Any

from harness.checkpoint.manifest import Manifest
from harness.config import RunConfig
from harness.errors import CheckpointError, ConfigError
from harness.plan import LRPlan, Sizes
from harness.train.conflicts import code_in


def plan_of(config: RunConfig, sizes: Sizes, amendments: list[dict[str, Any]]) -> LRPlan:
    """The plan of a run whose plan was changed on the way: each amendment keeps what held up to its iteration.

    Args:
        config: what holds now.
        sizes: of the run, by `config`.
        amendments: as in the state; those without a plan of their own (the saved one was kept) change nothing, and
            a rewind multiplies what comes after it.

    Raises:
        ConfigError: if `config` gives no plan.
        CheckpointError: if an amendment holds no plan.
    """
    earlier: list[tuple[int, LRPlan]] = []
    cuts: list[tuple[int, float]] = []
    for amendment in amendments:
        if amendment["choice"] == "rewind":
            cuts.append((int(amendment["iteration"]), float(amendment["lr_factor"])))
        if "lr" in amendment:
            earlier.append((int(amendment["iteration"]), _plan_before(amendment, config, sizes, cuts)))
    return LRPlan(config.lr, sizes, config.source, earlier=earlier, cuts=cuts)


def resumed_plan(config: RunConfig, sizes: Sizes, amendments: list[dict[str, Any]], path: str) -> LRPlan:
    """`plan_of`, for amendments that a checkpoint brings: what only they make impossible is the checkpoint's fault.

    Raises:
        ConfigError: if `config` gives no plan.
        CheckpointError: if an amendment holds no plan, or cuts the rates to what float32 does not hold.
    """
    try:
        return plan_of(config, sizes, amendments)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ConfigError as error:
        cuts = [index for index, amendment in enumerate(amendments) if amendment["choice"] == "rewind"]
        if not cuts:
            raise
        plan_of(config, sizes, [amendment for amendment in amendments if amendment["choice"] != "rewind"])
        factors = ", ".join(f"state.amendments[{index}].lr_factor {amendments[index]['lr_factor']:g}" for index in cuts)
        raise CheckpointError(f"{path}: its rewinds ({factors}) leave no plan: {error}") from None


def saved_plan(saved: RunConfig, sizes: Sizes, manifest: Manifest, path: str) -> LRPlan:
    """The plan that a checkpoint was trained by.

    Raises:
        CheckpointError: if this version cannot use it.
    """
    try:
        own = Sizes.of(
            saved.train,
            num_samples=sizes.num_samples,
            shards=sizes.shards,
            batch_size=sizes.batch_size,
            source=saved.source,
        )
        return plan_of(saved, own, manifest.state.amendments)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its own plan cannot be used by this version: {error}") from None


def has_own_code(manifest: Manifest) -> bool:
    """Whether the plan of a checkpoint is made by code of the user's own, which may have changed since."""
    plans = [manifest.config.get("lr"), *(amendment.get("lr") for amendment in manifest.state.amendments)]
    return any(True for _ in code_in(plans))


def refuse_other_rates(manifest: Manifest, plan: LRPlan, path: str) -> None:
    """Refuse learning rates, around the checkpoint's iteration, that its own configuration does not give.

    Raises:
        CheckpointError: naming the first.
    """
    for name, found in manifest.content["plan"]["lr"].items():
        rate = plan.lr(int(name))
        if not math.isclose(found, rate, rel_tol=1e-9, abs_tol=1e-12):
            raise CheckpointError(
                f"{path}: manifest.json contradicts itself: plan.lr.{name} is {found:g}, but by config.lr and "
                f"state.amendments it is {rate:g}; another program has changed it; resume from another checkpoint "
                "(--resume PATH)"
            )


def _plan_before(amendment: dict[str, Any], config: RunConfig, sizes: Sizes, cuts: list[tuple[int, float]]) -> LRPlan:
    """The plan that held until an amendment."""
    where = f"the plan that held until iteration {amendment['iteration']}"
    try:
        old = config.changed({"lr": amendment["lr"], "train": amendment["train"]})
        old_sizes = Sizes.of(
            old.train,
            num_samples=sizes.num_samples,
            shards=sizes.shards,
            batch_size=sizes.batch_size,
            source=config.source,
        )
        return LRPlan(old.lr, old_sizes, config.source, cuts=cuts)
    except ConfigError as error:
        raise CheckpointError(
            f"state.amendments: {where} cannot be used by this version ({error}); resume from a checkpoint that was "
            "saved before it (--resume PATH)"
        ) from None
