"""Run by test_world.py on several ranks: every collective, failures that all must share, and a clean close."""

import json
import sys
import time

import numpy as np

from harness.comm import connect
from harness.errors import ConfigError, DataError

world = connect(sys.argv[2])
rank, size = world.rank, world.size
found = {"rank": rank, "size": size, "local": [world.local_rank, world.local_size], "kind": world.kind}

for dtype in ("float32", "float64", "int32", "int64", "uint8"):
    array = np.full((2, 3), rank + 1, dtype)
    total = world.allreduce(array, f"sum.{dtype}")
    assert total.dtype == array.dtype
    assert (total == size * (size + 1) // 2).all()
    assert (array == rank + 1).all()
assert world.allreduce(np.array([2.0**53 + 2, 1], np.float64) if rank == 0 else np.zeros(2), "exact")[0] == 2.0**53 + 2
assert world.allreduce(np.zeros((0, 4), np.float32), "empty").shape == (0, 4)
assert world.allreduce(np.float32(rank).reshape(()), "scalar").shape == ()

sent = np.arange(6, dtype=np.float32).reshape(2, 3) * (1 if rank == 0 else -1)
assert (world.broadcast(sent, "broadcast") == np.arange(6).reshape(2, 3)).all()
values = world.allgather_object({"rank": rank, "text": "é" * (rank * 1000)}, "gather")
assert [value["rank"] for value in values] == list(range(size))
assert [len(value["text"]) for value in values] == [1000 * r for r in range(size)]
assert world.broadcast_object([1, None, "x"] if rank == 0 else "something else", "object") == [1, None, "x"]

for failing, kind in (([size - 1], DataError), (list(range(size)), ConfigError)):

    def work(failing=failing, kind=kind):
        if rank in failing:
            raise kind("the file is not here")
        return rank

    try:
        world.agreed("work", work)
    except (DataError, ConfigError) as error:
        found.setdefault("errors", []).append([type(error).__name__, str(error)])
assert world.agreed("fine", lambda: rank) == rank
world.on_root("root", lambda: found.update(root=rank))
assert ("root" in found) == (rank == 0)
try:
    world.on_root("failing", lambda: work([0], DataError))
except DataError as error:
    found["errors"].append([error.everywhere, str(error)])
if rank == 1:
    time.sleep(0.5)  # the others must wait before they leave
world.barrier("late")
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump(found, file)
if rank == 1:
    time.sleep(0.5)
world.close()
