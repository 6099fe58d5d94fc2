"""A run whose workers come and go: it goes on in one world after another, and ends with the bits of an unbroken run.

What a world is, is decided in `harness.comm.elastic`. Here is what follows for the run: processes that join prepare
alone, ranks that are left keep their data, network and compiled graphs, all of them take the state of a rank that is
furthest, and do again what was under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from harness.comm import Membership, World
from harness.comm.elastic import RemovedError
from harness.errors import ConfigError, LostRankError, StoppedOnRequestError
from harness.gluon import Learner
from harness.guard import Guard, Unguarded
from harness.train.build import build_learner, compare_learners
from harness.train.changes import world_may_end
from harness.train.hooks import with_hooks
from harness.train.loop import train_here
from harness.train.run import Run
from harness.train.saving import manifest_of, save_alone
from harness.train.standing import Standing, WorldChangedError


class Surroundings(Protocol):
    """What a command does around the training, as far as it has to do with the world."""

    def enter(self, world: World) -> Guard:
        """Connect the guards of another world's ranks, and compare their configurations; a collective."""

    def step_out(self, *, is_over: bool) -> None:
        """This rank ends, and if the job is not over, the others go on."""


def train_in_worlds(run: Run, log_level: str, surroundings: Surroundings) -> dict[str, float]:
    """Train as `train` does, in this world and those that follow it.

    Args:
        run: what to train, in the first world of this process; alone, if it joins a job.
        log_level: see `train`.
        surroundings: of the training.

    Raises:
        HarnessError: as `train`; and if this rank leaves.
    """
    membership = run.world.membership
    assert membership is not None
    membership.limit(run.sizes.shards, run.config.elastic.wait_s)
    run = with_hooks(run) if not membership.is_joining else run
    learner = build_learner(run, has_state=not membership.is_joining)
    at = Standing(run, run.initial_state, has_state=not membership.is_joining)
    change = WorldChangedError("a worker has joined", is_lost=False) if membership.is_joining else None
    while True:
        try:
            if change is not None:
                at = _enter_next(at, learner, membership, change, surroundings)
            return train_here(at, learner, log_level, change)
        except WorldChangedError as ended:
            change = ended


def _enter_next(
    at: Standing, learner: Learner, membership: Membership, change: WorldChangedError, surroundings: Surroundings
) -> Standing:
    """Become a rank of the next world, with the state of those that are furthest.

    Raises:
        WorldChangedError: if that world has ended before it began.
        StoppedOnRequestError: if this rank leaves, or there are not enough others.
    """
    change.size_before = at.run.world.size if at.has_state else None
    is_lost = change.is_lost or not _close(at.run.world, membership)
    if is_lost:
        at.run.world.abandon()
    if membership.leaves and not is_lost:
        surroundings.step_out(is_over=False)
        raise StoppedOnRequestError(f"this worker has left after iteration {at.state.iteration}; the others train on")

    def may_wait() -> None:
        at.run.guard.enter("waiting for other workers", "first")  # for as long as there are none
        if at.run.guard.is_told_to_stop():
            membership.leave()  # whether others were told as well, they know
            raise LostRankError("asked to stop while there was no world")

    iteration = at.state.iteration if at.has_state else None
    try:
        is_told_to_stop = at.run.guard.is_told_to_stop
        world = membership.next_world(iteration, is_lost=is_lost, may_wait=may_wait, hurries=is_told_to_stop)
    except RemovedError:
        membership.leave()
        surroundings.step_out(is_over=False)
        raise
    except LostRankError as error:
        raise _save_alone(at, learner, surroundings, error) from error
    run = replace(at.run, world=world, guard=Unguarded())  # the guard until now knows nothing of this world
    try:
        with world_may_end(run), membership.watching(world):
            run = replace(run, guard=surroundings.enter(world))
        with world_may_end(run):
            run.guard.defer_stops()
            run.guard.enter("the beginning of a world", "first")
            run = with_hooks(run)
            learner.enter(world)
            return _with_newest(replace(at, run=run), learner, membership.brought)
    except WorldChangedError:
        world.abandon()  # another rank may still wait for this one, which looks for the world after it
        raise


def _close(world: World, membership: Membership) -> bool:
    """End a world by agreement; whether nobody was lost meanwhile."""
    if membership.leaves:
        membership.leave()
    try:
        world.close()
    except LostRankError:
        return False
    return True


def _save_alone(
    at: Standing, learner: Learner, surroundings: Surroundings, error: LostRankError
) -> StoppedOnRequestError:
    """Save what this process has, because there is no next world; the error to end with."""
    membership = at.run.world.membership
    assert membership is not None
    if not (at.has_state and at.state.iteration):
        surroundings.step_out(is_over=True)
        return StoppedOnRequestError(f"{error}; there was nothing to save")
    try:
        at.run.folder.lock()
    except ConfigError:  # by one that goes on without this process, which was cut off, or has saved before
        membership.leave()
        surroundings.step_out(is_over=False)
        return StoppedOnRequestError(f"{error}; nothing was saved here: another worker writes to {at.run.folder.path}")
    surroundings.step_out(is_over=True)
    learner.enter(at.run.world)
    path = save_alone(at.run, at.state, learner)
    saved = f"saved after iteration {at.state.iteration}" if path else "another worker has saved the state"
    return StoppedOnRequestError(f"{error}: {saved}; start it again with --resume auto")


def _with_newest(at: Standing, learner: Learner, brought: Sequence[int | None]) -> Standing:
    """The standing of a rank that is furthest, on all ranks; a collective.

    Args:
        at: this rank's, in the new world.
        learner: of this rank.
        brought: the last update of each rank; `None` for one without a state.
    """
    run, world = at.run, at.run.world
    root = brought.index(max(one for one in brought if one is not None))
    own: list[Any] = []
    if world.rank == root:
        init = learner.began_with if run.resume_point is None else run.resume_point.manifest.init
        own = [at.to_json(learner, manifest_of(run, at.state, learner.numbers(), init)), init]
    told, init = world.broadcast_object(own, "standing", root)
    newest = at if world.rank == root else Standing.read(told, run, learner)
    if newest.update is not None:  # what was asked with it will be asked again
        newest.update = newest.update._replace(requests=newest.update.requests._replace(reshape=False))
    compare_learners(newest.run, learner, newest.state.iteration)
    if len(set(brought)) > 1:
        _take_state(learner, root, is_older=brought[world.rank] not in (None, brought[root]))
        if not at.has_state:
            learner.began_with, newest.run = init, replace(newest.run, resume_point=None)
    return newest


def _take_state(learner: Learner, root: int, *, is_older: bool) -> None:
    """Take the state of a rank, or, if that is lost on the way, keep one's own, which may be older."""
    before = learner.snapshot() if is_older else None
    try:
        learner.broadcast_state(compared=True, root=root)
    except Exception:
        if before is not None:
            learner.restore(before)
        raise
