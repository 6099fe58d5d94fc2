"""Kill, again and again, a process that does nothing but write sets of 50 MB: FOLDER KILLS.

Each child begins as a new attempt would, by removing debris, and then writes sets until it is killed at a random
moment. The parent then looks at what is left. It prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from harness.checkpoint import list_sets, remove_debris, verify
from harness.checkpoint.sets import keep_newest, write_set
from harness.errors import CheckpointError

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir()
generator = random.Random(7)
arrays = {kind: {"a": np.zeros(6_250_000, np.float32)} for kind in ("parameters", "slots")}


def write_for_ever() -> None:
    remove_debris(folder)
    sets = list_sets(folder)
    iteration = int(sets[-1].name[-9:]) if sets else 0
    while True:
        iteration += 1
        arrays["parameters"]["a"][:] = iteration
        write_set(folder, iteration, arrays, {"state": {"iteration": iteration}})
        keep_newest(folder, 2)


started = time.perf_counter()
for iteration in (1, 2, 3):
    write_set(folder, iteration, arrays, {"state": {"iteration": iteration}})
one_write_s = (time.perf_counter() - started) / 3
report = {"kills": 0, "inside": 0, "not_whole": 0, "debris_left": 0, "seconds_a_write": round(one_write_s, 3)}
for _ in range(kills):
    child = os.fork()
    if child == 0:
        write_for_ever()
    time.sleep(generator.uniform(0, 3 * one_write_s))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    report["kills"] += 1
    left = [path.name for path in folder.iterdir()]
    report["inside"] += any(name.startswith(".writing-iteration") for name in left) and len(list_sets(folder)) > 0
    try:
        verify(list_sets(folder)[-1])
    except (CheckpointError, IndexError):
        report["not_whole"] += 1
    remove_debris(folder)
    report["debris_left"] += any(not path.name.startswith("iteration-") for path in folder.iterdir())
print(json.dumps(report))
