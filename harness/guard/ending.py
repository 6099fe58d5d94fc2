"""Ends a process whose main thread hangs: files, a line on the terminal, and no clean-up that could hang as well."""

from __future__ import annotations

import faulthandler
import os
import tempfile
import time
from typing import NoReturn

from harness.causes import Cause, joined
from harness.comm import World
from harness.errors import LostRankError
from harness.folder.outcome import OutcomeFiles
from harness.guard.messages import Message
from harness.guard.peers import Peers
from harness.guard.this_rank import ThisRank
from harness.guard.timing import GRACE_S, PERIOD_S
from harness.interrupts import leave_job


def end_process(
    cause: Cause,
    *,
    world: World,
    this_rank: ThisRank,
    peers: Peers,
    files: OutcomeFiles,
    last_message: Message | None = None,
) -> NoReturn:
    """End this process with the exit code of a cause.

    Args:
        cause: why; what all ranks end with anyway (`shutdown_cause`) may count more.
        world: with the collective that the main thread waits in.
        this_rank: what it is doing.
        peers: to which the last message goes.
        files: that say how the run ended.
        last_message: to the others, which end for it as well.
    """
    cause = joined(this_rank.shutdown_cause, cause)
    activity, collective, stacks = this_rank.activity.description, world.last_collective, all_stacks()
    files.write(cause.exit_code, cause.text, place=activity, collective=collective, stacks=stacks)
    # the page comes before the message: when another rank has ended, a launcher may end this one at once
    files.write_page()
    if last_message is not None:
        peers.send(last_message)
    shown = stacks if cause.exit_code == LostRankError.exit_code else ""
    print_raw(
        f"error: rank {world.rank}, waiting in the collective {collective!r} in {activity}: {cause.text}\n{shown}"
    )
    time.sleep(2 * PERIOD_S)  # messages must arrive before the connection closes
    if not world.fails_when_lost:
        # launchers of MPI kill all ranks when one ends, and rank 0 may have a page to write
        peers.wait_until_root_closes(GRACE_S)
    # MPICH's launcher returns the first rank's code if there are two; with more it mixes in those that it kills
    (leave_job if world.size > 2 else os._exit)(cause.exit_code)


def all_stacks() -> str:
    """The stacks of all threads of this process."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def print_raw(text: str) -> None:
    """Write to the terminal without Python's buffers, whose locks the main thread may hold."""
    os.write(2, text.encode(errors="backslashreplace"))
