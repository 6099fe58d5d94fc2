"""A job while it is open: its ranks, data, plan and learner, settled in this order and on every rank alike."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from harness.comm import World
from harness.config import TrainConfig
from harness.data import Batch, BatchStream, Order, sweep_order
from harness.errors import ConfigError
from harness.gluon import Learner, Placement, UpdateOptions, shards_of_rank
from harness.guard import ConsistencyCheck
from harness.job.data import predict_few, probe, read, refuse_other_classes
from harness.job.given import Given
from harness.job.ranks import Ranks
from harness.job.settings import WHERE, JobSettings
from harness.model.given import classes_of, describe_loss, describe_optimizer, remarks_on_loss, settle_shapes
from harness.plan import LRPlan, Sizes, imbalance
from harness.train.samples import RunData, first_samples, grouped
from harness.versions import versions

_ADVICE = "start every rank with the same program, packages, arguments and data"


@dataclass(frozen=True)
class Session:
    """What an open job works with.

    Attributes:
        given: by the program.
        ranks: joined.
        data: the training samples.
        sizes: samples, shards, iterations.
        order: which samples each iteration sees.
        plan: learning rate and momentum of every iteration.
        stream: this rank's batches, a function of the iteration.
        learner: the network, its optimizer and its state.
        described: optimizer and loss, with the numbers that they were given, before the first update.
        check: compares the ranks' states.
        remarks: what the user should know, a sentence each.
    """

    given: Given
    ranks: Ranks
    data: RunData
    sizes: Sizes
    order: Order
    plan: LRPlan
    stream: BatchStream
    learner: Learner
    described: Mapping[str, Any]
    check: ConsistencyCheck
    remarks: list[str]

    @property
    def world(self) -> World:
        """The ranks."""
        return self.ranks.world

    def verify(self, t: int) -> None:
        """Make sure that the ranks agree after update `t`, and that its weights are finite; a collective."""
        self.check.verify(t, self.plan.lr(t), self.plan.momentum(t), t * self.sizes.global_batch)
        self.learner.check_weights(t)

    def finder_stream(self, sweep: int) -> BatchStream:
        """The batches of one sweep of the finder: another order than any that training sees."""
        order, seed = sweep_order(self.order, sweep)
        return BatchStream(self.data.splits.train, order, self.stream.shards, self.given.augmentation, seed)


def open_session(given: Given, stack: ExitStack) -> Session:
    """Join the ranks, read the data, and build plan and learner; what is opened is left to `stack` to close.

    Raises:
        HarnessError: on every rank, whatever rank it began on.
    """
    settings = given.settings
    ranks = stack.enter_context(Ranks(given.world, given.devices[0].device_type, settings.stall_after_s))
    world = ranks.world
    splits = read(world, "train", given.train, given.functions)
    samples = world.agreed("samples", lambda: first_samples(splits.train, given.augmentation, 2))
    world.agreed("shapes", lambda: settle_shapes(given.calls, given.devices, *samples))
    data = probe(world, "train", splits, settings.seed)  # which seeds generators that initialisers draw from
    workers = world.size * len(given.devices)
    shards = settings.shards or workers
    data = grouped(world, data, given.group_by, shards * settings.batch)
    sizes = world.agreed("sizes", lambda: _sizes(settings, data, shards))
    plan = world.agreed("plan", lambda: LRPlan(settings.lr, sizes, WHERE))
    order = Order(
        sizes.num_samples,
        sizes.shards,
        sizes.batch_size,
        settings.seed,
        settings.last_batch,
        are_streams=given.calls.first_state is not None,
        grouping=data.grouping,
    )

    def open_stream() -> BatchStream:
        own = shards_of_rank(sizes.shards, world, len(given.devices))
        return BatchStream(data.splits.train, order, own, given.augmentation, settings.seed)

    if sizes.shards < workers:
        raise ConfigError(
            f"{WHERE}: shards: {sizes.shards} shards are too few for {workers} workers; choose {workers} or more"
        ).on_all_ranks()
    stream = stack.enter_context(world.agreed("stream", open_stream))
    net = given.calls.net
    described = {
        "optimizer": describe_optimizer(given.optimizer, net),
        "loss": describe_loss(given.calls),
    }
    _compare(given, world, data, plan, described)
    learner = _build_learner(given, world, data, sizes.shards)
    learner.ensure_shared()
    prediction, _ = predict_few(world, "train", net, learner, first_samples(data.splits.train, given.augmentation, 2))
    classes = classes_of(given.calls, prediction)
    world.agreed("labels", lambda: refuse_other_classes("train", data.splits.train, classes))
    remarks = [*world.remarks, *learner.remarks, *plan.remarks(), *imbalance(sizes.shards, workers)]
    remarks += remarks_on_loss(given.calls.loss, net)
    check = ConsistencyCheck(world, learner)
    return Session(given, ranks, data, sizes, order, plan, stream, learner, described, check, remarks)


def _sizes(settings: JobSettings, data: RunData, shards: int) -> Sizes:
    train = TrainConfig(epochs=settings.epochs, iterations=settings.iterations, last_batch=settings.last_batch)
    return Sizes.of(
        train,
        num_samples=len(data.splits.train),
        shards=shards,
        batch_size=settings.batch,
        num_batches=data.num_batches,
        source=WHERE,
    )


def _build_learner(given: Given, world: World, data: RunData, shards: int) -> Learner:
    settings = given.settings
    kvstore = "local" if given.devices[0].device_type == "cpu" else "device"
    options = UpdateOptions(
        seed=settings.seed,
        momentum_correction=settings.lr.momentum_correction,
        clip_norm=settings.clip_norm,
        compression=settings.compression,
    )
    return Learner(
        given.calls.net,
        given.calls.loss,
        given.optimizer,
        world,
        shards=shards,
        sample=Batch(0, *first_samples(data.splits.train, given.augmentation, 2)),
        placement=Placement(tuple(given.devices), kvstore),
        options=options,
        forward=given.calls.forward,
        state=given.calls.first_state,
    )


def _compare(given: Given, world: World, data: RunData, plan: LRPlan, described: Mapping[str, Any]) -> None:
    """Make sure that all ranks were given the same."""
    settings = given.settings
    facts = {
        "sizes": plan.sizes.to_json(),
        "plan": plan.fingerprint(),
        "training data": data.fingerprint,
        "seed": settings.seed,
        "clip_norm": settings.clip_norm,
        "compression": settings.compression,
        "last_batch": settings.last_batch,
        "augmentation": repr(given.augmentation),
        "hooks": [name for name, _ in given.hooks],
        "hooks_fail": settings.hooks_fail,
        **described,
        "versions": versions(),
    }
    world.must_be_equal("preflight", facts, _ADVICE)
