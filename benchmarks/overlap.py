#!/usr/bin/env python
"""Whether it pays to begin the sum over ranks while a backward pass still computes.

The gradients of a network lie in several buffers, in the order of the layers. MXNet computes asynchronously, so the one
with the last layers is complete first, and ranks can sum it while the others are computed. This is compared, in turns
within one job, with the same sums after the backward pass, with one buffer, and with no sum, the most there is to win.

    python benchmarks/overlap.py [--np 2 4] [--network resnet18_v2] [--buffers 4] [--rounds 15] [--json FILE]
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
from pathlib import Path
from typing import Any

from contenders import SHAPES, batches, gluon_network
from speed import BIN, shown

_UPDATES = 3  # in a turn


def measure(network: str, num_buffers: int, rounds: int) -> None:
    """Print the seconds of every way in every round, on rank 0; runs under mpirun."""
    from harness.comm import connect

    world = connect("mpi")
    ways = {**ways_of(world, network, 1), **ways_of(world, network, num_buffers)}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first one warms up
        for name in list(ways)[:: 1 if number % 2 else -1]:
            world.barrier("start")
            began = time.perf_counter()
            for _ in range(_UPDATES):
                ways[name]()
            taken = max(world.allgather_object(time.perf_counter() - began, "time")) / _UPDATES
            if number:
                found[name].append(taken)
    if world.rank == 0:
        print(json.dumps({"np": world.size, "network": network, "seconds": found}), flush=True)


def ways_of(world: Any, network: str, num_buffers: int) -> dict[str, Callable[[], None]]:
    """Forward, backward and sum of one batch, in a network whose gradients lie in this many buffers."""
    from harness.comm.tree import assign
    from harness.gluon.forward import Forward
    from harness.gluon.gradient_buffer import GradientBuffer
    from harness.gluon.graph import Graph
    from harness.model.parameters import parameters_of

    mx, net, loss = gluon_network(network)
    parameters = parameters_of(net)
    trainable = [(name, one) for name, one in parameters.items() if one.grad_req != "null"]
    sizes, buffers = [one.data().size for _, one in trainable], []
    ends = [sum(sizes) * (number + 1) / num_buffers for number in range(num_buffers)]
    for number, end in enumerate(ends):
        begin = ends[number - 1] if number else 0
        own = {pair[0]: pair[1] for i, pair in enumerate(trainable) if begin < sum(sizes[: i + 1]) <= end}
        buffers.append(GradientBuffer(own, [], mx.cpu()))
    forward = Forward(net, loss, Graph(net, parameters, loss), hybridize=True, is_on_cpu=True)
    data, label = (mx.nd.array(array) for array in next(batches(network)))
    own_part = assign(world.size, world.size)

    def begin() -> None:
        with mx.autograd.record():
            losses, _ = forward.losses(data, label)
        losses.backward()

    def add() -> None:  # each waits for its own buffer alone
        for buffer in reversed(buffers):
            world.sum_parts([buffer.memory], own_part, "update")

    def wait() -> None:
        mx.nd.waitall()

    if num_buffers == 1:
        return {"one buffer": lambda: (begin(), wait(), add()), "no sum": lambda: (begin(), wait())}
    return {"afterwards": lambda: (begin(), wait(), add()), "meanwhile": lambda: (begin(), add(), wait())}


def table(found: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown."""
    rows = ["| ranks | way | ms (median) | one buffer / this (quartiles) |", "|---|---|---|---|"]
    for one in found:
        alone = one["seconds"]["one buffer"]
        for name, seconds in one["seconds"].items():
            ratios = shown([b / a for a, b in zip(seconds, alone, strict=True)])
            rows.append(f"| {one['np']} | {name} | {1000 * statistics.median(seconds):.1f} | {ratios} |")
    return rows


def main() -> None:
    """Start the jobs, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--np", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--network", choices=sorted(SHAPES), default="resnet18_v2")
    parser.add_argument("--buffers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        measure(options.network, options.buffers, options.rounds)
        return
    found = []
    for np_ in options.np:
        own = ["--rank", "--network", options.network, "--buffers", options.buffers, "--rounds", options.rounds]
        command = [str(BIN / "mpirun"), "-np", str(np_), sys.executable, __file__, *map(str, own)]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
