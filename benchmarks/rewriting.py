#!/usr/bin/env python
"""What rewriting a graph gains: forward and backward of one process, with graphs as networks give them and rewritten.

A row is a network of convolutions of one size, each with ReLU (batch normalisation before it, if told) and a pooling;
and the MNIST tutorials' two. What is compared runs in turns of a few iterations within one process.

    python benchmarks/rewriting.py [--block N] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mxnet as mx
from mxnet.gluon import nn
from speed import shown

from harness.gluon.rewriting import channel_block, rewrite
from harness.model.networks import build_network

CHANNELS = [(10, 20), (16, 32), (17, 17), (20, 40), (24, 48), (40, 80), (100, 100)]
TURN = 6  # iterations


def convolutions(channels: tuple[int, ...], *, normalise: bool) -> nn.HybridSequential:
    """3x3 convolutions, each with ReLU and a pooling."""
    net = nn.HybridSequential()
    for number in channels:
        net.add(nn.Conv2D(number, 3))
        if normalise:
            net.add(nn.BatchNorm())
        net.add(nn.Activation("relu"), nn.MaxPool2D())
    net.add(nn.Flatten(), nn.Dense(10))
    return net


def networks() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Networks and the shape of a sample by name."""
    found = {name: (build_network(name, {}, 10), (1, 28, 28)) for name in ("lenet", "mnist_cnn")}
    for channels in CHANNELS:
        found[f"channels {channels[0]}, {channels[1]}"] = (convolutions(channels, normalise=False), (3, 32, 32))
    found["channels 20, 40, batch norm"] = (convolutions((20, 40), normalise=True), (3, 32, 32))
    return found


def measure(net: Any, shape: tuple[int, ...], block: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of forward and backward of 64 samples, by graph, a number a round."""
    mx.random.seed(0)
    net.initialize(mx.init.Xavier())
    data = mx.nd.random.uniform(shape=(64, *shape))
    net(data)
    parameters = net.collect_params()
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    symbol = net(mx.sym.var("data"))
    graphs = {"as it is": symbol, "pooling first": rewrite(symbol, shapes), "padded": rewrite(symbol, shapes, block)}
    calls = {}
    for name, graph in graphs.items():
        call = mx.nd.CachedOp(mx.sym.sum(graph**2, axis=1), [("static_alloc", True)])
        calls[name] = call, [data if one == "data" else parameters[one].data() for one in graph.list_inputs()]

    def turn(name: str) -> float:
        call, arguments = calls[name]
        begun = time.perf_counter()
        for _ in range(TURN):
            with mx.autograd.record():
                losses = call(*arguments)
            losses.backward()
            mx.nd.waitall()
        return 1000 * (time.perf_counter() - begun) / TURN

    for name in calls:
        turn(name)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in calls:
            found[name].append(turn(name))
    return found


def table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Rows of Markdown: the graph's own time, and how many times as fast the others are."""
    rows = ["| | as it is, ms (quartiles) | pooling first | padded as well |", "|---|---|---|---|"]
    for name, times in found.items():
        plain, *others = times.values()
        gains = [shown([a / b for a, b in zip(plain, other, strict=True)]) for other in others]
        rows.append(f"| {name} | {' | '.join([shown(plain), *gains])} |")
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", type=int, default=channel_block(), help="to pad to; by default that of this CPU")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = {name: measure(net, shape, options.block, options.rounds) for name, (net, shape) in networks().items()}
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
