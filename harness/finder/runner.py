"""Runs a sweep with a learner and restores its state: parameters, running statistics, optimizer state, counters.

Every rank does the same updates with the same learning rates on its shards of the same global batches; the loss is the
mean over all samples and travels in the control values, so all ranks stop on the same iteration.

What momentum correction means here: with it (the default for SGD, NAG and LARS) the buffer holds gradients alone, and
at every step of the sweep the network moves as it would have under a constant learning rate of that size. Without it
the buffer would hold gradients times the *smaller* learning rates of the steps before: with a momentum of .9 and a
multiplier of 1.1 the step would be that of a rate 1.8 times smaller, and the sweep would promise that much too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import DisagreementError, DivergedError, StoppedOnRequestError
from harness.finder.suggestion import DEFAULT_RULE, Point, Suggestion, suggest
from harness.finder.sweep import Stop, StopRule, Sweep

if TYPE_CHECKING:
    from harness.data import GlobalBatch
    from harness.gluon import Learner, LearnerState, Requests

Stream = Callable[[int], "GlobalBatch"]
Streams = Callable[[int], AbstractContextManager[Stream]]
Ask = Callable[[], "Requests | None"]


@dataclass(frozen=True)
class FinderSettings:
    """Everything that decides a finding besides the learner.

    Attributes:
        sweep: the learning rates.
        stop_rule: when the loss has become unstable.
        probes: iterations at the first learning rate before the sweep, from which the limit is taken.
        repeats: sweeps, each over another shuffle.
        rule: the rule that the suggestion follows.
    """

    sweep: Sweep = field(default_factory=Sweep)
    stop_rule: StopRule = field(default_factory=StopRule)
    probes: int = 0
    repeats: int = 1
    rule: str = DEFAULT_RULE


@dataclass(frozen=True)
class SweepResult:
    """What one sweep found.

    Attributes:
        points: learning rate and loss of each iteration; a loss that was not finite is NaN.
        stop: why it ended.
        limit: what the running mean of the loss must not exceed.
        probes: the losses before it.
    """

    points: list[Point]
    stop: Stop
    limit: float
    probes: list[float]


@dataclass(frozen=True)
class Finding:
    """What a finder returns.

    Attributes:
        sweeps: one or more.
        suggestion: the learning rate, or why there is none.
        digest: of the learner's whole state, the same before and after on every rank.
        num_ranks: how many ranks compared it.
    """

    sweeps: list[SweepResult]
    suggestion: Suggestion
    digest: str
    num_ranks: int


def find_lr(learner: Learner, settings: FinderSettings, streams: Streams, ask: Ask = lambda: None) -> Finding:
    """Sweep, restore the state, compare digests, suggest; on every rank at once.

    Args:
        learner: in any state; its state is restored, also after an exception.
        settings: of the sweep.
        streams: `streams(k)` opens the batches of sweep `k`, from 0, as a context; they must not be those of training.
        ask: returns what this rank asks of all ranks with the next update.

    Raises:
        StoppedOnRequestError: on every rank, if any was asked to stop; the state is restored.
        DisagreementError: on every rank, if the state of some rank is not what it was.
    """
    learner.ensure_shared()
    learner.gather_state()
    before = _digests(learner, "before")
    if len(set(before)) > 1:
        different = [rank for rank, digest in enumerate(before) if digest != before[0]]
        raise DisagreementError(
            f"finder: the states differ before the sweep: rank 0 has {before[0][:12]}, "
            + ", ".join(f"rank {rank} {before[rank][:12]}" for rank in different)
        ).on_all_ranks()
    sweeps = []
    with _restored(learner) as state:
        for repeat in range(settings.repeats):
            with streams(repeat) as stream:
                sweeps.append(_sweep(learner, stream, settings, ask))
            learner.restore(state)
    after = _digests(learner, "after")
    changed = [rank for rank, digest in enumerate(after) if digest != before[0]]
    if changed:
        raise DisagreementError(
            f"finder: the state was not restored on rank {', '.join(map(str, changed))}: {before[0][:12]} before, "
            + ", ".join(after[rank][:12] for rank in changed)
            + " after; parameters that the network makes or changes by itself cannot be restored"
        ).on_all_ranks()
    suggestion = suggest([(sweep.points, sweep.stop) for sweep in sweeps], settings.rule)
    return Finding(sweeps, suggestion, before[0], len(after))


@contextmanager
def _restored(learner: Learner) -> Iterator[LearnerState]:
    """Restore the state at the end, whatever happens: an exception, a KeyboardInterrupt. Yields that state."""
    state = learner.snapshot()
    try:
        yield state
    finally:
        learner.restore(state)


def _sweep(learner: Learner, stream: Stream, settings: FinderSettings, ask: Ask) -> SweepResult:
    """One sweep over its own batches; every rank decides by the same losses, so all end at the same iteration."""
    sweep, rule = settings.sweep, settings.stop_rule
    probes: list[float] = []
    points: list[Point] = []
    limit, mean = math.nan, None
    for t in range(1, settings.probes + len(sweep) + 1):
        k = t - 1 - settings.probes
        lr = sweep.lr(max(k, 0))
        loss = _loss_of(learner, stream(t), lr, ask())
        if loss is None:
            return SweepResult([*points, Point(lr, math.nan)], Stop.NOT_FINITE, limit, probes)
        if math.isnan(loss):  # of a batch without weight, which has changed nothing
            continue
        if k < 0:
            probes.append(loss)
            continue
        if not points:
            limit = rule.limit(loss, probes)
        points.append(Point(lr, loss))
        mean = rule.mean(mean, loss)
        if mean > limit and len(points) >= rule.min_iter:
            return SweepResult(points, Stop.UNSTABLE, limit, probes)
    return SweepResult(points, sweep.bound, limit, probes)


def _loss_of(learner: Learner, batch: GlobalBatch, lr: float, ask: Requests | None) -> float | None:
    """The loss of an update; NaN without weight, `None` if anything in it was not finite; the same on every rank."""
    skipped, weightless = learner.skipped, learner.weightless
    try:
        learner.update(batch, lr, None, ask)
        learner.check_pending()
    except DivergedError:
        return None
    if learner.pop_requests().stop:
        raise StoppedOnRequestError(
            f"stopped on request after {batch.t} iterations of the learning-rate finder; the state is restored, "
            "start it again"
        ).on_all_ranks()
    if learner.weightless > weightless:
        return math.nan
    return learner.loss if learner.skipped == skipped else None


def _digests(learner: Learner, when: str) -> list[str]:
    return learner.world.allgather_object(learner.digest(), f"finder.{when}")
