"""`mpirun -np 2 python -m harness.doctor.two_ranks`: do ranks connect and sum arrays, and how fast? Prints JSON."""

from __future__ import annotations

import json

import numpy as np

from harness.comm import connect
from harness.doctor.measure import measure_reductions

_SMALL, _LARGE = 1, 16 * 1024  # kilobytes


def main() -> None:
    """Sum over all ranks, in host memory."""
    world = connect(device="cpu")
    total = world.allreduce(np.full(4, 1.0 + world.rank), "doctor.check")
    expected = world.size * (world.size + 1) / 2
    if world.size != 2 or not np.array_equal(total, np.full(4, expected)):
        raise SystemExit(f"{world.size} ranks summed to {total[0]} instead of {expected}")
    (_, small_s), (num_bytes, large_s) = measure_reductions(world, (_SMALL, _LARGE))
    if world.rank == 0:
        print(json.dumps({"kind": world.kind, "small_s": small_s, "bytes_per_s": num_bytes / large_s}), flush=True)
    world.close()


if __name__ == "__main__":
    main()
