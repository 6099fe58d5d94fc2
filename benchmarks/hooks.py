"""What hooks cost: `mpirun -np 2 python benchmarks/hooks.py [NETWORK] [EVERY]`.

Trains with hooks (Prometheus' textfile, and one that does nothing) and without, in turns within one job, so that a
noisy machine disturbs both alike, and prints the ratio of the lower quartiles. Hooks are told the loss of every tenth
update; without them nobody reads it in between.
"""

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from contenders import gluon_network, in_memory

from harness import Job
from harness.comm import connect
from harness.hooks.prometheus import textfile

ROUNDS, UPDATES = 60, 10


def nothing(event):
    """A hook that does nothing."""


def main() -> None:
    """Measure and print, on rank 0."""
    network = sys.argv[1] if len(sys.argv) > 1 else "lenet"
    every = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    world = connect()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hooked = {"hooks": [partial(textfile, folder=str(folder)), nothing], "log_every": every}
        jobs = {}
        for name, options in (("with", hooked), ("without", {})):
            mx, net, loss = gluon_network(network)
            train = in_memory(network)["train"]
            sizes = {"batch": 64, "iterations": ROUNDS * UPDATES, "folder": folder / name}
            optimizer = mx.optimizer.SGD(momentum=0.9)
            job = Job(net, loss, optimizer, train=train, lr=0.01, world=world, **sizes, **options)
            jobs[name] = stack.enter_context(job)
        times = {name: [] for name in jobs}
        for number in range(ROUNDS):
            for name in list(jobs)[:: 1 if number % 2 else -1]:
                world.barrier("start")
                begun, job = time.perf_counter(), jobs[name]
                for _ in range(UPDATES):
                    job.update(job.iteration + 1)
                job.learner.check_pending()
                times[name].append((time.perf_counter() - begun) / UPDATES)
    if world.rank == 0:
        quartiles = {name: statistics.quantiles(found[5:], n=4)[0] for name, found in times.items()}
        print(
            f"{network}, np {world.size}: update {1e3 * quartiles['without']:.3f} ms, with hooks told every {every}: "
            f"{1e3 * quartiles['with']:.3f} ms, ratio {quartiles['without'] / quartiles['with']:.4f}",
            flush=True,
        )
    world.close()


if __name__ == "__main__":
    main()
