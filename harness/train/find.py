"""The learning-rate finder of a run, and the run by what it found."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.sections import HOW_READ
from harness.data import permutation
from harness.errors import CheckpointError, ConfigError, StoppedOnRequestError, listed
from harness.finder import FinderResult, find_lr, provenance_of, read_result, result_of, take_result
from harness.finder.journal import Journal
from harness.finder.runner import HeldOut
from harness.folder import Fields, plain
from harness.gluon import Learner, Requests, evaluate
from harness.guard import compare_schedules
from harness.model.optimizers import factor_groups
from harness.named import brief, flat
from harness.plan import amended_plan
from harness.train.changes import end_world_if_some_stay
from harness.train.prepare import agreed
from harness.train.run import Run
from harness.units import ClockTime
from harness.versions import versions

_ENTERED = "the learning-rate finder"
_FREE = ("root", "download", *HOW_READ)  # of `data`: where it lies, and how it is read


def find_base(run: Run, learner: Learner, *, journal: Journal | None = None, first_sweep: int = 0) -> FinderResult:
    """Run the learning-rate finder; the learner's state is restored afterwards.

    Args:
        run: whose learning rate is wanted.
        learner: of the run.
        journal: keeps what has been done, for a finder that resumes.
        first_sweep: number of the first sweep; those of other numbers see other samples.

    Raises:
        ConfigError: on every rank, if the curve is to be of held-out samples and there are none.
        StoppedOnRequestError: on every rank, if any was told to stop.
    """

    def ask() -> Requests:
        run.guard.enter(_ENTERED)
        return Requests(save=journal is not None and journal.asks_to_save(), stop=run.is_told_to_end)

    run.guard.defer_stops()
    run.guard.enter(_ENTERED, "first")
    held_out = held_out_loss(run, learner)
    try:
        finding = find_lr(
            learner,
            run.finder_settings,
            lambda repeat: run.finder_stream(first_sweep + repeat),
            ask,
            held_out=held_out,
            journal=journal,
        )
    except StoppedOnRequestError:
        end_world_if_some_stay(run)
        # the finder does not know of signals; the guard knows which rank received one
        saved = "start it again" if journal is None else f"saved in {journal.folder}, start it again with --resume auto"
        raise run.guard.stopped(f"the learning-rate finder restored the state; {saved}") from None
    more = {
        "world": run.world.to_json(),
        "after_iteration": run.initial_state.iteration,
        "checkpoint": None if run.resume_point is None else run.resume_point.path,
        "versions": versions(),
    }
    provenance = provenance_of(run.config, run.sizes.global_batch, **more)
    return result_of(finding, run.finder_settings, provenance, run.config.lr, factor_groups(learner.parameters))


def held_out_loss(run: Run, learner: Learner) -> HeldOut | None:
    """What measures the loss of the same held-out samples each time; `None` where the curve is of the updates' own.

    They are drawn from the first held-out split by the seed; where state is carried they are its first, in order.

    Raises:
        ConfigError: on every rank, if there are none.
    """
    batches, size = run.finder_settings.held_out_batches, run.config.batch.size
    if batches is None:
        return None
    if not run.data.held_out:
        raise (
            ConfigError(
                f"finder.on: validation needs held-out samples, but {run.config.data.name!r} has neither a validation "
                "nor a test split; hold some out (data.validation=0.1), or use finder.on=train"
            )
            .found_in(run.config.source)
            .on_all_ranks()
        )
    dataset = getattr(run.data.splits, run.data.held_out[0])
    count = min(len(dataset), batches * size)
    chosen = np.arange(count)
    if not learner.carries_state:
        chosen = np.sort(permutation(len(dataset), run.config.seed, "finder/held-out", 0)[:count])
    samples = dataset.subset(chosen)

    def loss() -> float:
        run.guard.enter(f"{_ENTERED}'s held-out samples", "evaluation")
        found = evaluate(learner, samples, size, run.augmentation, {}, streams=run.config.evaluation.streams)
        assert found is not None  # only where it is asked to stop
        return found["loss"]

    return loss


def journal_of(run: Run, learner: Learner, folder: Path) -> Journal:
    """A journal that saves as often as `checkpoint.every` says, and after each sweep."""
    every = run.config.checkpoint.every
    by_clock = every.seconds if isinstance(every, ClockTime) else None
    by_count = None if every is None or isinstance(every, ClockTime) else max(1, run.sizes.iterations(every))
    return Journal(learner, folder, _facts(run), every=by_count, every_s=by_clock)


def earlier_result(run: Run, path: Path) -> FinderResult:
    """A result that was found before, if it is of this configuration; a collective.

    Raises:
        ConfigError: on every rank, if it cannot be read.
        CheckpointError: on every rank, if it was found for something else.
    """

    def read() -> dict[str, Any]:
        result = read_result(path)
        own = provenance_of(run.config, run.sizes.global_batch) | {"settings": asdict(run.finder_settings)}
        now, then = (dict(flat(plain(one, "own"))) for one in (own, {**result.provenance, "settings": result.settings}))
        differing = [key for key, value in now.items() if key != "config" and then.get(key) != value]
        if differing:
            said = listed([f"{key}: {brief(then.get(key))} -> {brief(now[key])}" for key in differing])
            raise CheckpointError(
                f"{path}: was found for something else (saved -> now):{said}\nmove it aside with --overwrite, or "
                "choose another --output"
            )
        return result.to_json()

    return FinderResult.read(Fields(run.world.on_root("finder.result", read)))


def _facts(run: Run) -> dict[str, Any]:
    """Everything in the configuration that a sweep's bits depend on, by key."""
    plain = run.config.plain()
    kept = {key: plain[key] for key in ("seed", "threads_per_rank", "network", "optimizer", "init", "batch", "data")}
    kept["data"] = {key: value for key, value in plain["data"].items() if key not in _FREE}
    kept["lr"] = {"momentum_correction": plain["lr"]["momentum_correction"]}
    kept["finder"] = asdict(run.finder_settings)
    return {**dict(flat(kept)), "training data": run.data.fingerprint}


def with_found_base(run: Run, result: FinderResult, report: str) -> tuple[Run, list[str]]:
    """The run whose plan, in units of the base until now, is definite.

    Args:
        run: with `lr.base: auto`.
        result: of the finder.
        report: where the user can read about it.

    Returns:
        The run, and what the user should know of the base, a sentence each.

    Raises:
        NoUsableLRError: on every rank, if the finder refused.
    """
    world = run.world
    config, remarks = agreed(world, run.config, "base", lambda: take_result(run.config, result, report))
    plan = agreed(world, config, "plan", lambda: amended_plan(config, run.sizes, run.initial_state.amendments))
    compare_schedules(world, plan, config.source)
    return replace(run, config=config, plan=plan), remarks
