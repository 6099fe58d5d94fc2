"""A whole run, from top to bottom: data, sizes, plan, learner, iterations, evaluation, result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness.comm import World
from harness.config import RunConfig
from harness.data import Augmentation, BatchStream, Order, Splits, load
from harness.errors import ConfigError, DataError, DisagreementError
from harness.gluon import Learner, build_learner, build_metrics, evaluate, shards_of_rank, try_metrics
from harness.plan import LRPlan, Sizes, resolve_shards
from harness.report import MetricsFile, Progress, claim_folder, write_plan

T = TypeVar("T")


class Run:
    """A configuration that has met its data and its workers: everything that is settled before the first update.

    Attributes:
        config: resolved, with shards and threads as numbers.
        sizes: samples, shards, iterations.
        plan: learning rate and momentum of every iteration.
        splits: the data.
        order: which samples each iteration sees.
        augmentation: what is done to samples.
    """

    def __init__(self, config: RunConfig, world: World, *, threads: int, emulate_np: int | None = None) -> None:
        """Read the data and build the plan, on every rank alike.

        Args:
            config: as read.
            world: the ranks.
            threads: threads a rank computes with.
            emulate_np: how many ranks this one process plays.

        Raises:
            HarnessError: of the kind that failed, on every rank, when it failed on any.
        """
        self.world = world
        self.config = config
        self.splits: Splits = self._agreed("data", lambda: _load(config))
        shards = self._agreed("shards", lambda: resolve_shards(config, emulate_np or world.size))
        self.config = config.resolved(shards=shards, threads=threads)
        self.sizes, self.plan = self._agreed("plan", self._build_plan)
        self.order = Order(self.sizes.num_samples, shards, self.sizes.batch_size, config.seed, config.train.last_batch)
        self.augmentation = self._agreed("augmentation", self._build_augmentation)
        self.metrics = self._agreed("metrics", lambda: build_metrics(config.evaluation.metrics))
        _must_be_equal(world, "config", self.config.fingerprint())
        _must_be_equal(world, "plan", self.plan.fingerprint())

    def stream(self) -> BatchStream:
        """This rank's training batches, a function of the iteration; to be closed."""
        own = shards_of_rank(self.sizes.shards, self.world)
        return BatchStream(self.splits.train, self.order, own, self.augmentation, self.config.seed)

    def learner(self, stream: BatchStream) -> Learner:
        """The learner, with its first weights; metrics are tried at once, so that none fails hours later."""
        data, label = self.splits.train.take(np.arange(min(2, self.sizes.num_samples)))
        samples = self.augmentation.evaluate(data, self.splits.train.full_scale), label.astype(np.float32)
        learner = build_learner(
            self.config,
            self.world,
            stream,
            shards=self.sizes.shards,
            samples=samples,
            classes=self.splits.num_classes,
        )
        prediction, _ = learner.predict(*samples)
        self._agreed("metrics", lambda: try_metrics(self.metrics, prediction, samples[1]))
        return learner

    def evaluate(self, learner: Learner, split: str) -> dict[str, float]:
        """Mean loss and metrics of a split by name."""
        dataset = getattr(self.splits, split)
        return evaluate(learner, dataset, self.config.batch.size, self.augmentation, self.metrics)

    @property
    def held_out(self) -> list[str]:
        """The splits that there are to evaluate on; the first is the one looked at while training."""
        return [split for split in ("validation", "test") if getattr(self.splits, split) is not None]

    def _build_augmentation(self) -> Augmentation:
        section = self.config.data.augment
        mean, std = _tuple(section.mean), _tuple(section.std)
        augmentation = Augmentation(pad_crop=section.pad_crop, flip=section.flip, mean=mean, std=std)
        augmentation.check(self.splits.sample_shape)
        return augmentation

    def _agreed(self, name: str, work: Callable[[], T]) -> T:
        """Do `work` on all ranks or fail on all, with the configuration's file in the message."""

        def named() -> T:
            try:
                return work()
            except (ConfigError, DataError) as error:
                source = self.config.source
                raise error if str(error).startswith(source) else type(error)(f"{source}: {error}") from error

        return self.world.agreed(name, named)

    def _build_plan(self) -> tuple[Sizes, LRPlan]:
        config = self.config
        if config.lr.base == "auto":
            raise ConfigError(
                f"{config.source}: lr.base: auto needs a learning-rate finder, which this version does not "
                "have; give a number"
            )
        sizes = Sizes.of(
            config.train,
            num_samples=len(self.splits.train),
            shards=config.batch.shards or 1,
            batch_size=config.batch.size,
            source=config.source,
        )
        return sizes, LRPlan(config.lr, sizes, config.source)


