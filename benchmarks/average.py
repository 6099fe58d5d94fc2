"""What a moving average of the weights costs: `mpirun -np 2 python benchmarks/average.py [NETWORK] [EVERY]`.

Times updates with and without it in turns within one job, so that a noisy machine disturbs both alike, and prints the
ratio of the lower quartiles.
"""

import sys
from typing import Any

from contenders import SHAPES, gluon_network
from turns import lower_quartiles

from harness.comm import connect
from harness.gluon import Averaging, Learner, UpdateOptions


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
    quartiles = lower_quartiles(world, network, learners)
    if world.rank == 0:
        size = sum(parameter.data().size for parameter in learners["with"].parameters.values())
        print(
            f"{network}, {size} numbers, np {world.size}: update {quartiles['without']:.3f} ms, with an average "
            f"every {every}: {quartiles['with']:.3f} ms, ratio {quartiles['without'] / quartiles['with']:.4f}",
            flush=True,
        )
    world.close()


if __name__ == "__main__":
    main()
