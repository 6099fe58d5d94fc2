"""From a configuration to a run: resume point, settings, data, plan, in this order, and the same on every rank.

Each step either succeeds on all ranks or fails on all, with one message. The learner is not built here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from harness.comm import World
from harness.config import RunConfig
from harness.data import EVERY_HOST, Augmentation, Order
from harness.errors import ConfigError, DataError
from harness.finder import read_result, settings_of, take_result, with_base
from harness.folder import RunFolder
from harness.guard import Guard, Unguarded, compare_schedules
from harness.model import build_metrics
from harness.model.metrics import Metric
from harness.plan import LRPlan, Sizes, amended_plan, count_workers, imbalance, resolve_shards
from harness.train.conflicts import refuse_other_data
from harness.train.monitors import directions_of
from harness.train.resolve import ResolvedConfig, resolve, resolve_plan
from harness.train.resume import ResumePoint, StartOptions, agree_on_resume_point
from harness.train.run import Run
from harness.train.samples import (
    SHARE_FILES,
    RunData,
    build_augmentation,
    compare_pictures,
    group_by_of,
    grouped,
    load_splits,
    probe_items,
    seeded_data,
)
from harness.train.state import RunState
from harness.train.workers import with_workers

T = TypeVar("T")


def prepare_run(
    config: RunConfig,
    world: World,
    *,
    threads: int,
    emulate_np: int | None = None,
    start: StartOptions | None = None,
    guard: Guard | Unguarded | None = None,
) -> Run:
    """Find the checkpoint to resume from, read the data and build the plan, on every rank alike.

    Args:
        config: as read.
        world: the ranks.
        threads: threads a rank computes with.
        emulate_np: how many ranks this one process stands for.
        start: whether to resume from a checkpoint; by default the run starts over.
        guard: watches over this rank; by default nobody does.

    Raises:
        HarnessError: of the kind that failed, on every rank, when it failed on any.
    """
    folder = RunFolder(Path(config.output) / config.run_name)
    try:
        return _prepare(
            config, world, folder, threads, emulate_np, start=start or StartOptions(), guard=guard or Unguarded()
        )
    except BaseException:
        folder.close()  # whoever catches the error may try again
        raise


def _prepare(
    config: RunConfig,
    world: World,
    folder: RunFolder,
    threads: int,
    emulate_np: int | None,
    *,
    start: StartOptions,
    guard: Guard | Unguarded,
) -> Run:
    # First the checkpoint: what it says of the run decides what the configuration may still say.
    resume_point = agree_on_resume_point(world, folder, start)
    config, remarks = read_base(config, world)
    workers = emulate_np or count_workers(config, world.size)
    config, resolved = resolve_config(config, world, resume_point, workers, threads, start)
    state = initial_state(config, resume_point, resolved)
    is_trained = resume_point is not None or config.init.from_ is not None
    finder_settings = agreed(world, config, "finder", lambda: settings_of(config, middle=is_trained))

    # Then the data, whose number of samples turns durations into iterations, and with them the plan.
    data, sizes, plan, undecided, order, augmentation = read_run(config, world, threads, state, resume_point, resolved)

    # Last how a result is judged, so that a name that is wrong fails now and not after an epoch.
    metrics = agreed(world, config, "metrics", lambda: _build_metrics(config))
    directions = agreed(world, config, "best", lambda: directions_of(config, metrics, data.held_out))
    return Run(
        config=config,
        world=world,
        guard=guard,
        folder=folder,
        start=start,
        resume_point=resume_point,
        initial_state=state,
        undecided=undecided,
        data=data,
        augmentation=augmentation,
        sizes=sizes,
        order=order,
        plan=plan,
        metrics=metrics,
        directions=directions,
        finder_settings=finder_settings,
        remarks=(*remarks, *([] if emulate_np else imbalance(sizes.shards, workers))),
    )


class ReadRun(NamedTuple):
    """What a configuration and its data make; `Run` explains each."""

    data: RunData
    sizes: Sizes
    plan: LRPlan
    undecided: str | None
    order: Order
    augmentation: Augmentation


def read_run(
    config: RunConfig,
    world: World,
    threads: int,
    state: RunState,
    resume_point: ResumePoint | None,
    resolved: ResolvedConfig | None,
) -> ReadRun:
    """Read the data, and count and plan the iterations; a collective.

    Args:
        config: definite (`resolve_config`).
        world: the ranks.
        threads: that a rank computes with.
        state: what the run starts from.
        resume_point: the checkpoint that it resumes from.
        resolved: what the checkpoint makes of the configuration.

    Raises:
        HarnessError: of the kind that failed, on every rank, when it failed on any.
    """
    data = _read_data(config, world, threads)
    sizes, plan, undecided = agreed(
        world, config, "plan", lambda: _build_plan(config, data, state, resume_point, resolved)
    )
    compare_schedules(world, plan, config.source)
    order = Order(
        sizes.num_samples,
        sizes.shards,
        sizes.batch_size,
        config.seed,
        config.train.last_batch,
        are_streams=config.network.state is not None,
        grouping=data.grouping,
    )
    augmentation = agreed(world, config, "augmentation", lambda: build_augmentation(config, data.splits))
    return ReadRun(data, sizes, plan, undecided, order, augmentation)


def agreed(world: World, config: RunConfig, name: str, work: Callable[[], T], partly: str = "") -> T:
    """Do `work` on all ranks or fail on all, with the configuration's file in the message; see `World.agreed`."""
    return world.agreed(name, lambda: _with_source(config, work), partly)


