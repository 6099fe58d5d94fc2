"""Who keeps a job that makes no progress: what ranks tell of themselves, and what follows from it."""

from __future__ import annotations

import faulthandler
import os
import tempfile
from collections.abc import Mapping

from harness.comm.compare import name_ranks
from harness.guard.messages import Message


def explain_end(rank: int, told: Message) -> str:
    """What is said of a rank whose connection has ended without a farewell."""
    return f"rank {rank}{process_of(told)} was killed or lost its host; it was last heard of in {place_of(told)}"


def place_of(told: Message) -> str:
    """Where a rank said that it is."""
    return told.place or "start"


def process_of(told: Message) -> str:
    """A rank's process in brackets, where it is known."""
    return f" ({told.process})" if told.process else ""


def who_is_silent(told: Mapping[int, Message], silent_s: Mapping[int, float], limit_s: float) -> dict[int, str]:
    """The ranks that do not run, or are out of reach, with what is known of each.

    Args:
        told: the last words of each.
        silent_s: for how long each has said nothing.
        limit_s: from when on that means something.
    """
    return {
        rank: f"rank {rank}{process_of(told[rank])} has been silent for {for_s:.0f} s, last in "
        f"{place_of(told[rank])}: it was stopped (SIGSTOP, a debugger), or its host cannot be reached"
        for rank, for_s in silent_s.items()
        if for_s > limit_s
    }


def explain_stall(told: Mapping[int, Message], silent: Mapping[int, str], own_rank: int) -> str:
    """Who keeps the others, and where it is.

    Args:
        told: the last words of each rank, this one's own among them.
        silent: see `who_is_silent`.
        own_rank: this one.
    """
    furthest = max(one.calls or 0 for one in told.values())
    waited = next((one.collective or "start" for one in told.values() if (one.calls or 0) == furthest), "start")
    behind = [
        rank
        for rank, one in told.items()
        if rank not in silent and (furthest if one.calls is None else one.calls) < furthest
    ]
    reasons = list(silent.values())
    reasons += [
        f"rank {rank} has not come to the collective {waited!r}; it is at {told[rank].at}, in {place_of(told[rank])}"
        for rank in behind
    ]
    if not reasons:
        reasons = [f"{name_ranks(sorted(told))} all wait; rank {own_rank} is at {told[own_rank].at}"]
    return "; ".join(reasons)


def stacks() -> str:
    """The stacks of all threads of this process."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def say(text: str) -> None:
    """Write to the terminal past Python's buffers, whose locks the main thread may hold."""
    os.write(2, text.encode(errors="backslashreplace"))
