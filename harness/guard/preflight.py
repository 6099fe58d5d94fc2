"""The preflight check: what must be equal on every rank before the first update, and who processes which shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.comm import World
from harness.comm.compare import Facts
from harness.config import RunConfig, deciding
from harness.errors import ConfigError, DisagreementError
from harness.plan import LRPlan
from harness.versions import code_of

OF_A_HOST = (("output",), ("device",), ("data", "root"), ("data", "download"))  # may differ between hosts
_ADVICE = "start every rank with the same code, packages, configuration and data"


def compare_configs(world: World, config: RunConfig) -> None:
    """Compare the configuration as it was read, because everything after it follows it, collectives too.

    Raises:
        DisagreementError: on every rank, naming settings, ranks and values.
    """
    world.must_be_equal("configuration", _comparable(config), _ADVICE)


def compare_ranks(world: World, facts: Facts, config: RunConfig, own_shards: Sequence[int]) -> None:
    """Compare everything, in one collective.

    Args:
        world: the ranks.
        facts: that must be equal.
        config: resolved.
        own_shards: those that this rank processes.

    Raises:
        DisagreementError: on every rank, naming what differs, the ranks and both values.
    """
    equal = {**facts, "configuration": _comparable(config), "code": code_of(deciding(config.plain()))}
    everyone = world.must_be_equal("preflight", equal, _ADVICE, own=[world.rank, list(own_shards)])
    ranks_of: dict[int, list[int]] = {shard: [] for shard in range(config.batch.shards or 1)}
    for rank, shards in everyone:
        for shard in shards:
            ranks_of.setdefault(shard, []).append(rank)
    wrong = [f"shard {shard}: processed by {ranks or 'nobody'}" for shard, ranks in ranks_of.items() if len(ranks) != 1]
    ranks = [rank for rank, _ in everyone]
    if sorted(ranks) != list(range(world.size)):
        wrong.append(f"the ranks have the numbers {ranks}")
    if wrong:
        raise DisagreementError(
            "preflight: every shard must be processed by one rank:\n  " + "\n  ".join(wrong)
        ).on_all_ranks()


def compare_schedules(world: World, plan: LRPlan, source: str) -> None:
    """Compare the values that the user's own schedules return on the ranks; a collective if there are any.

    Raises:
        ConfigError: on every rank, naming the schedule, the iteration and the ranks' values.
    """
    if not plan.own_values or world.size == 1:
        return
    own = {name: list(values.items()) for name, values in plan.own_values.items()}
    everyone = world.allgather_object(own, "schedules")
    for name in own:
        for points in zip(*(one[name] for one in everyone), strict=False):
            if any(list(point) != list(points[0]) for point in points):
                shown = "; ".join(f"{value!r} on rank {rank}" for rank, (_, value) in enumerate(points))
                raise ConfigError(
                    f"{source}: lr: {name!r} gives different values on the ranks, at its iteration {points[0][0]}: "
                    f"{shown}; a schedule must be a function of the iteration alone, and must not depend on rank, "
                    "host or process"
                ).on_all_ranks()


def _comparable(config: RunConfig) -> dict[str, Any]:
    plain = config.plain()
    for keys in OF_A_HOST:
        inner = plain
        for key in keys[:-1]:
            inner = inner[key]
        inner.pop(keys[-1])
    return plain
