#!/usr/bin/env python
"""What steps on the host gain: updates with MXNet's kernels and with NumPy, by optimizer.

In a job of two ranks each rank has two learners that differ in nothing but who steps; they take turns of a few
updates, the first of them in every other round. Adam and RMSProp have no rule in the harness; theirs are below, to see
what they would gain. Measured is the step alone, in CPU time of rank 0 while the other rank steps as well, and all of
an update, both in CPU time, which other programs disturb less, and on the wall. With one rank (`--np 1`) no CPU time is
spent on waiting for the other. The learning rate changes in every update, as a schedule changes it, so momentum buffers
follow it; with `--constant` it does not.

    python benchmarks/optimizers.py [--network resnet18_v2|lenet] [--np 1|2] [--constant] [--only REGEX] [--rounds 15]
                                    [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mxnet as mx
import numpy as np
from contenders import SHAPES, batches
from speed import found_by_ranks, shown

from harness.comm import SingleWorld, connect
from harness.data import Batch, GlobalBatch
from harness.gluon import Learner, UpdateOptions
from harness.gluon.step import OptimizerStep
from harness.gluon.step.memory import as_operators_read
from harness.gluon.step.numpy_step import NumpyStep
from harness.gluon.step.rules import RULES, Operands, Rule
from harness.model.networks import build_network
from harness.model.parameters import parameters_of

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "nag": {"momentum": 0.9},
    "rmsprop": {},
    "rmsprop centered": {"centered": True},
    "adam": {},
    "lamb": {},
}
KERNEL, NUMPY = "kernel", "numpy"
TURNS = {"lenet": 20, "resnet18_v2": 3}  # updates
RATES = [1e-5 * (1 + t % 7) for t in range(7)]  # so small that no optimizer diverges
CLOCKS = {"CPU": time.process_time, "wall": time.perf_counter}
ONE = np.float32(1)


def adam(optimizer: Any, weight: Operands) -> None:
    """Adam as MXNet's kernel has it."""
    corrected = weight.lr * math.sqrt(1.0 - optimizer.beta2**weight.t) / (1.0 - optimizer.beta1**weight.t)
    lr, wd, rescale = (as_operators_read(one) for one in (corrected, weight.wd, optimizer.rescale_grad))
    beta1, beta2, epsilon = (as_operators_read(one) for one in (optimizer.beta1, optimizer.beta2, optimizer.epsilon))
    for w, g, m, v, gradient, term in weight.blocks():
        np.multiply(g, rescale, out=gradient)
        gradient += np.multiply(w, wd, out=term)
        m *= beta1
        m += np.multiply(gradient, ONE - beta1, out=term)
        v *= beta2
        np.multiply(gradient, ONE - beta2, out=term)
        term *= gradient
        v += term
        np.sqrt(v, out=term)
        term += epsilon
        np.multiply(m, lr, out=gradient)
        gradient /= term
        w -= gradient


def rmsprop(optimizer: Any, weight: Operands) -> None:
    """RMSProp as MXNet's kernels have it, centered or not."""
    lr, wd, rescale = (as_operators_read(one) for one in (weight.lr, weight.wd, optimizer.rescale_grad))
    gamma1, gamma2, epsilon = (as_operators_read(x) for x in (optimizer.gamma1, optimizer.gamma2, optimizer.epsilon))
    for w, g, n, *centered, gradient, term in weight.blocks():
        np.multiply(g, rescale, out=gradient)
        gradient += np.multiply(w, wd, out=term)
        n *= gamma1
        if not centered:
            np.multiply(gradient, gradient, out=term)
            term *= ONE - gamma1
            n += term
            np.sqrt(np.add(n, epsilon, out=term), out=term)
            gradient /= term
            gradient *= lr
            w -= gradient
            continue
        mean, delta = centered
        np.multiply(gradient, ONE - gamma1, out=term)
        mean *= gamma1
        mean += term
        term *= gradient
        n += term
        np.multiply(mean, mean, out=term)
        np.subtract(n, term, out=term)
        term += epsilon
        np.sqrt(term, out=term)
        gradient *= lr
        gradient /= term
        delta *= gamma2
        delta -= gradient
        w += delta


CANDIDATES = {mx.optimizer.Adam: Rule(adam), mx.optimizer.RMSProp: Rule(rmsprop)}


def build(network: str) -> Any:
    """The same network every time."""
    mx.random.seed(0)
    net = build_network(network, {}, 10)
    net.initialize(mx.init.Xavier())
    return net


