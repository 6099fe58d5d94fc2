"""Which ranks hold up the start of a job: sentences made of their registry entries. Asks the kernel, writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType

from harness.comm import Launch
from harness.comm.compare import name_ranks
from harness.guard.registry import Entry

JOINING = "joining the other ranks"


def explain_missing(launch: Launch, entries: Mapping[int, Entry] | None, own: Entry, *, sees_all_hosts: bool) -> str:
    """Which ranks have not started, do not run, or are still busy with something else.

    Args:
        launch: how many ranks there are.
        entries: of the ranks that have registered, as far as can be seen; `None` if nothing can.
        own: what this rank knows of itself.
        sees_all_hosts: whether ranks of other hosts can be seen.
    """
    if entries is None:
        return f"it is unknown which of the others have started; rank {own.rank} is at {own.activity}"
    entries = {**entries, own.rank: own}
    sees_all = sees_all_hosts or launch.local_size == launch.size
    missing = [rank for rank in range(launch.size) if rank not in entries] if sees_all else []
    reasons = [f"{name_ranks(missing)} {'have' if len(missing) > 1 else 'has'} not started"] if missing else []
    if not sees_all and len(entries) < launch.local_size:
        count = launch.local_size - len(entries)
        reasons.append(f"{count} of the {launch.local_size} ranks of this host have not started")
    reasons += [reason for _, entry in sorted(entries.items()) for reason in [_what_delays(entry)] if reason]
    if reasons:
        return "; ".join(reasons)
    if not sees_all:
        return f"all {launch.local_size} ranks of this host have started; a rank of another host has not"
    activities = "; ".join(f"rank {rank} is at {entry.activity}" for rank, entry in sorted(entries.items()))
    return f"all {launch.size} ranks have started, but do not find each other: {activities}"


def explain_ended(entry: Entry) -> str:
    """What is said of a rank whose process has ended without a word before the ranks were connected."""
    return f"{_name_of(entry)} ended before it joined the others, at {entry.activity}"


def current_code(frame: FrameType | None) -> str:
    """The module that a thread is importing, or the line that it is executing.

    Args:
        frame: the thread's innermost one.
    """
    innermost = None
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_find_and_load" and "importlib" in code.co_filename:
            return f"importing {frame.f_locals.get('name', '?')}"
        if innermost is None and "importlib" not in code.co_filename and code.co_filename != __file__:
            innermost = f"{code.co_filename}:{frame.f_lineno} ({code.co_name})"
        frame = frame.f_back
    return innermost or "?"


def _what_delays(entry: Entry) -> str | None:
    """What keeps one rank from joining the others; `None` if it waits for them like everybody else."""
    state = entry.process_state()
    if state is None:
        return f"{_name_of(entry)} has ended, last at {entry.activity}"
    if state in "Tt":
        return f"{_name_of(entry)} is stopped (SIGSTOP, a debugger), at {entry.activity}"
    if state == "D":
        return f"{_name_of(entry)} waits for a disk or a file system, at {entry.activity}"
    if not entry.activity.startswith(JOINING) or "importing" in entry.activity:
        return f"{_name_of(entry)} has started but is still at {entry.activity}"
    return None


def _name_of(entry: Entry) -> str:
    return f"rank {entry.rank} (pid {entry.pid} on {entry.host.partition(' ')[0]})"
