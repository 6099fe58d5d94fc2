#!/usr/bin/env python
"""What gradients by rows gain: updates of a network with one large embedding, of which a batch touches few rows.

Learners of the harness and plain Gluon loops, each with a dense gradient and with `sparse_grad=True`, take turns of a
few updates, the first of them in every other round. Samples are lists of ids drawn from all rows alike; behind the
embedding are a mean and a dense layer. Measured are CPU time, which other programs disturb less, and the wall. On two
ranks (`--np 2`, by mpirun) each rank has a shard of its own, and there are no Gluon loops.

    python benchmarks/embedding.py [--rows 400000] [--width 64] [--batch 64] [--ids 20] [--optimizer adam|sgd|adamw]
                                   [--np 1|2] [--rounds 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from speed import found_by_ranks, shown

from harness.comm import SingleWorld, connect
from harness.data import Batch, GlobalBatch
from harness.gluon import Learner
from harness.model.optimizers import build_optimizer

PARAMS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}, "adam": {}, "adamw": {"wd": 0.01}}
TURN = 3  # updates
CLOCKS = {"CPU": time.process_time, "wall": time.perf_counter}
DENSE, ROWS = "dense", "rows"


def build(options: argparse.Namespace, kind: str) -> Any:
    """The network; every time with the same weights."""
    net = nn.HybridSequential()
    net.add(nn.Embedding(options.rows, options.width, sparse_grad=kind == ROWS))
    net.add(nn.HybridLambda(lambda f, x: f.mean(x, axis=1)), nn.Dense(1, in_units=options.width))
    mx.random.seed(0)
    net.initialize(mx.init.Uniform(0.1))
    return net


def samples(options: argparse.Namespace, t: int, shard: int) -> tuple[Any, Any]:
    """Ids `(batch, ids)` and labels."""
    random = np.random.default_rng((t, shard))
    ids = random.integers(0, options.rows, (options.batch, options.ids)).astype(np.int32)
    return ids, random.normal(size=(options.batch, 1)).astype(np.float32)


def of_harness(options: argparse.Namespace, kind: str, world: Any) -> Callable[[], None]:
    """The next update of a learner."""
    optimizer = build_optimizer(options.optimizer, PARAMS[options.optimizer])
    first = samples(options, 0, 0)[0][:2]
    loss = mx.gluon.loss.L2Loss()
    learner = Learner(build(options, kind), loss, optimizer, world, shards=world.size, sample=first)
    done = [0]

    def update() -> None:
        done[0] += 1
        shard = Batch(world.rank, *samples(options, done[0], world.rank))
        learner.update(GlobalBatch(done[0], (shard,), options.batch * world.size), 1e-3)
        mx.nd.waitall()

    return update


def of_gluon(options: argparse.Namespace, kind: str) -> Callable[[], None]:
    """The next update of a plain loop."""
    net, loss = build(options, kind), mx.gluon.loss.L2Loss()
    net.hybridize(static_alloc=True)
    optimizer = build_optimizer(options.optimizer, PARAMS[options.optimizer])
    optimizer.lr = 1e-3
    trainer = mx.gluon.Trainer(net.collect_params(), optimizer, kvstore=None)
    done = [0]

    def update() -> None:
        done[0] += 1
        ids, label = map(mx.nd.array, samples(options, done[0], 0))
        with mx.autograd.record():
            losses = loss(net(ids), label)
        losses.backward()
        trainer.step(options.batch)
        mx.nd.waitall()

    return update


def measure(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of an update by clock, a number a round."""
    found: dict[str, dict[str, list[float]]] = {clock: {kind: [] for kind in calls} for clock in CLOCKS}
    for number in range(rounds + 1):
        for kind in list(calls)[:: 1 if number % 2 else -1]:
            begun = {clock: now() for clock, now in CLOCKS.items()}
            for _ in range(TURN):
                calls[kind]()
            if number:  # the first round warms up
                for clock, now in CLOCKS.items():
                    found[clock][kind].append(1000 * (now() - begun[clock]) / TURN)
    return found


def rank(options: argparse.Namespace) -> None:
    """What a rank does; rank 0 writes what it measured."""
    world = connect("mpi") if options.np == "2" else SingleWorld()
    calls = {f"harness, {kind}": of_harness(options, kind, world) for kind in (DENSE, ROWS)}
    if world.size == 1:
        # MXNet's optimizers alone know sparse gradients
        kinds = (DENSE,) if options.optimizer == "adamw" else (DENSE, ROWS)
        calls |= {f"Gluon, {kind}": of_gluon(options, kind) for kind in kinds}
    found = measure(calls, options.rounds)
    if world.rank == 0:
        options.rank.write_text(json.dumps(found, indent=1))
    world.close()


def table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Rows of Markdown: the median of each, and how many times as long as the harness with rows it takes."""
    rows = ["| | CPU, ms | wall, ms | CPU, times that of rows (quartiles) |", "|---|---|---|---|"]
    base = found["CPU"][f"harness, {ROWS}"]
    for name in found["CPU"]:
        cells = [f"{statistics.median(found[clock][name]):.1f}" for clock in CLOCKS]
        ratios = [one / other for one, other in zip(found["CPU"][name], base, strict=True)]
        rows.append(f"| {name} | {' | '.join(cells)} | {shown(ratios)} |")
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64, help="samples of a shard")
    parser.add_argument("--ids", type=int, default=20, help="of a sample")
    parser.add_argument("--optimizer", choices=PARAMS, default="adam")
    parser.add_argument("--np", choices=["1", "2"], default="1")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank(options)
        return
    found = found_by_ranks(options.np)
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