def learners(network: str, name: str, world: Any, rates: list[float]) -> dict[str, Callable[[], None]]:
    """An update of either learner; with the next batch of its own."""
    found = {}
    for kind in (KERNEL, NUMPY):
        NumpyStep.pays = staticmethod(lambda *_, kind=kind: kind == NUMPY)
        optimizer = mx.optimizer.create(name.split()[0], **OPTIMIZERS[name])
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        data, _ = next(batches(network))
        # one rank waits for its updates if it clips
        options = UpdateOptions(clip_norm=1e9)
        learner = Learner(build(network), loss, optimizer, world, shards=world.size, sample=data[:2], options=options)
        found[kind] = updates(learner, batches(network), SHAPES[network][1] * world.size, rates)
    return found


def updates(learner: Learner, source: Any, size: int, rates: list[float]) -> Callable[[], None]:
    """A function that does the next update."""
    done = [0]

    def update() -> None:
        done[0] += 1
        data, label = (np.array(one) for one in next(source))
        batch = GlobalBatch(done[0], (Batch(learner.world.rank, data, label),), size)
        learner.update(batch, rates[done[0] % len(rates)])
        mx.nd.waitall()

    return update


def steps(network: str, name: str) -> dict[str, Callable[[], None]]:
    """The step alone, of weights whose gradients are there."""
    found = {}
    for kind in (KERNEL, NUMPY):
        net = build(network)
        with mx.autograd.record():
            losses = net(mx.nd.ones((2, *SHAPES[network][0])))
        losses.backward()
        trainable = {key: one for key, one in parameters_of(net).items() if one.grad_req != "null"}
        NumpyStep.pays = staticmethod(lambda *_, kind=kind: kind == NUMPY)
        optimizer = mx.optimizer.create(name.split()[0], **OPTIMIZERS[name])
        step = OptimizerStep(optimizer, trainable, synchronous=True)

        def call(step: OptimizerStep = step) -> None:
            step.step(1, 1e-5, None, 64.0)
            mx.nd.waitall()

        found[kind] = call
    return found


def measure(calls: dict[str, Callable[[], None]], turn: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of a call by clock, a number a round."""
    found: dict[str, dict[str, list[float]]] = {clock: {kind: [] for kind in calls} for clock in CLOCKS}
    for number in range(rounds + 1):
        for kind in list(calls)[:: 1 if number % 2 else -1]:
            begun = {clock: now() for clock, now in CLOCKS.items()}
            for _ in range(turn):
                calls[kind]()
            if number:  # the first round warms up
                for clock, now in CLOCKS.items():
                    found[clock][kind].append(1000 * (now() - begun[clock]) / turn)
    return found


def rank(options: argparse.Namespace, names: list[str]) -> None:
    """What a rank does; rank 0 writes what it measured."""
    network, rounds = options.network, options.rounds
    world = connect("mpi") if options.np == "2" else SingleWorld()
    rates = RATES[:1] if options.constant else RATES
    RULES.update(CANDIDATES)
    found = {}
    for name in names:
        step = measure(steps(network, name), TURNS[network], rounds)
        update = measure(learners(network, name, world, rates), TURNS[network], rounds)
        found[name] = {"step": step["CPU"], "update, CPU": update["CPU"], "update, wall": update["wall"]}
        if world.rank == 0:
            print("\n".join(table({name: found[name]})[2:]), flush=True)
    if world.rank == 0:
        options.rank.write_text(json.dumps(found, indent=1))
    world.close()


def table(found: dict[str, dict[str, dict[str, list[float]]]]) -> list[str]:
    """Rows of Markdown: the fastest rounds of both, and how many times as fast NumPy's is, with quartiles."""
    kinds = list(next(iter(found.values())))
    rows = ["| | " + " | ".join(f"{kind}: kernel, NumPy, ms | ratio (quartiles)" for kind in kinds) + " |"]
    rows.append("|---|" + "---|---|" * len(kinds))
    for name, measured in found.items():
        cells = []
        for times in measured.values():
            ratios = [kernel / by_numpy for kernel, by_numpy in zip(times[KERNEL], times[NUMPY], strict=True)]
            cells += [f"{min(times[KERNEL]):.1f}, {min(times[NUMPY]):.1f}", shown(ratios)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=TURNS, default="resnet18_v2")
    parser.add_argument("--np", choices=["1", "2"], default="2")
    parser.add_argument("--constant", action="store_true", help="the same learning rate in every update")
    parser.add_argument("--only", default="", metavar="REGEX", help="only optimizers whose name has it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [name for name in OPTIMIZERS if re.search(options.only, name)]
    if options.rank:
        rank(options, names)
        return
    found = found_by_ranks(options.np)
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
