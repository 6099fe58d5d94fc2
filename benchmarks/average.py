"""What a moving average of the weights costs: `mpirun -np 2 python benchmarks/average.py [NETWORK] [EVERY]`.

Times updates with and without it in turns within one job, so that a noisy machine disturbs both alike, and prints the
ratio of the lower quartiles.
"""

import statistics
import sys
import time
from typing import Any

from contenders import SHAPES, batches, gluon_network

from harness.comm import connect, shards_of_rank
from harness.data import Batch, GlobalBatch
from harness.gluon import Averaging, Learner, UpdateOptions

ROUNDS, UPDATES = 60, 10


def learner_of(world: Any, network: str, average: Averaging | None) -> Learner:
    """A learner of its own network on synthetic pictures."""
    mx, net, loss = gluon_network(network)
    sample = mx.nd.zeros((2, *SHAPES[network][0])).asnumpy()
    optimizer, options = mx.optimizer.SGD(momentum=0.9), UpdateOptions(average=average)
    return Learner(net, loss, optimizer, world, shards=world.size, sample=sample, options=options)


def main() -> None:
    """Measure and print, on rank 0."""
    network = sys.argv[1] if len(sys.argv) > 1 else "lenet"
    every = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    world = connect()
    learners = {
        "with": learner_of(world, network, Averaging(0.999, every)),
        "without": learner_of(world, network, None),
    }
    stream, times, t = batches(network), {name: [] for name in learners}, 0
    for number in range(ROUNDS):
        taken = [next(stream) for _ in range(UPDATES)]
        for name in list(learners)[:: 1 if number % 2 else -1]:
            world.barrier("start")
            begun = time.perf_counter()
            for step, (data, label) in enumerate(taken, start=t + 1):
                own = tuple(Batch(shard, data, label) for shard in shards_of_rank(world.size, world))
                learners[name].update(GlobalBatch(step, own, len(data) * world.size), 0.01)
            learners[name].check_pending()
            times[name].append((time.perf_counter() - begun) / UPDATES)
        t += UPDATES
    if world.rank == 0:
        quartiles = {name: statistics.quantiles(found[5:], n=4)[0] for name, found in times.items()}
        size = sum(parameter.data().size for parameter in learners["with"].parameters.values())
        print(
            f"{network}, {size} numbers, np {world.size}: update {1e3 * quartiles['without']:.3f} ms, with an average "
            f"every {every}: {1e3 * quartiles['with']:.3f} ms, ratio {quartiles['without'] / quartiles['with']:.4f}",
            flush=True,
        )
    world.close()


if __name__ == "__main__":
    main()
