"""A run before its first update: configuration, data, plan and weights, settled on every rank alike."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.comm import World
from harness.config import RunConfig
from harness.data import BatchStream, Order, Splits
from harness.errors import CheckpointError, ConfigError, DataError, listed
from harness.finder import (
    FinderResult,
    find_lr,
    provenance_of,
    read_result,
    result_of,
    settings_of,
    take_result,
    with_base,
)
from harness.folder import RunFolder
from harness.gluon import Learner, Requests, State, evaluate, shards_of_rank
from harness.gluon.state import refuse_not_finite
from harness.guard import Guard, Unguarded, compare_ranks, compare_schedules
from harness.model import build_metrics, try_metrics
from harness.model.metrics import Metric
from harness.plan import Amendment, LRPlan, Rewind, Sizes, amended_plan, count_workers, resolve_shards, with_amendment
from harness.train.build import build_learner, load_initial_weights
from harness.train.conflicts import refuse_other_data
from harness.train.resume import ResolvedConfig, ResumePoint, StartOptions, agree_on_resume_point, resolve_plan, settle
from harness.train.samples import build_augmentation, first_samples, load_splits, probe_items, seed_items
from harness.versions import versions

T = TypeVar("T")


class Run:
    """A configuration that has met its data, its workers, and the set it goes on from.

    Attributes:
        world: the ranks.
        config: resolved, with shards and threads as numbers.
        folder: of the run.
        start: how it begins.
        guard: watches over this rank.
        origin: the set it goes on from; `None` for a new run.
        amendments: what was changed in its plan on the way.
        num_skipped: updates that were left out because they were not finite.
        began_with: which weights it began with; `None` for the initializer's.
        sizes: samples, shards, iterations.
        plan: learning rate and momentum of every iteration.
        plan_fingerprint: of that plan.
        splits: the data.
        data_fingerprint: of the training data.
        items_digest: of the probed training items; `None` for arrays.
        order: which samples each iteration sees.
        augmentation: what is done to samples.
        metrics: by name.
        remarks: what the user should know of where its settings come from.
        finder_settings: of the learning-rate finder, if it is asked for.
        best_is: whether the `highest` or the `lowest` value of `checkpoint.best` is the best.
    """

    def __init__(
        self,
        config: RunConfig,
        world: World,
        *,
        threads: int,
        emulate_np: int | None = None,
        start: StartOptions | None = None,
        guard: Guard | None = None,
    ) -> None:
        """Read the data and build the plan, on every rank alike.

        Args:
            config: as read.
            world: the ranks.
            threads: threads a rank computes with.
            emulate_np: how many ranks this one process plays.
            start: whether to go on from a set; by default it begins anew.
            guard: watches over this rank; by default nobody does.

        Raises:
            HarnessError: of the kind that failed, on every rank, when it failed on any.
        """
        self.world = world
        self.config = config
        self.start = start or StartOptions()
        self.guard = guard or Unguarded()
        self.folder = RunFolder(Path(config.output) / config.run_name)
        self.remarks: list[str] = []
        self.num_skipped = 0
        self.began_with: dict[str, Any] | None = None
        self.amendments: Sequence[Amendment] = ()
        try:
            self._prepare(threads, emulate_np)
        except BaseException:
            self.folder.close()  # whoever catches the error may try again
            raise

    def _prepare(self, threads: int, emulate_np: int | None) -> None:
        config, world = self.config, self.world
        self.origin = agree_on_resume_point(world, self.folder, self.start)
        self._read_base()
        settled = self._settle(emulate_np or count_workers(config, world.size), threads)
        self.finder_settings = self._agreed("finder", lambda: settings_of(self.config, middle=self._begins_trained))
        self.splits: Splits = self._agreed("data", lambda: load_splits(self.config))
        found = self._agreed("items", lambda: probe_items(self.splits))
        self.splits = seed_items(world, self.splits, found, self.config.seed)
        self.data_fingerprint = self.splits.fingerprint()
        self.items_digest = found["train"].digest if "train" in found else None
        self.sizes, self.plan, self._conflict = self._agree_on_plan(settled)
        shards, size = self.sizes.shards, self.sizes.batch_size
        self.order = Order(self.sizes.num_samples, shards, size, self.config.seed, self.config.train.last_batch)
        self.augmentation = self._agreed("augmentation", lambda: build_augmentation(self.config, self.splits))
        self.metrics = self._agreed("metrics", self._build_metrics)
        self.best_is = self._agreed("best", self._direction)
        self.plan_fingerprint = self.plan.fingerprint()

    def stream(self) -> BatchStream:
        """This rank's training batches, a function of the iteration; to be closed."""
        return BatchStream(self.splits.train, self.order, self.own_shards, self.augmentation, self.config.seed)

    def finder_stream(self, repeat: int) -> BatchStream:
        """The batches of one sweep: another order and augmentation than any that training sees."""
        name, sizes = f"finder/{repeat}", self.sizes
        order = Order(sizes.num_samples, sizes.shards, sizes.batch_size, self.config.seed, stream=name)
        seed = zlib.crc32(f"{name}/{self.config.seed}".encode()) >> 1
        return BatchStream(self.splits.train, order, self.own_shards, self.augmentation, seed)

    def find(self, learner: Learner) -> FinderResult:
        """Run the learning-rate finder; the learner is left as it was."""

        def ask() -> Requests:
            return Requests(stop=self.guard.tick("the learning-rate finder"))

        self.guard.tick("the learning-rate finder", "first")
        finding = find_lr(learner, self.finder_settings, self.finder_stream, ask)
        origin = None if self.origin is None else self.origin.path
        more = {
            "world": {"kind": self.world.kind, "size": self.world.size},
            "after_iteration": 0 if self.origin is None else self.origin.iteration,
            "checkpoint": origin,
            "versions": versions(),
        }
        provenance = provenance_of(self.config, self.sizes.global_batch, **more)
        return result_of(finding, self.finder_settings, provenance)

    def take_base(self, result: FinderResult, origin: str) -> list[str]:
        """Make a plan in units of the base definite with what was found.

        Raises:
            NoUsableLRError: on every rank, if the finder refused.
        """
        self.config, said = self._agreed("base", lambda: take_result(self.config, result, origin))
        self.sizes, self.plan, self._conflict = self._agree_on_plan(None)
        self.plan_fingerprint = self.plan.fingerprint()
        return said

    @property
    def own_shards(self) -> list[int]:
        """The shards that this rank processes."""
        return shards_of_rank(self.sizes.shards, self.world, self.config.num_devices)

    def learner(self, policy: str | None = None) -> Learner:
        """The learner, in the state it goes on from; metrics are tried at once, so that none fails hours later.

        Args:
            policy: how much of `init.from` has to fit, instead of what `init.match` says.
        """
        samples = first_samples(self.splits.train, self.augmentation, 2)
        learner = build_learner(
            self.config,
            self.world,
            shards=self.sizes.shards,
            samples=samples,
            classes=self.splits.num_classes,
        )
        self._preflight(learner.describe_parameters(), self.own_shards)
        init = self.config.init
        if self.origin is None and init.from_ is not None:
            load_initial_weights(learner, init.from_, policy or init.match, self.config.source)
        learner.broadcast_weights()
        self.remarks += learner.remarks
        self.began_with = learner.began_with if self.origin is None else self.origin.manifest.init
        prediction, _ = learner.predict(*samples)
        self._agreed("metrics", lambda: try_metrics(self.metrics, prediction, samples[1]))
        if self.origin is not None:
            origin = self.origin
            self.world.on_root("resume", lambda: self._restore(learner, origin))
            learner.broadcast_state()
        return learner

    def evaluate(self, learner: Learner, split: str) -> dict[str, float] | None:
        """Mean loss and metrics of a split by name; `None` on every rank if any was told to stop."""
        dataset = getattr(self.splits, split)

        def stop() -> bool:
            return self.guard.tick(f"evaluation on {split}", "evaluation")

        return evaluate(learner, dataset, self.config.batch.size, self.augmentation, self.metrics, stop)

    def cut(self, iteration: int, factor: float, diverged_at: int) -> None:
        """Multiply every learning rate after an iteration; sets record it as an amendment of the plan."""
        self.amendments = with_amendment(self.amendments, Rewind(iteration, factor, diverged_at))
        self.plan = amended_plan(self.config, self.sizes, self.amendments)
        self.plan_fingerprint = self.plan.fingerprint()

    @property
    def evaluation_is_due(self) -> bool:
        """Whether the run that this one goes on from was stopped before its last evaluation."""
        return self.origin is not None and self.origin.manifest.state.evaluation_due

    @property
    def held_out(self) -> list[str]:
        """The splits that there are to evaluate on; the first is the one looked at while training."""
        return [split for split in ("validation", "test") if getattr(self.splits, split) is not None]

    @property
    def _begins_trained(self) -> bool:
        return self.origin is not None or self.config.init.from_ is not None

    def _read_base(self) -> None:
        """Replace the path of a finder's result by its number; rank 0 reads it."""
        config, base = self.config, self.config.lr.base
        if not isinstance(base, str) or base == "auto":
            return

        def read() -> list[Any]:
            taken, said = take_result(config, read_result(Path(base)), base)
            return [taken.lr.base, taken.lr.reference_batch, said]

        number, batch, said = self.world.on_root("base", lambda: self._with_source(read))
        self.config = with_base(config, number, batch)
        self.remarks += said

    def _settle(self, workers: int, threads: int) -> ResolvedConfig | None:
        """Make the configuration definite: by itself in a new run, by the set in one that goes on."""
        config, origin = self.config, self.origin
        if origin is None:
            shards = self._agreed("shards", lambda: resolve_shards(config, workers))
            self.config = config.resolved(shards=shards, threads=threads)
            return None
        choice = self.start.on_conflict
        settled = self._agreed(
            "settled", lambda: settle(config, origin, workers=workers, threads=threads, on_conflict=choice)
        )
        self.config = settled.config
        self.amendments = settled.amendments
        return settled

    def _preflight(self, parameters: list[str], own_shards: Sequence[int]) -> None:
        sizes, plan = self.sizes, self.plan
        facts = {
            "parameters": parameters,
            "sizes": dict(vars(sizes)),
            "plan": {
                "learning rates": {str(t): plan.lr(t) for t in (1, (1 + sizes.num_iterations) // 2)},
                "fingerprint": self.plan_fingerprint,
            },
            "training data": self.data_fingerprint,
            "versions": versions(),
            "begins after iteration": 0 if self.origin is None else self.origin.iteration,
        }
        compare_ranks(self.world, facts, self.config, own_shards)

    def _restore(self, learner: Learner, origin: ResumePoint) -> None:
        state = State.load(Path(origin.path))
        refuse_not_finite(state, origin.path)
        problems = learner.mismatches(state)
        if problems:
            raise CheckpointError(
                f"{self.config.source}: {origin.path} does not fit this network and optimizer:"
                + listed(problems)
                + (f"\n{self._conflict}" if self._conflict else "")
            )
        if self._conflict is not None:
            raise CheckpointError(self._conflict)
        learner.restore(state)

    def _build_metrics(self) -> dict[str, Metric]:
        network = self.config.network
        axis = network.loss_params.get("axis") if network.loss == "softmax_cross_entropy" else None
        return build_metrics(self.config.evaluation.metrics, axis if isinstance(axis, int) else None)

    def _direction(self) -> str | None:
        best, said = self.config.checkpoint.best, self.config.checkpoint.best_is
        if best is None:
            return None
        known = "lowest" if best == "loss" else self.metrics[best].best
        if known is None and said is None:
            raise ConfigError(
                f"checkpoint.best: {best!r} is your own; say with best_is whether highest or lowest is best"
            )
        if None not in (known, said) and known != said:
            raise ConfigError(
                f"checkpoint.best_is: {said} is wrong for {best!r}, of which the {known} is best; remove it"
            )
        if not self.held_out:
            raise ConfigError("checkpoint.best: the data have neither a validation nor a test split; hold some out")
        return known or said

    def _agreed(self, name: str, work: Callable[[], T]) -> T:
        """Do `work` on all ranks or fail on all, with the configuration's file in the message."""
        return self.world.agreed(name, lambda: self._with_source(work))

    def _with_source(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (ConfigError, DataError) as error:
            error.found_in(self.config.source)
            raise

    def _agree_on_plan(self, settled: ResolvedConfig | None) -> tuple[Sizes, LRPlan, str | None]:
        sizes, plan, conflict = self._agreed("plan", lambda: self._build_plan(settled))
        compare_schedules(self.world, plan, self.config.source)
        return sizes, plan, conflict

    def _build_plan(self, settled: ResolvedConfig | None) -> tuple[Sizes, LRPlan, str | None]:
        config = self.config
        if self.origin is not None:
            own = len(self.splits.train), self.data_fingerprint, self.items_digest
            refuse_other_data(self.origin.manifest, self.origin.path, *own, config.source)
        sizes = Sizes.of(
            config.train,
            num_samples=len(self.splits.train),
            shards=config.batch.shards or 1,
            batch_size=config.batch.size,
            source=config.source,
        )
        if settled is None or self.origin is None:
            return sizes, amended_plan(config, sizes, self.amendments), None
        return sizes, *resolve_plan(settled, self.origin, sizes)
