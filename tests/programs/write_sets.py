"""Kill, again and again, a process that does nothing but write sets of 50 MB: FOLDER KILLS.

Each child begins as a new attempt would, by removing debris, and then writes sets until it is killed at a random
moment. The parent then looks at what is left. It prints one line of JSON:

    kills, seconds_a_write
    inside          kills that left a half-written set while an older one stood
    debris_seen     kills that left anything but sets
    not_whole       the newest set does not verify, or its arrays are not those of its iteration
    half_removed    an older set has its name and not all of its files
    lost            the newest set is older than the newest before
    debris_left     something but sets was there after `remove_debris`
    not_by_us       children that ended before they were killed: an error in a write
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from harness.checkpoint import iteration_of, list_checkpoints, read_arrays, remove_debris, verify
from harness.checkpoint.store import keep_newest, write_checkpoint
from harness.errors import CheckpointError

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir()
generator = random.Random(7)
arrays = {kind: {"a": np.zeros(6_250_000, np.float32)} for kind in ("parameters", "slots")}


def write_one(iteration: int) -> None:
    for kind in arrays.values():
        kind["a"][[0, -1]] = iteration  # more would cost a child the time that it should be writing in
    write_checkpoint(folder, iteration, arrays, {"state": {"iteration": iteration}})


def write_for_ever() -> None:
    remove_debris(folder)
    iteration = newest()
    while True:
        iteration += 1
        write_one(iteration)
        keep_newest(folder, 2)


def newest() -> int:
    return max(map(iteration_of, list_checkpoints(folder)), default=0)


def is_whole(path: Path) -> bool:
    try:
        iteration = verify(path)["state"]["iteration"]
        return all((kind["a"][[0, -1]] == iteration).all() for kind in read_arrays(path).values())
    except CheckpointError:
        return False


started = time.perf_counter()
for first in (1, 2, 3):
    write_one(first)
one_write_s = (time.perf_counter() - started) / 3
keys = ("kills", "inside", "debris_seen", "not_whole", "half_removed", "lost", "debris_left", "not_by_us")
report = dict.fromkeys(keys, 0)
before = newest()
for _ in range(kills):
    child = os.fork()
    if child == 0:
        try:
            write_for_ever()
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    time.sleep(generator.uniform(0, 1.5 * one_write_s))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    report["kills"] += 1
    report["not_by_us"] += not os.WIFSIGNALED(status)
    sets, left = list_checkpoints(folder), [path.name for path in folder.iterdir()]
    report["inside"] += bool(sets) and any(name.startswith(".writing-iteration") for name in left)
    report["debris_seen"] += len(left) > len(sets)
    report["not_whole"] += not sets or not is_whole(sets[-1])
    report["half_removed"] += any(len(list(path.iterdir())) != 4 for path in sets)
    report["lost"] += newest() < before
    before = newest()
    remove_debris(folder)
    report["debris_left"] += sorted(folder.iterdir()) != sets
print(json.dumps({**report, "seconds_a_write": round(one_write_s, 3)}))