def _with_source(config: RunConfig, work: Callable[[], T]) -> T:
    try:
        return work()
    except (ConfigError, DataError) as error:
        error.found_in(config.source)
        raise


def read_base(config: RunConfig, world: World) -> tuple[RunConfig, list[str]]:
    """Replace the path of a finder's result by its number; rank 0 reads it."""
    base = config.lr.base
    if not isinstance(base, str) or base == "auto":
        return config, []

    def read() -> list[Any]:
        taken, remarks = take_result(config, read_result(Path(base)), base)
        return [taken.lr.base, taken.lr.reference_batch, remarks]

    number, batch, remarks = world.on_root("base", lambda: _with_source(config, read))
    return with_base(config, number, batch), remarks


def resolve_config(
    config: RunConfig,
    world: World,
    resume_point: ResumePoint | None,
    workers: int,
    threads: int,
    start: StartOptions,
) -> tuple[RunConfig, ResolvedConfig | None]:
    """Make the configuration definite: by itself in a new run, by the checkpoint in one that resumes."""
    if resume_point is None:
        shards = agreed(world, config, "shards", lambda: resolve_shards(config, workers))
        return config.resolved(shards=shards, threads=threads), None
    choice = start.on_conflict
    resolved = agreed(
        world,
        config,
        "resolved",
        lambda: resolve(config, resume_point, workers=workers, threads=threads, on_conflict=choice),
    )
    return resolved.config, resolved


def initial_state(config: RunConfig, resume_point: ResumePoint | None, resolved: ResolvedConfig | None) -> RunState:
    """What the checkpoint holds, with what this start changes in the plan."""
    if resume_point is None or resolved is None:
        return RunState()
    saved = RunState.of(resume_point.manifest, resume_point.path).judged_by(config.checkpoint.best)
    return replace(saved, amendments=tuple(resolved.amendments))


def _read_data(config: RunConfig, world: World, threads: int) -> RunData:
    """The data, probed: items that draw at random are seeded one by one, on every rank."""
    partly = "" if ":" in config.data.name else f"{EVERY_HOST}; {SHARE_FILES}"
    splits = agreed(world, config, "data", lambda: load_splits(config, threads), partly)
    compare_pictures(world, config, splits)
    found = agreed(world, config, "items", lambda: probe_items(splits))
    data = seeded_data(world, splits, found, config.seed)
    group_by = agreed(world, config, "grouping", lambda: group_by_of(config))
    try:
        data = agreed(world, config, "workers", lambda: with_workers(config, data, threads))
        return grouped(world, data, group_by, (config.batch.shards or 1) * config.batch.size)
    except DataError as error:
        raise error.found_in(config.source) from None


def _build_plan(
    config: RunConfig,
    data: RunData,
    state: RunState,
    resume_point: ResumePoint | None,
    resolved: ResolvedConfig | None,
) -> tuple[Sizes, LRPlan, str | None]:
    """Sizes and plan; and, where checkpoint and configuration differ, what the user has to choose between."""
    num_samples = len(data.splits.train)
    if resume_point is not None:
        facts = num_samples, data.fingerprint, data.items_digest
        refuse_other_data(resume_point.manifest, resume_point.path, *facts, config.source)
    sizes = Sizes.of(
        config.train,
        num_samples=num_samples,
        shards=config.batch.shards or 1,
        batch_size=config.batch.size,
        num_batches=data.num_batches,
        source=config.source,
    )
    if resume_point is None or resolved is None:
        return sizes, amended_plan(config, sizes, state.amendments), None
    return sizes, *resolve_plan(resolved, resume_point, sizes)


def _build_metrics(config: RunConfig) -> dict[str, Metric]:
    network = config.network
    axis = network.loss_params.get("axis") if network.loss == "softmax_cross_entropy" else None
    from_logits = network.loss == "softmax_cross_entropy" and network.loss_params.get("from_logits") is True
    return build_metrics(config.evaluation.metrics, axis if isinstance(axis, int) else None, from_logits=from_logits)
