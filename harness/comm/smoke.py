"""`horovodrun -np 2 python -m harness.comm.smoke`: do ranks find each other and add up? One line from rank 0.

Horovod carries the sum where it is installed; where it was left out, `mpirun -np 2` has MPI do so, and without a
launcher MXNet is imported, no more.
"""

from __future__ import annotations

from importlib.metadata import packages_distributions, version

import numpy as np

from harness.comm import connect
from harness.comm.horovod import num_gpus


def main() -> None:
    """Sum one array over all ranks and say what did it."""
    distributions = packages_distributions()
    num_gpus()
    world = connect("horovod" if "horovod" in distributions else "auto")
    total = world.allreduce(np.full(4, 1.0 + world.rank), "smoke")
    expected = world.size * (world.size + 1) / 2
    if not np.array_equal(total, np.full(4, expected)):
        raise SystemExit(f"{world.size} ranks summed to {total[0]}, not to {expected}")
    if world.rank == 0:
        mxnet = distributions["mxnet"][0]  # `mxnet`, or a CUDA build's name
        horovod = f"horovod {version('horovod')}" if "horovod" in distributions else "no horovod"
        did = "1 process has" if world.size == 1 else f"{world.size} ranks summed"
        print(f"ready: {mxnet} {version(mxnet)}, {horovod} ({world.kind}), {did} an array")
    world.close()


if __name__ == "__main__":
    main()
