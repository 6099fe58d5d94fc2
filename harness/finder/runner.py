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
from typing import TYPE_CHECKING, NamedTuple, Protocol

from harness.errors import DisagreementError, DivergedError, StoppedOnRequestError
from harness.finder.suggestion import DEFAULT_RULE, Point, Suggestion, suggest
from harness.finder.sweep import Stop, StopRule, Sweep

if TYPE_CHECKING:
    from harness.data import GlobalBatch
    from harness.gluon import Learner, LearnerState, Requests

Stream = Callable[[int], "GlobalBatch"]
Streams = Callable[[int], AbstractContextManager[Stream]]
Ask = Callable[[], "Requests | None"]
HeldOut = Callable[[], float]


@dataclass(frozen=True)
class FinderSettings:
    """Everything that decides a finding besides the learner.

    Attributes:
        sweep: the learning rates.
        stop_rule: when the loss has become unstable.
        probes: iterations at the first learning rate before the sweep, from which the limit is taken.
        repeats: sweeps, each over another shuffle.
        rule: the rule that the suggestion follows.
        held_out_batches: of how many batches of held-out samples the curve is; `None` for that of the updates' own.
    """

    sweep: Sweep = field(default_factory=Sweep)
    stop_rule: StopRule = field(default_factory=StopRule)
    probes: int = 0
    repeats: int = 1
    rule: str = DEFAULT_RULE
    held_out_batches: int | None = None


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


@dataclass
class UnderWay:
    """A sweep that has not ended.

    Attributes:
        done: its iterations so far, probes and batches without weight included.
        probes: the losses before the first point.
        points: as in `SweepResult`.
    """

    done: int = 0
    probes: list[float] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)


class Progress(NamedTuple):
    """How far a finder has come.

    Attributes:
        sweeps: those that have ended.
        under_way: the next one.
    """

    sweeps: list[SweepResult]
    under_way: UnderWay


class Keeper(Protocol):
    """What keeps progress so that a finder can resume: `harness.finder.journal.Journal`; all are collectives."""

    def resume(self, digest: str) -> Progress:
        """What was done before, from a state with this digest, with the learner in the state that it had then."""

    def is_due(self, done: int, requests: Requests) -> bool:
        """Whether to save after so many iterations of a sweep, the same on every rank."""

    def save(self, progress: Progress) -> None:
        """Save the learner's state, and what is known by now."""


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


def find_lr(
    learner: Learner,
    settings: FinderSettings,
    streams: Streams,
    ask: Ask = lambda: None,
    *,
    held_out: HeldOut | None = None,
    journal: Keeper | None = None,
) -> Finding:
    """Sweep, restore the state, compare digests, suggest; on every rank at once.

    Args:
        learner: in any state; its state is restored, also after an exception.
        settings: of the sweep.
        streams: `streams(k)` opens the batches of sweep `k`, from 0, as a context; they must not be those of training.
        ask: returns what this rank asks of all ranks with the next update.
        held_out: the mean loss of the same held-out samples each time, the same on every rank; it becomes the curve's,
            taken after each update, in place of the loss of the update's own batch before it.
        journal: keeps what has been done, so that a finder that was stopped or killed can resume.

    Raises:
        StoppedOnRequestError: on every rank, if any was asked to stop; the state is restored.
        DisagreementError: on every rank, if the state of some rank is not what it was.
        CheckpointError: on every rank, if the journal cannot be written, or is that of something else.
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
    with _restored(learner) as state:
        sweeps, under_way = Progress([], UnderWay()) if journal is None else journal.resume(before[0])
        while len(sweeps) < settings.repeats:
            with streams(len(sweeps)) as stream:
                sweeps.append(_sweep(learner, stream, settings, ask, held_out, journal, Progress(sweeps, under_way)))
            under_way = UnderWay()
            learner.restore(state)
            if journal is not None:
                journal.save(Progress(sweeps, under_way))
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


def _sweep(
    learner: Learner,
    stream: Stream,
    settings: FinderSettings,
    ask: Ask,
    held_out: HeldOut | None,
    journal: Keeper | None,
    progress: Progress,
) -> SweepResult:
    """One sweep over its own batches; every rank decides by the same losses, so all end at the same iteration."""
    sweep, rule, now = settings.sweep, settings.stop_rule, progress.under_way
    limit, mean = math.nan, None
    for point in now.points:  # of a sweep that resumes: what was decided by then follows from them
        limit = rule.limit(point.loss, now.probes) if mean is None else limit
        mean = rule.mean(mean, point.loss)
    while now.done < settings.probes + len(sweep):
        t = now.done + 1
        k = now.done - settings.probes
        lr = sweep.lr(max(k, 0))
        loss, requests = _update(learner, stream(t), lr, ask(), held_out)
        now.done = t
        if loss is None:
            return SweepResult([*now.points, Point(lr, math.nan)], Stop.NOT_FINITE, limit, now.probes)
        if math.isnan(loss):  # of a batch without weight, which has changed nothing
            pass
        elif k < 0:
            now.probes.append(loss)
        else:
            limit = rule.limit(loss, now.probes) if mean is None else limit
            now.points.append(Point(lr, loss))
            mean = rule.mean(mean, loss)
            if mean > limit and len(now.points) >= rule.min_iter:
                return SweepResult(now.points, Stop.UNSTABLE, limit, now.probes)
        if journal is not None and journal.is_due(t, requests):
            journal.save(progress)
        if requests.stop:
            advice = "start it again" if journal is None else "resume it with --resume auto"
            raise StoppedOnRequestError(
                f"stopped on request after {t} iterations of the learning-rate finder; the state is restored, {advice}"
            ).on_all_ranks()
    return SweepResult(now.points, sweep.bound, limit, now.probes)


def _update(
    learner: Learner, batch: GlobalBatch, lr: float, ask: Requests | None, held_out: HeldOut | None
) -> tuple[float | None, Requests]:
    """The loss of an update, and what ranks asked with it, both the same on every rank.

    The loss is NaN without weight, and `None` if anything was not finite.
    """
    skipped, weightless = learner.skipped, learner.weightless
    try:
        learner.update(batch, lr, None, ask)
        learner.check_pending()
    except DivergedError:
        return None, learner.pop_requests()
    requests = learner.pop_requests()
    if learner.skipped > skipped:
        return None, requests
    if learner.weightless > weightless:
        return math.nan, requests
    if held_out is None:
        return learner.loss, requests
    loss = held_out()
    return (loss if math.isfinite(loss) else None), requests


def _digests(learner: Learner, when: str) -> list[str]:
    return learner.world.allgather_object(learner.digest(), f"finder.{when}")
