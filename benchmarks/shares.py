#!/usr/bin/env python
"""What shares of shards that are not even cost: the time of an update against what the largest share predicts.

Several learners do updates in turns, within one job. With one shard a rank an update takes the time of a shard and of a
sum, and the sum is timed by itself on the same ranks. So S shards should take

    largest share x time of a shard + time of a sum

A time is that of the slowest rank, from a common start. A ratio is taken within a round.

    python benchmarks/shares.py [--np 3] [--shards 6 8] [--network lenet] [--rounds 15]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from contenders import SHAPES, in_memory
from speed import BIN, shown

_UPDATES = 4  # in a turn


def measure(network: str, counts: list[int], rounds: int) -> None:
    """Print the seconds of a sum and of an update with so many shards, in every round; runs under mpirun."""
    import mxnet as mx

    from harness.comm import connect, shards_of_rank
    from harness.comm.tree import assign
    from harness.data import Batch, GlobalBatch
    from harness.gluon import Learner
    from harness.gluon.gradient_buffer import Buffer
    from harness.model.networks import build_network

    world = connect("mpi", device="cpu")
    data, label = in_memory(network)["train"]
    size, evenly = SHAPES[network][1], assign(world.size, world.size)

    def learner_of(shards: int) -> Learner:
        net = build_network(network, {}, 10)
        net.initialize(mx.init.Xavier())
        optimizer, loss = mx.optimizer.SGD(momentum=0.9), mx.gluon.loss.SoftmaxCrossEntropyLoss()
        return Learner(net, loss, optimizer, world, shards=shards, sample=data[:2])

    def update(learner: Learner, shards: int, t: int) -> None:
        parts = [slice(s * size, (s + 1) * size) for s in shards_of_rank(shards, world)]
        own = zip(shards_of_rank(shards, world), parts, strict=True)
        learner.update(GlobalBatch(t, tuple(Batch(s, data[p], label[p]) for s, p in own), shards * size), 0.01)

    learners = {shards: learner_of(shards) for shards in (world.size, *counts)}
    buffer = Buffer(learners[world.size].reduced_bytes // 4)
    calls: dict[str, Callable[[int], None]] = {"sum": lambda t: world.sum_parts([buffer], evenly, "sum")}
    for shards, learner in learners.items():
        calls[str(shards)] = lambda t, learner=learner, shards=shards: update(learner, shards, t)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):  # the first two warm up
        for name, call in calls.items():
            world.barrier("start")
            began = time.perf_counter()
            for i in range(_UPDATES):
                call(number * _UPDATES + i + 1)
            taken = max(world.allgather_object(time.perf_counter() - began, "time")) / _UPDATES
            if number >= 2:
                found[name].append(taken)
    if world.rank == 0:
        print(json.dumps(found), flush=True)


def table(found: dict[str, list[float]], ranks: int) -> list[str]:
    """Rows of Markdown."""
    rows = ["| shards | largest share | update, ms | predicted, ms | ratio (quartiles) |", "|---|---|---|---|---|"]
    for shards in [int(name) for name in found if name not in ("sum", str(ranks))]:
        share = -(-shards // ranks)
        both = zip(found["sum"], found[str(ranks)], strict=True)
        predicted = [share * (even - total) + total for total, even in both]
        ratios = [taken / expected for taken, expected in zip(found[str(shards)], predicted, strict=True)]
        medians = [f"{1000 * statistics.median(values):.1f}" for values in (found[str(shards)], predicted)]
        rows.append(f"| {shards} | {share} | {medians[0]} | {medians[1]} | {shown(ratios)} |")
    return rows


def main() -> None:
    """Start the job, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--np", type=int, default=3)
    parser.add_argument("--shards", type=int, nargs="+", default=[6, 8])
    parser.add_argument("--network", choices=SHAPES, default="lenet")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--is-rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.is_rank:
        measure(options.network, options.shards, options.rounds)
        return
    own = [sys.executable, __file__, "--is-rank", "--network", options.network, "--rounds", str(options.rounds)]
    command = [str(BIN / "mpirun"), "-np", str(options.np), *own, "--shards", *map(str, options.shards)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    print("\n".join(table(json.loads(done.stdout.strip().splitlines()[-1]), options.np)))


if __name__ == "__main__":
    main()
