"""What a worker process does: read items when its rank asks for them, until the rank has ended, however that ends.

Started by `pool.py` as `python -m harness.data.workers.process`, never forked: beside MXNet and MPI a forked process
would have locks that nobody lets go of.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

import numpy as np

from harness.data.collated import innermost
from harness.data.datasets import load
from harness.data.functions import Functions
from harness.data.generators import Seeding
from harness.data.sequences import SequenceDataset
from harness.data.workers.channel import Channel, SharedMemory
from harness.data.workers.pool import first_digest
from harness.errors import HarnessError
from harness.named import load_function

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    """Read orders until there is nobody left to give them."""
    orders, lifeline, memory, trace, parent = map(int, sys.argv[1:])
    _end_with(lifeline, parent)
    # the rank decides what a signal to all of its processes means; this one ends with it
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable(trace, all_threads=False)
    faulthandler.register(signal.SIGUSR1, trace, all_threads=False)
    with suppress(EOFError, OSError):  # the rank has closed its end, or has ended
        _serve(Channel(socket.socket(fileno=orders)), SharedMemory(memory))
    os._exit(0)  # threads of the user's own do not keep it


def _end_with(lifeline: int, parent: int) -> None:
    """End this process as soon as its rank has ended, whatever it is doing.

    Args:
        lifeline: a pipe that nobody writes to, and whose other end the rank holds.
        parent: the rank, if the kernel may end this process with the thread that started it; 0 otherwise.
    """
    if parent:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before
            os._exit(0)

    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(0)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _serve(channel: Channel, memory: SharedMemory) -> None:
    given = channel.receive()
    try:
        splits = _splits_of(given)
        channel.send({"splits": {name: first_digest(items) for name, items in splits.items()}})
    except BaseException as error:
        while True:
            channel.send(_told(error))
            channel.receive()
    while True:
        order = channel.receive()
        memory.clear()
        try:
            channel.send({"items": _read(splits[order["split"]], order["indices"], order["draws"], memory)})
        except BaseException as error:
            channel.send(_told(error))


def _splits_of(given: dict[str, Any]) -> dict[str, SequenceDataset]:
    """The items of each split, as the rank has them."""
    functions = Functions.of(given["transform"], given["collate"])
    splits = load(**given["load"], functions=functions)
    more = load_function(given["more"], "the generator") if any(given["splits"].values()) else None
    return {
        name: innermost(getattr(splits, name)).seeded(Seeding(given["seed"], more if calls_more else None))
        for name, calls_more in given["splits"].items()
    }


def _read(items: SequenceDataset, indices: list[int], draws: list[int], memory: SharedMemory) -> list[Any]:
    """Read items into the memory; the forms of each item's arrays."""
    found = []
    memory.position = 1
    for leaves in items.leaves(np.array(indices, np.int64), tuple(draws)):
        found.append(memory.write(leaves))
        memory.position = len(found) + 1
    return found


def _told(error: BaseException) -> dict[str, Any]:
    """An error as the rank is told of it."""
    if isinstance(error, HarnessError):
        return {"error": str(error), "code": error.exit_code}
    return {"error": "".join(traceback.format_exception(error)), "code": HarnessError.exit_code}


if __name__ == "__main__":
    main()
