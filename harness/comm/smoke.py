"""`horovodrun -np 2 python -m harness.comm.smoke`: do ranks find each other and add up? One line from rank 0."""

from __future__ import annotations

from importlib.metadata import packages_distributions, version

import numpy as np

from harness.comm import connect


def main() -> None:
    """Sum one array over all ranks and say what did it."""
    world = connect("horovod")
    total = world.allreduce(np.full(4, 1.0 + world.rank), "smoke")
    expected = world.size * (world.size + 1) / 2
    if not np.array_equal(total, np.full(4, expected)):
        raise SystemExit(f"{world.size} ranks summed to {total[0]}, not to {expected}")
    if world.rank == 0:
        mxnet = packages_distributions()["mxnet"][0]  # `mxnet`, or a CUDA build's name
        print(
            f"ready: {mxnet} {version(mxnet)}, horovod {version('horovod')} ({world.kind}), {world.size} ranks "
            "summed an array"
        )
    world.close()


if __name__ == "__main__":
    main()
