#!/usr/bin/env python
"""The peak memory of a rank of the harness, against the bare Gluon loop's, in MB of resident pages.

python benchmarks/memory.py [--networks lenet resnet18_v2] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from contenders import SHAPES
from speed import BIN, MARKS, Contender, harness, loop, prepared

PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
if done.returncode:
    raise SystemExit(done.stdout[-2000:] + done.stderr[-3000:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_mb(contender: Contender, network: str) -> float:
    """The largest process of a job."""
    with tempfile.TemporaryDirectory() as folder:
        command, environ = prepared(contender, network, "in_memory", folder, iterations=3 * MARKS[network])
        run = [sys.executable, "-c", PEAK, *command]
        done = subprocess.run(run, env=environ, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout) * 1024 / 1e6


def gradients_mb(network: str) -> float:
    """What the gradients take."""
    import mxnet as mx

    from harness.model.networks import build_network

    net = build_network(network, {}, 10)
    net.initialize()
    net(mx.nd.zeros((1, *SHAPES[network][0])))
    return (
        sum(parameter.data().size * 4 for parameter in net.collect_params().values() if parameter.grad_req != "null")
        / 1e6
    )


def table(found: dict[str, dict[str, float]]) -> list[str]:
    """Rows of Markdown."""
    names = list(next(iter(found.values())))
    rows = ["| peak, MB | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    return rows + [
        f"| {name} | " + " | ".join(f"{peaks[one]:.0f}" for one in names) + " |" for name, peaks in found.items()
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["lenet", "resnet18_v2"], choices=MARKS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    contenders = {
        "bare Gluon": Contender(loop("gluon", [])),
        "harness": Contender(harness([])),
        "harness, 2 ranks": Contender(harness([str(BIN / "mpirun"), "-np", "2"]), 2),
    }
    found = {}
    for network in options.networks:
        peaks = {
            name: statistics.median(peak_mb(contender, network) for _ in range(options.rounds))
            for name, contender in contenders.items()
        }
        found[network] = {**peaks, "allowed": peaks["bare Gluon"] + 80 + 2 * gradients_mb(network)}
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
