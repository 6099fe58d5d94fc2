"""What a world that may end asks of its ranks, and how it ends; in any other job nothing happens here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.comm.compare import name_ranks
from harness.errors import LostRankError, StoppedOnRequestError
from harness.gluon import Requests
from harness.guard import Guard
from harness.train.hooks import raise_failure
from harness.train.run import Run
from harness.train.saving import Saver
from harness.train.standing import Standing, WorldChangedError
from harness.train.state import RunState


@contextmanager
def world_may_end(run: Run) -> Iterator[None]:
    """Where workers may come and go: turn the loss of one into the end of this world.

    Raises:
        WorldChangedError: if a rank was lost, and the others can do without it.
    """
    try:
        yield
    except Exception as error:
        lost = error if isinstance(error, LostRankError) else run.world.explain(error)
        if run.world.membership is None or lost is None:
            raise
        cause = run.guard.cause_of_departure() if isinstance(run.guard, Guard) else None
        if cause is not None and not cause.spares_others:
            raise cause.error() from error
        raise WorldChangedError(str(lost) if cause is None else cause.text, is_lost=True) from error


def asked(run: Run, saver: Saver) -> Requests:
    """What this rank asks of all with the next update."""
    membership = run.world.membership
    if membership is None:
        return saver.ask(run.is_told_to_end)
    return saver.ask(reshape=run.is_told_to_end or membership.wants_change(run.world.rank))


def settled(run: Run, requests: Requests) -> Requests:
    """What ranks do about what was asked: if all have to leave, the run stops; a collective if another world is asked.

    Args:
        run: what is trained.
        requests: of any rank.
    """
    if not requests.reshape:
        return requests
    return requests._replace(stop=requests.stop or all(_leaving(run)))


def end_world_if_some_stay(run: Run) -> None:
    """End this world if it has to end for some of its ranks alone; a collective.

    Raises:
        WorldChangedError: on every rank.
    """
    if run.world.membership is None:
        return
    leaving = _leaving(run)
    if not all(leaving):
        raise WorldChangedError(_reason(leaving), is_lost=False)


def end_if_asked(at: Standing, run: Run, state: RunState, requests: Requests, saver: Saver) -> None:
    """End the run, or this world, after an update, if that was asked; a collective if it was.

    Args:
        at: where the run stood before what was due after the update.
        run: by its plan of now.
        state: of now; its evaluation is still due if ranks were told to end meanwhile.
        requests: of any rank, with the update.
        saver: has saved already if the run ends.

    Raises:
        StoppedOnRequestError: on every rank.
        WorldChangedError: likewise.
    """
    goes_on = state.iteration < run.sizes.num_iterations
    if state.evaluation_due and not requests.stop:
        end_world_if_some_stay(run)
    if state.evaluation_due or (requests.stop and goes_on):
        raise _stopped(run, saver, state.iteration)
    if requests.reshape and goes_on:
        at.is_over(run, state, saver.saved)
        raise WorldChangedError(_reason(_leaving(run)), is_lost=False)


def _stopped(run: Run, saver: Saver, t: int) -> StoppedOnRequestError:
    """The error with which every rank ends, once the checkpoint of iteration `t` is on disk."""
    saver.wait_until_written()
    raise_failure(run)
    by = run.hooks.asked_to_stop
    if run.world.membership is not None and run.world.membership.is_launcher_gone():
        by = by or "horovodrun does not answer any more"
    return run.guard.stopped(f"saved after iteration {t}; {run.once_more}", by)


def _leaving(run: Run) -> list[str]:
    """Why each rank has to leave; empty for one that stays."""
    leaves, membership = run.is_told_to_end or run.guard.stop_requested, run.world.membership
    why = run.guard.stop_signal or "it was told to"
    if membership is not None:
        is_gone = membership.is_launcher_gone()
        membership.leaves = leaves = leaves or is_gone
        if membership.is_removed:
            why = "its host was removed, or another worker failed there"
        elif is_gone:
            why = "horovodrun does not answer it"
    return run.world.allgather_object(why if leaves else "", "leaving")


def _reason(leaving: list[str]) -> str:
    """Why a world ends, in words.

    >>> _reason(["", "SIGTERM", "SIGTERM", "its host was removed"])
    'ranks 1, 2 had to leave (SIGTERM); rank 3 had to leave (its host was removed)'
    >>> _reason(["", ""])
    'more workers were ready to join'
    """
    ranks = {why: [rank for rank, own in enumerate(leaving) if own == why] for why in leaving if why}
    told = [f"{name_ranks(found)} had to leave ({why})" for why, found in ranks.items()]
    return "; ".join(told) or "more workers were ready to join"
