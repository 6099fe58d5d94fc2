"""`horovodrun -np 2 python -m harness.comm.smoke horovod`: do ranks find each other and add up? One line of rank 0.

The argument is the kind of world, `auto` if it is left out. MXNet is imported in any case.
"""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions, version

import numpy as np

from harness.comm import connect
from harness.comm.horovod import num_gpus


def main() -> None:
    """Sum one array over all ranks and say what did it."""
    num_gpus()
    world = connect(sys.argv[1] if len(sys.argv) > 1 else "auto")
    total = world.allreduce(np.full(4, 1.0 + world.rank), "smoke")
    expected = world.size * (world.size + 1) / 2
    if not np.array_equal(total, np.full(4, expected)):
        raise SystemExit(f"{world.size} ranks summed to {total[0]}, not to {expected}")
    if world.rank == 0:
        distributions = packages_distributions()
        mxnet = distributions["mxnet"][0]  # `mxnet`, or a CUDA build's name
        horovod = f"horovod {version('horovod')}" if "horovod" in distributions else "no horovod"
        did = "1 process has" if world.size == 1 else f"{world.size} ranks summed"
        print(f"ready: {mxnet} {version(mxnet)}, {horovod} ({world.kind}), {did} an array")
    world.close()


if __name__ == "__main__":
    main()
