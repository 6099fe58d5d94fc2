"""The plan of a run that resumes: by its configuration, by its amendments, and as its checkpoint records it.

A checkpoint records the learning rates around its iteration; its own configuration and amendments must give the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.checkpoint.manifest import CHANGED_BY_ANOTHER, Manifest
from harness.config import RunConfig
from harness.errors import CheckpointError, ConfigError
from harness.folder import Fields, RecordError
from harness.named import code_in
from harness.plan import (
    Amendment,
    LRPlan,
    PlateauCut,
    Replace,
    Rewind,
    Sizes,
    Trend,
    amended_plan,
    read_amendments,
)


def amendments_of(manifest: Manifest, path: str) -> tuple[Amendment, ...]:
    """The changes of the plan that a checkpoint records.

    Raises:
        CheckpointError: naming the key that is missing, of another kind, impossible or out of order.
    """
    try:
        listed = Fields(manifest.content["state"], "state").inners("amendments")
        return read_amendments(listed, manifest.iteration)
    except RecordError as error:
        raise CheckpointError(f"{path}: manifest.json: {error}; {CHANGED_BY_ANOTHER}") from None


def trend_of(manifest: Manifest, key: str, path: str) -> Trend | None:
    """What `plateau` or `early_stop` remembered of evaluations; `None` where a checkpoint has nothing of it.

    Raises:
        CheckpointError: naming the key that is missing, of another kind or impossible.
    """
    try:
        state = Fields(manifest.content["state"], "state")
        return Trend.read(state.inner(key), manifest.iteration) if state.has(key) else None
    except RecordError as error:
        raise CheckpointError(f"{path}: manifest.json: {error}; {CHANGED_BY_ANOTHER}") from None


def resumed_plan(config: RunConfig, sizes: Sizes, amendments: Sequence[Amendment], path: str) -> LRPlan:
    """`amended_plan`, for a checkpoint's amendments: what only they make impossible is the checkpoint's fault.

    Raises:
        ConfigError: if `config` gives no plan.
        CheckpointError: if an amendment holds no plan, or cuts the rates to what float32 does not hold.
    """
    try:
        return amended_plan(config, sizes, amendments)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ConfigError as error:
        cuts = [(index, one) for index, one in enumerate(amendments) if isinstance(one, Rewind | PlateauCut)]
        if not cuts:
            raise
        amended_plan(config, sizes, [one for one in amendments if not isinstance(one, Rewind | PlateauCut)])
        kinds = "rewinds" if all(isinstance(one, Rewind) for _, one in cuts) else "cuts"
        factors = ", ".join(f"state.amendments[{index}].lr_factor {one.lr_factor:g}" for index, one in cuts[:10])
        raise CheckpointError(f"{path}: its {kinds} ({factors}) leave no plan: {error}") from None


def saved_plan(saved: RunConfig, sizes: Sizes, amendments: Sequence[Amendment], path: str) -> LRPlan:
    """The plan that a checkpoint was trained by.

    Raises:
        CheckpointError: if this version cannot use it.
    """
    try:
        return amended_plan(saved, sizes.with_train(saved.train, saved.source), amendments)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its own plan cannot be used by this version: {error}") from None


def has_own_code(manifest: Manifest, amendments: Sequence[Amendment]) -> bool:
    """Whether the user's own code makes the plan of a checkpoint; it may have changed since."""
    plans = [manifest.config.get("lr"), *(one.lr for one in amendments if isinstance(one, Replace))]
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
