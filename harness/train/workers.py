"""Worker processes of a run, which read the items of its splits; and settings about workers that would do nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from harness.config import DataConfig, RunConfig
from harness.data import SequenceDataset, Splits
from harness.data.collated import innermost, with_innermost
from harness.data.generators import Seeding
from harness.data.workers.orders import WorkerOrders
from harness.data.workers.pool import WorkerPool
from harness.errors import ConfigError
from harness.model.inputs import seed_generator
from harness.train.samples import RunData, load_arguments

_NAMES = ("train", "validation", "test")
_AHEAD = 3  # batches, where several workers make them


def prefetch_of(data: DataConfig) -> int:
    """How many batches are made ahead of time."""
    if data.pictures is None and data.workers == 0:
        return 0
    several = data.pictures is not None or data.worker_kind == "process"
    return data.prefetch or (_AHEAD if several else 1)


def with_workers(config: RunConfig, data: RunData, threads: int) -> RunData:
    """The data of a run, read by worker processes if it wants some.

    Items are then seeded one by one in any case, so that they are the same however many workers there are.

    Args:
        config: the run's.
        data: probed and seeded.
        threads: that this rank computes with, and so the number of workers if none is given.

    Raises:
        ConfigError: for settings that have no effect on these data.
    """
    section, splits = config.data, data.splits
    refuse_idle(section, splits)
    if section.worker_kind == "thread":
        return data
    found: dict[int, tuple[str, SequenceDataset]] = {}  # splits may share their items
    for name in _NAMES:
        items = innermost(getattr(splits, name))
        if isinstance(items, SequenceDataset) and id(items) not in found:
            found[id(items)] = name, items.seeded(items.seeding or Seeding(config.seed))
    count, own = threads if section.workers == "auto" else int(section.workers), dict(found.values())
    pool = WorkerPool(count, _orders(config, own), own) if count else None

    def read_by(items: Any) -> Any:
        if id(items) not in found:
            return items
        name, seeded = found[id(items)]
        return seeded if pool is None else seeded.read_by(partial(pool.read, name))

    changed = {name: with_innermost(one, read_by) for name in _NAMES if (one := getattr(splits, name)) is not None}
    return data._replace(splits=replace(splits, **changed), workers=pool)


def refuse_idle(data: DataConfig, splits: Splits) -> None:
    """Refuse settings about workers that would do nothing.

    Raises:
        ConfigError: naming the setting.
    """
    defaults = DataConfig.model_fields
    given = [name for name in ("worker_kind", "workers", "timeout_s") if getattr(data, name) != defaults[name].default]
    is_process = data.worker_kind == "process"
    if data.pictures is not None:
        if is_process:
            raise ConfigError(
                "data.worker_kind: process has no effect on picture files, which threads decode side by side; remove it"
            )
        return
    if not any(isinstance(innermost(getattr(splits, name)), SequenceDataset) for name in _NAMES):
        if given:
            raise ConfigError(f"data.{given[0]}: has no effect on arrays, which are not read item by item; remove it")
    elif not is_process and data.workers not in ("auto", 0, 1):
        raise ConfigError(
            f"data.workers: {data.workers} threads would wait for each other, because items are Python code, which "
            "holds the interpreter's lock; set data.worker_kind: process, or remove it"
        )
    elif not is_process and "timeout_s" in given:
        raise ConfigError(
            "data.timeout_s: a thread that reads items cannot be ended; set data.worker_kind: process, or remove it: "
            "guard.stall_after_s is the limit for the whole update"
        )
    if data.workers == 0 and data.prefetch is not None:
        raise ConfigError("data.prefetch: has no effect with data.workers: 0; remove it")


def _orders(config: RunConfig, items: dict[str, SequenceDataset]) -> WorkerOrders:
    collate = config.data.collate
    return WorkerOrders(
        load=load_arguments(config),
        transform=config.data.transform,
        collate=collate,
        seed=config.seed,
        more=f"{seed_generator.__module__}:{seed_generator.__qualname__}",
        calls_more={name: one.seeding is not None and one.seeding.more is not None for name, one in items.items()},
        timeout_s=config.data.timeout_s,
    )
