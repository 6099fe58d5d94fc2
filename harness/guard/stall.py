"""Which rank holds the others up: sentences made of what ranks report of themselves. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from harness.comm.compare import name_ranks
from harness.guard.messages import Message


def explain_end(rank: int, status: Message) -> str:
    """What is said of a rank whose connection has ended without a goodbye.

    Args:
        rank: that was lost.
        status: that it reported last.
    """
    return (
        f"rank {rank}{_process_of(status)} was killed or its host went down; it was last heard of in "
        f"{_activity_of(status)}"
    )


def explain_silence(rank: int, status: Message, silent_s: float) -> str:
    """What is said of a rank that is still connected, but does not report any more.

    Args:
        rank: that is silent.
        status: that it reported last.
        silent_s: for how long.
    """
    return (
        f"rank {rank}{_process_of(status)} has been silent for {silent_s:.0f} s, last in {_activity_of(status)}: it "
        "was stopped (SIGSTOP, a debugger), or its host cannot be reached"
    )


def explain_stall(statuses: Mapping[int, Message], silent: Mapping[int, str], own_rank: int) -> str:
    """Which ranks hold up the others, and where they are.

    Ranks start collectives in the same order, so a rank that has started fewer than the others is the one that they
    wait for. If all have started as many, all wait in the same one, and nobody can be named.

    Args:
        statuses: of all ranks that report, this one among them.
        silent: sentences on the ranks that do not report any more.
        own_rank: this one.
    """
    furthest = _furthest(statuses)
    awaited = next(
        (one.collective or "start" for one in statuses.values() if (one.num_collectives or 0) == furthest), "start"
    )
    behind = ranks_behind(statuses, silent)
    reasons = list(silent.values())
    reasons += [
        f"rank {rank} has not reached the collective {awaited!r}; it is at {statuses[rank].line}, in "
        f"{_activity_of(statuses[rank])}"
        for rank in behind
    ]
    if not reasons:
        reasons = [f"{name_ranks(sorted(statuses))} all wait; rank {own_rank} is at {statuses[own_rank].line}"]
    return "; ".join(reasons)


def ranks_behind(statuses: Mapping[int, Message], silent: Collection[int]) -> list[int]:
    """The ranks that report, and that the others wait for."""
    furthest = _furthest(statuses)
    return [
        rank
        for rank, one in statuses.items()
        if rank not in silent and (furthest if one.num_collectives is None else one.num_collectives) < furthest
    ]


def _furthest(statuses: Mapping[int, Message]) -> int:
    return max(one.num_collectives or 0 for one in statuses.values())


def _activity_of(status: Message) -> str:
    return status.activity or "start"


def _process_of(status: Message) -> str:
    """A rank's process in brackets, where it is known."""
    return f" ({status.process})" if status.process else ""
