"""What is fixed about a run before its first update; made by `prepare_run`, and changed by nobody.

What changes with every update is `RunState`; a plan that is changed on the way belongs to a new `Run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property

from harness.comm import World, shards_of_rank
from harness.config import RunConfig
from harness.data import Augmentation, BatchStream, EvaluationBatch, Order, sweep_order
from harness.finder import FinderSettings
from harness.folder import RunFolder
from harness.gluon import Learner, Timing, evaluate
from harness.guard import Guard, Unguarded
from harness.hooks import Hooks
from harness.model.metrics import Metric
from harness.plan import LRPlan, Sizes, amended_plan
from harness.train.resume import ResumePoint, StartOptions
from harness.train.samples import RunData
from harness.train.state import RunState
from harness.train.workers import prefetch_of

ALONE_AFTER_S = 1.0
ALONE_AFTER_LAUNCHER_S = 5.0  # by so much ranks may differ in when the launcher last answered them


@dataclass(frozen=True)
class Run:
    """A configuration that has met its data, its workers, and the checkpoint that it resumes from.

    Attributes:
        config: resolved, with shards and threads as numbers.
        world: the ranks.
        guard: watches over this rank.
        folder: of the run.
        start: how it starts, as the command line says.
        resume_point: the checkpoint that it resumes from; `None` for a new run.
        initial_state: before the first update of this attempt.
        undecided: what the user has to choose between before it can be resumed; `None` as a rule.
        data: splits and their fingerprints.
        augmentation: what is done to samples.
        sizes: samples, shards, iterations.
        order: which samples each iteration sees.
        plan: learning rate and momentum of every iteration.
        metrics: by name.
        directions: for each of `config.monitors`, whether its `highest` or its `lowest` value is the best.
        finder_settings: of the learning-rate finder, if it is used.
        remarks: what the user should know of where its settings come from.
        hooks: are told what happens in it.
        until: the last update of this attempt, where that is not the run's last.
        once_more: what to do after it was stopped on request.
        timing: is told which part of an iteration this rank is in.
    """

    config: RunConfig
    world: World
    guard: Guard | Unguarded
    folder: RunFolder
    start: StartOptions
    resume_point: ResumePoint | None
    initial_state: RunState
    undecided: str | None
    data: RunData
    augmentation: Augmentation
    sizes: Sizes
    order: Order
    plan: LRPlan
    metrics: Mapping[str, Metric]
    directions: Mapping[str, str]
    finder_settings: FinderSettings
    remarks: tuple[str, ...]
    hooks: Hooks = field(default_factory=Hooks)
    until: int | None = None
    once_more: str = "start it again with --resume auto"
    timing: Timing = field(default_factory=Timing)

    @property
    def last(self) -> int:
        """The last update that this attempt makes."""
        return self.sizes.num_iterations if self.until is None else self.until

    @cached_property
    def plan_fingerprint(self) -> str:
        """Of the plan; equal plans have equal ones."""
        return self.plan.fingerprint()

    def amended(self, state: RunState) -> Run:
        """The run by the plan that the amendments of a state make of its configuration."""
        return replace(self, plan=amended_plan(self.config, self.sizes, state.amendments))

    @property
    def own_shards(self) -> list[int]:
        """The shards that this rank processes."""
        return shards_of_rank(self.sizes.shards, self.world, self.config.num_devices)

    def stream(self) -> BatchStream:
        """This rank's training batches, a function of the iteration; to be closed."""
        return self._stream(self.order, self.config.seed)

    def finder_stream(self, repeat: int) -> BatchStream:
        """The batches of one sweep: another order and augmentation than any that training sees."""
        return self._stream(*sweep_order(self.order, repeat))

    def evaluate(
        self,
        learner: Learner,
        split: str,
        watch: Callable[[EvaluationBatch], None] | None = None,
        *,
        averaged: bool = False,
    ) -> dict[str, float] | None:
        """Mean loss and metrics of a split by name; `None` on every rank if any was told to stop.

        Args:
            learner: to evaluate.
            split: its name.
            watch: is called with every batch of this rank.
            averaged: whether to evaluate the average of the weights, which there must be by now, and not what
                `ema.evaluate` or `swa.evaluate` says.
        """
        dataset = getattr(self.data.splits, split)

        def stop() -> bool:
            self.guard.enter(f"evaluation on {split}", "evaluation")
            return self.is_told_to_end

        instead = self._evaluates_average("instead") and learner.has_average
        batch, streams = self.config.batch.size, self.config.evaluation.streams
        with learner.averaged() if averaged or instead else nullcontext():
            return evaluate(learner, dataset, batch, self.augmentation, self.metrics, stop, streams, watch)

    @property
    def is_told_to_end(self) -> bool:
        """Whether this rank was told to end, by a signal or, where workers may come and go, by the launcher.

        A launcher that ends the whole job signals all ranks at nearly the same time, and one that is lost is lost to
        all. Where one can leave alone, it waits a moment, to see whether it is alone.
        """
        membership = self.world.membership
        if membership is None:
            return self.guard.stop_requested
        membership.leaves |= membership.is_removed or self.guard.stop_requested_for_s > ALONE_AFTER_S
        membership.leaves |= membership.is_launcher_gone(ALONE_AFTER_LAUNCHER_S)
        return membership.leaves

    @property
    def evaluates_average_beside(self) -> bool:
        """Whether the average of the weights is evaluated besides the weights."""
        return self._evaluates_average("beside")

    def recompute_statistics(self, learner: Learner, stream: BatchStream) -> bool:
        """Give the average of the weights running statistics of its own, if it is to have them.

        Args:
            learner: whose average it is.
            stream: of this run; its batches are read from the first on.

        Returns:
            Whether that was done; on no rank if any was told to stop.
        """
        over = None if self.config.average is None else self.config.average[1].over
        count = self.order.iterations_per_epoch if over is None else max(1, self.sizes.iterations(over))

        def stop() -> bool:
            self.guard.enter("statistics of the averaged weights", "evaluation")
            return self.guard.stop_requested

        return learner.recompute_statistics(stream, count, stop)

    def _evaluates_average(self, how: str) -> bool:
        return self.config.average is not None and self.config.average[1].evaluate == how

    def close(self) -> None:
        """End what reads samples; calling this again does nothing."""
        self.data.close()

    def _stream(self, order: Order, seed: int) -> BatchStream:
        return BatchStream(
            self.data.splits.train,
            order,
            self.own_shards,
            self.augmentation,
            seed,
            prefetch=prefetch_of(self.config.data),
        )