def train(run: Run, *, overwrite: bool = False) -> dict[str, float]:
    """Train from the first iteration to the last.

    Writes the run's folder (rank 0): `config.yaml`, `plan.csv`, `plan.png`, `metrics.jsonl`, `final.params`.

    Args:
        run: what to train.
        overwrite: move an existing folder of the same name aside.

    Returns:
        The last evaluation, as `split.metric`.

    Raises:
        HarnessError: on every rank, whatever rank it began on.
    """
    config, sizes, plan, world = run.config, run.sizes, run.plan, run.world
    folder = Path(config.output) / config.run_name
    every = max(1, sizes.iterations(config.log.every))
    evaluate_every = (
        max(1, sizes.iterations(config.evaluation.every)) if config.evaluation.every else sizes.num_iterations
    )

    with ExitStack() as stack:
        stream = stack.enter_context(run.stream())
        learner = run.learner(stream)
        world.on_root("folder", lambda: _open_folder(run, folder, overwrite))
        metrics = stack.enter_context(MetricsFile(folder / "metrics.jsonl")) if world.rank == 0 else None
        progress = stack.enter_context(Progress(sizes.num_iterations, world.rank))
        progress.say(_opening(run))
        clock = _Clock()
        results: dict[str, float] = {}

        for t in range(1, sizes.num_iterations + 1):
            lr, momentum = plan.lr(t), plan.momentum(t)
            loss = learner.iteration(t, lr, momentum)
            clock.count(run.order.global_count(t))
            last = t == sizes.num_iterations
            record = {"iteration": t, "epoch": sizes.epoch(t), "lr": lr, "momentum": _momentum(config, momentum)}

            if metrics is not None and (t % every == 0 or t == 1 or last):
                learner.finish()
                mean_loss, rate = float(loss.asscalar()), round(clock.rate(), 1)
                numbers = {"loss": mean_loss, "gradient_norm": learner.gradient_norm, "images_per_s": rate}
                metrics.write({"split": "train", **record, **numbers})
                progress.update(t, sizes.epoch(t), lr, mean_loss, rate)

            if t % evaluate_every == 0 or last:
                for split in run.held_out if last else run.held_out[:1]:
                    values = run.evaluate(learner, split)
                    results.update({f"{split}.{name}": value for name, value in values.items()})
                    progress.evaluated(t, split, values)
                    if metrics is not None:
                        metrics.write({"split": split, **record, **values})
                clock.restart()

        digest = learner.digest()
        _must_be_equal(world, "final state", digest)
        if world.rank == 0:
            learner.save_weights(str(folder / "final.params"))
        progress.say(f"{folder}: done after {sizes.num_iterations} iterations, digest {digest}")
    return results


def evaluate_only(run: Run) -> dict[str, float]:
    """Evaluate the weights in `init.from` on every held-out split; writes nothing."""
    if run.config.init.from_ is None:
        raise ConfigError("init.from: there are no weights to evaluate; give a file").on_all_ranks()
    if not run.held_out:
        name = run.config.data.name
        raise DataError(f"data.name: {name!r} has neither a validation nor a test split to evaluate on").on_all_ranks()
    with run.stream() as stream:
        learner = run.learner(stream)
    results: dict[str, float] = {}
    for split in run.held_out:
        values = run.evaluate(learner, split)
        results.update({f"{split}.{name}": value for name, value in values.items()})
        if run.world.rank == 0:
            print(f"{split}: " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()), flush=True)
    return results


class _Clock:
    """Images a second since the last time it was asked, without the time that evaluation takes."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._since_s = time.perf_counter()
        self._images = 0

    def count(self, images: int) -> None:
        self._images += images

    def rate(self) -> float:
        rate = self._images / max(time.perf_counter() - self._since_s, 1e-9)
        self.restart()
        return rate


def _load(config: RunConfig) -> Splits:
    data = config.data
    return load(
        data.name,
        root=data.root,
        download=data.download,
        validation=data.validation,
        params=data.params,
        seed=config.seed,
    )


def _open_folder(run: Run, folder: Path, overwrite: bool) -> None:
    claim_folder(folder, overwrite)
    write_plan(folder, run.config, run.plan)


def _opening(run: Run) -> str:
    sizes, world = run.sizes, run.world
    ranks = f"{world.size} rank{'s' if world.size > 1 else ''} ({world.kind})"
    threads = "thread" if run.config.threads_per_rank == 1 else "threads"
    return (
        f"{run.config.run_name}: {sizes.num_samples} samples, {sizes.num_iterations} iterations of {sizes.shards} x "
        f"{sizes.batch_size}, {ranks}, {run.config.threads_per_rank} {threads} a rank; learning rate "
        f"{run.plan.describe()}"
    )


def _momentum(config: RunConfig, scheduled: float | None) -> Any:
    return config.optimizer.params.get("momentum") if scheduled is None else scheduled


def _must_be_equal(world: World, what: str, value: str) -> None:
    everyone = world.allgather_object(value, f"equal.{what}")
    different = [rank for rank, other in enumerate(everyone) if other != everyone[0]]
    if different:
        listing: Mapping[int, str] = {rank: everyone[rank] for rank in (0, *different)}
        raise DisagreementError(
            f"the {what} differs between ranks: " + ", ".join(f"rank {r}: {v[:12]}" for r, v in listing.items())
        ).on_all_ranks()


def _tuple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)
