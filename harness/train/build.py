"""From a run to its learner: built, compared over ranks, and in the state that the run starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.config.averages import EMAConfig
from harness.data import Batch, is_soft
from harness.errors import CheckpointError, ConfigError, listed
from harness.gluon import Averaging, Learner, LearnerState, Placement, UpdateOptions
from harness.gluon.state import refuse_not_finite
from harness.guard import compare_ranks
from harness.model import Model, build_model, try_metrics
from harness.train.monitors import metric_of
from harness.train.prepare import agreed
from harness.train.resume import ResumePoint
from harness.train.run import Run
from harness.train.samples import first_samples
from harness.versions import versions


def build_learner(
    run: Run,
    policy: str | None = None,
    prepare: Callable[[Any], object] | None = None,
    *,
    has_state: bool = True,
) -> Learner:
    """The learner of a run; metrics are tried at once, so that none fails hours later.

    Args:
        run: what to train.
        policy: how much of `init.from` has to fit (`Learner.load_weights`), instead of what `init.match` says.
        prepare: is given the network before it is tried and compiled.
        has_state: whether it gets the state that the run starts from; other ranks have one for a process that joins.

    Raises:
        ConfigError: for names and parameters that do not exist or do not fit the data.
        CheckpointError: if `init.from`, or the checkpoint to resume from, does not fit the network.
        DisagreementError: if the ranks differ in what has to be the same.
    """
    world, splits = run.world, run.data.splits
    samples = first_samples(splits.train, run.augmentation, 2)
    # collectives only between these steps, never inside one: a rank that fails alone must not leave others waiting
    parts = world.agreed("network", lambda: build_model(run.config, world.local_rank, samples, splits.num_classes))
    if prepare is not None:
        prepare(parts.net)
    learner = _learner_of(run, parts, Batch(0, *samples))
    compare_learners(run, learner, run.initial_state.iteration)

    # Rank 0 has the state that the run starts from: of a checkpoint, of a file of weights, or the initializer's.
    init, point = run.config.init, run.resume_point
    if not has_state:
        learner.broadcast_weights(compared=True)
    elif point is not None:
        world.on_root("resume", lambda: _restore(run, learner, point))
        learner.broadcast_state(compared=True)
    else:
        if init.from_ is not None:
            _initialise(run, learner, init.from_, policy or init.match)
        learner.broadcast_weights(compared=True)

    evaluated = samples
    if run.data.held_out and is_soft(samples[1]):  # whose labels may be classes, which metrics look at
        evaluated = first_samples(getattr(splits, run.data.held_out[0]), run.augmentation, 2)
    prediction, _ = learner.predict(*evaluated)
    agreed(world, run.config, "metrics", lambda: _try_metrics(run, prediction, evaluated[1]))
    return learner


def _try_metrics(run: Run, prediction: Any, label: Any) -> None:
    """Refuse metrics that do not fit, and a value that decides something and that none of them reports."""
    reported = try_metrics(run.metrics, prediction, label)
    for key, monitor in run.config.monitors.items():
        names = () if monitor == "loss" else reported[metric_of(monitor, run.metrics)]
        if names and monitor not in names:
            raise ConfigError(f"{key}: {monitor!r} is not reported; choose one of {', '.join(names)}")


def _learner_of(run: Run, parts: Model, sample: Batch) -> Learner:
    config = run.config
    placement = Placement(
        parts.contexts,
        config.kvstore or ("local" if parts.contexts[0].device_type == "cpu" else "device"),
        config.update_on_kvstore,
    )
    options = UpdateOptions(
        seed=config.seed,
        hybridize=config.network.hybridize,
        momentum_correction=config.momentum_correction,
        clip_norm=config.optimizer.clip_norm,
        skip_nonfinite=config.guard.divergence.policy == "skip",
        frozen=parts.frozen,
        compression=config.compression,
        average=_averaging(run),
    )
    return Learner(
        parts.net,
        parts.loss,
        parts.optimizer,
        run.world,
        shards=run.sizes.shards,
        sample=sample,
        placement=placement,
        options=options,
        forward=parts.forward,
        state=parts.state,
    )


def _averaging(run: Run) -> Averaging | None:
    """When and how weights are averaged, in iterations.

    Raises:
        ConfigError: for an average that would not begin before the end of the run.
    """
    if run.config.average is None:
        return None
    key, section = run.config.average
    every, after = max(1, run.sizes.iterations(section.every)), run.sizes.iterations(section.after)
    first, total = (after // every + 1) * every, run.sizes.num_iterations
    if first > total:
        raise (
            ConfigError(
                f"{key}: has no effect: by every ({section.every}) and after ({section.after}) it would begin with "
                f"iteration {first}, and the run has {total}; lower them, or remove {key}"
            )
            .found_in(run.config.source)
            .on_all_ranks()
        )
    decay, warmup = None, {}
    if isinstance(section, EMAConfig):
        decay = section.decay
        warmup = {} if section.warmup is None else {"gamma": section.warmup.gamma, "power": section.warmup.power}
    return Averaging(decay, every, after, statistics=section.statistics, **warmup)


def compare_learners(run: Run, learner: Learner, after: int) -> None:
    """Compare the ranks before their first update: what differs now would be a wrong result later.

    Args:
        run: what is trained.
        learner: of the run.
        after: the iteration that they begin after.

    Raises:
        DisagreementError: on every rank, naming what differs.
    """
    sizes, plan = run.sizes, run.plan
    facts = {
        "parameters": learner.describe_parameters(),
        "sizes": sizes.to_json(),
        "plan": {
            "learning rates": {str(t): plan.lr(t) for t in (1, (1 + sizes.num_iterations) // 2)},
            "fingerprint": run.plan_fingerprint,
        },
        "training data": run.data.fingerprint,
        "versions": versions(),
        "begins after iteration": after,
    }
    compare_ranks(run.world, facts, run.config, run.own_shards)


def _initialise(run: Run, learner: Learner, weights: str, policy: str) -> None:
    """Load the weights of `init.from` on rank 0, in place of the initializer's."""

    def load() -> list[Any]:
        try:
            matched = learner.load_weights(weights, policy)
        except CheckpointError as error:
            error.found_in(run.config.source)
            raise
        # nothing is to be told of weights that fit as they are
        is_plain = matched.fits and all(name == theirs for name, theirs in matched.taken.items())
        return [{"from": weights, **matched.to_json()}, [] if is_plain else matched.table(weights)]

    learner.began_with, lines = run.world.on_root("init.from", load)
    learner.remarks += lines


def _restore(run: Run, learner: Learner, resume_point: ResumePoint) -> None:
    """Put the checkpoint's arrays into rank 0's learner; it is read once more, and may have been damaged since.

    Raises:
        CheckpointError: if they do not fit, or if the user has to choose a plan first; both are told at once.
    """
    state = LearnerState.load(Path(resume_point.path))
    refuse_not_finite(state, resume_point.path)
    problems = learner.mismatches(state)
    if problems:
        raise CheckpointError(
            f"{run.config.source}: {resume_point.path} does not fit this network and optimizer:"
            + listed(problems)
            + (f"\n{run.undecided}" if run.undecided else "")
        )
    if run.undecided is not None:
        raise CheckpointError(run.undecided)
    learner.restore(state)
