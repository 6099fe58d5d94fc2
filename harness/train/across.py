"""The learning-rate finder at several global batches: each is a run of its own, with other shards and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from harness.comm import World
from harness.config import RunConfig
from harness.errors import ConfigError
from harness.finder import FinderResult, Refusal
from harness.finder.across_result import KIND, AcrossResult, ResultsAt
from harness.finder.journal import UNFINISHED
from harness.folder import MB, RecordError, read_object, seen
from harness.guard import Guard
from harness.plan import count_workers, resolve_shards
from harness.train.build import build_learner
from harness.train.find import find_base, journal_of
from harness.train.prepare import agreed, prepare_run
from harness.train.run import Run

_MOST_BYTES = 256 * MB  # of 16 batches with many sweeps
REPEATS, MULTIPLIER = 5, 1.02  # of the slower sweeps, unless the configuration says otherwise


def runs_across(
    config: RunConfig, world: World, multiples: list[int], *, threads: int, emulate_np: int | None, guard: Guard
) -> Iterator[Run]:
    """A run for each multiple of the configured batch, prepared when it is asked for; to be closed.

    Args:
        config: as read; its `batch.shards`, or the number of workers, is multiplied.
        world: the ranks.
        multiples: ascending.
        threads: threads a rank computes with.
        emulate_np: how many ranks this one process stands for.
        guard: watches over this rank.

    Raises:
        ConfigError: on every rank, for one sweep at each batch, or a batch of more samples than there are.
    """
    workers = emulate_np or count_workers(config, world.size)
    shards = agreed(world, config, "shards", lambda: resolve_shards(config, workers))
    config = agreed(world, config, "across", lambda: _with_defaults(config))
    for multiple in multiples:
        run = prepare_run(
            config.changed({"batch.shards": multiple * shards}),
            world,
            threads=threads,
            emulate_np=emulate_np,
            guard=guard,
        )
        largest, samples = multiples[-1] * shards * config.batch.size, run.sizes.num_samples
        if largest > samples:  # before the first sweep, and not hours later
            run.close()
            raise (
                ConfigError(
                    f"--across: {multiples[-1]} times the global batch of {shards * config.batch.size} are {largest} "
                    f"samples, and there are {samples}; give smaller multiples"
                )
                .found_in(config.source)
                .on_all_ranks()
            )
        yield run


def find_across(first: Run, others: Iterator[Run], folder: Path, say: Callable[[list[str]], None]) -> AcrossResult:
    """Sweep at every batch, and put the results together; each learner's state is restored.

    Args:
        first: with the smallest batch.
        others: with larger ones.
        folder: of the report; what is done lies in it until the report is written.
        say: shows lines to the user.
    """
    results, told, num_sweeps = [], list[str](), 0
    for run in chain([first], others):
        with closing(run):
            learner = build_learner(run)
            new = [line for line in [*run.world.remarks, *run.remarks, *learner.remarks] if line not in told]
            told += new
            say(new)
            settings = run.finder_settings
            fast = replace(run, finder_settings=replace(settings, sweep=settings.sweep.faster()))
            found = []
            for speed, one in (("slow", run), ("fast", fast)):
                journal = journal_of(one, learner, folder / UNFINISHED / f"{run.sizes.global_batch}-{speed}")
                # each sweep of all sees other samples, or what they have in common would look like an effect
                found.append(find_base(one, learner, journal=journal, first_sweep=num_sweeps))
                num_sweeps += settings.repeats
                say([*journal.told(), f"global batch {run.sizes.global_batch}, {speed}: {_extent(found[-1])}"])
        results.append(ResultsAt(*found))
    return AcrossResult.of(results)


def earlier_across(world: World, path: Path) -> tuple[list[str], Refusal | None]:
    """What a finished result told, and its refusal; a collective.

    Raises:
        ConfigError: on every rank, if it cannot be read.
    """
    told, refusal = world.on_root("finder.result", lambda: _read(path))
    return told, None if refusal is None else Refusal(*refusal)


def _extent(result: FinderResult) -> str:
    iterations = sum(len(sweep.points) for sweep in result.sweeps)
    return f"{len(result.sweeps)} sweeps, {iterations} iterations together"


def _read(path: Path) -> list[Any]:
    try:
        fields = read_object(path, _MOST_BYTES)
        if fields.maybe(fields.text, "kind", 100) != KIND:
            raise RecordError("is not the result of a finder at several batches")
        refusal = fields.maybe(fields.inner, "refusal")
        told = [seen(str(line), 500) for line in fields.items("told")]
        return [told, None if refusal is None else [refusal.text("reason", 2000), refusal.text("advice", 2000)]]
    except RecordError as error:
        raise ConfigError(f"{path}: {error}; move it aside with --overwrite") from None


def _with_defaults(config: RunConfig) -> RunConfig:
    """Slower sweeps, and several, unless the configuration says how many."""
    section = config.finder
    if section.spacing == "linear":
        raise ConfigError("finder.spacing: linear has no speed to extrapolate over; use exponential with --across")
    if section.repeats == 1:
        raise ConfigError(
            "finder.repeats: 1 sweep at each batch gives no interval; give at least 2, or remove it for "
            f"{REPEATS} with --across"
        )
    changed: dict[str, Any] = {}
    if section.repeats is None:
        changed["finder.repeats"] = REPEATS
    if section.lr_multiplier is None and section.num_iterations is None:
        changed["finder.lr_multiplier"] = MULTIPLIER
    return config.changed(changed)
