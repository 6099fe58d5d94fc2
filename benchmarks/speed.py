#!/usr/bin/env python
"""How fast the harness trains, against the loops that people write: interleaved runs, medians, quartiles, ratios.

Every contender is a job of its own, started by its own launcher, on float32 arrays that lie in memory (`pipeline`: on
bytes that are shuffled and normalised; `crowd`: more and more ranks on the same cores). The first quarter of its
iterations warms up; its speed is the median of the other three, summed over its processes. In every round each
contender runs once, in another order; a ratio is taken within a round, and what counts is its lower quartile.

    python benchmarks/speed.py [--network lenet|mnist_cnn|resnet18_v2] [--np 1|2|4|8|pipeline|crowd] [--rounds 15]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from contenders import SHAPES, WINDOWS

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ITERATIONS = {"lenet": 240, "mnist_cnn": 480, "resnet18_v2": 40}


def loop(name: str, launcher: list[str]) -> list[str]:
    """The command of one of the usual loops."""
    return [*launcher, sys.executable, str(ROOT / "benchmarks/contenders.py"), name, "{network}", "{iterations}"]


def harness(launcher: list[str], *settings: str) -> list[str]:
    """The command of a run of the harness, as its users start it."""
    arguments = [
        "output={folder}",
        "name=run",
        "data={{name: 'contenders:{data}', params: {{network: {network}}}}}",
        "network={{name: {network}}}",
        "batch.size={size}",
        "train={{iterations: {iterations}}}",
        "log.every={window}it",
        "checkpoint={{every: null}}",
        "evaluation.every=null",
        "optimizer={{name: sgd, params: {{momentum: 0.9}}}}",
        "lr={{schedule: {{constant: {{lr: 0.01}}}}}}",
        *settings,
    ]
    return [
        *launcher,
        sys.executable,
        str(ROOT / "launch/train.py"),
        *[word for a in arguments for word in ("--set", a)],
    ]


def contenders(np: str) -> dict[str, list[str]]:
    """Commands by name; the first is the one that the others are compared with."""
    if np == "pipeline":
        normalised = "data.augment={{mean: [0.5], std: [0.25]}}"
        return {
            "harness": harness([], normalised),
            "DataLoader": loop("dataloader", []),
            "arithmetic alone": loop("computing", []),
        }
    if np == "crowd":
        return {f"harness, {ranks} ranks": harness([str(BIN / "mpirun"), "-np", ranks]) for ranks in ("8", "2")}
    if np == "1":
        return {"harness": harness([]), "bare Gluon": loop("gluon", [])}
    mpirun, horovodrun = [[str(BIN / name), "-np", np] for name in ("mpirun", "horovodrun")]
    found = {
        "harness, mpirun": harness(mpirun),
        "harness, horovodrun": harness(horovodrun),
        "hvd.DistributedTrainer": loop("horovod", horovodrun),
        "never talking": loop("gluon", mpirun),
        "no step": loop("summing", mpirun),
    }
    if importlib.util.find_spec("torch") is not None:
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={np}"]
        found["PyTorch DDP"] = [*run, *loop("torch", [])[1:]]
    return found


def prepared(command: list[str], network: str, data: str, folder: str, iterations: int) -> dict[str, Any]:
    """Command and environment of a job, as `subprocess.run` takes them."""
    values = {"network": network, "iterations": iterations, "folder": folder, "data": data}
    values |= {"size": SHAPES[network][1], "window": iterations // WINDOWS}
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "MASTER_PORT": "0"}
    environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"
    words = [word.format(**values) for word in command]
    return {"args": words, "env": environ, "capture_output": True, "text": True, "timeout": 900}


def speed(command: list[str], network: str, data: str, np: int) -> float:
    """Images a second of one job, all of its processes together."""
    iterations = ITERATIONS[network]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(**prepared(command, network, data, folder, iterations))
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        metrics = Path(folder, "run", "metrics.jsonl")
        if metrics.is_file():
            lines = [json.loads(line) for line in metrics.read_text().splitlines()]
            rates = [line["images_per_s"] for line in lines if line["iteration"] > iterations // WINDOWS]
            return statistics.median(rates)
    found = [statistics.median(json.loads(line)) for line in re.findall(r"RATES (\[.*?\])", done.stdout)]
    if len(found) != np:
        raise SystemExit(f"{len(found)} of {np} processes said how fast they were:\n{done.stdout[-3000:]}")
    return sum(found)


def shown(values: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def measure(network: str, np: str, rounds: int, only: str) -> dict[str, list[float]]:
    """Images a second of every contender, a number a round."""
    commands = {name: command for name, command in contenders(np).items() if only in name}
    found: dict[str, list[float]] = {name: [] for name in commands}
    data, ranks = "pictures" if np == "pipeline" else "in_memory", int(np) if np.isdigit() else 1
    for number in range(rounds):
        names = list(commands)
        random.Random(number).shuffle(names)
        for name in names:
            found[name].append(speed(commands[name], network, data, ranks))
        print(f"round {number + 1}: " + "  ".join(f"{name} {found[name][-1]:.0f}" for name in commands), flush=True)
    return found


def table(found: dict[str, list[float]]) -> list[str]:
    """Rows of Markdown: each contender's speed, and the ratio of every harness to it."""
    ours = [name for name in found if name.startswith("harness")]
    rows = ["| | images/s (median) | " + " | ".join(f"{name} / this (quartiles)" for name in ours) + " |"]
    rows.append("|---|---|" + "---|" * len(ours))
    for name, values in found.items():
        cells = []
        for own in ours:
            cells.append("" if own == name else shown([a / b for a, b in zip(found[own], values, strict=True)]))
        rows.append(f"| {name} | {statistics.median(values):.0f} | " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=ITERATIONS, default="lenet")
    parser.add_argument("--np", default="1", choices=["1", "2", "4", "8", "pipeline", "crowd"])
    parser.add_argument("--only", default="", metavar="WORD", help="only contenders whose name has it")
    parser.add_argument("--cores", type=int, metavar="N", help="let every contender have but N cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    found = measure(options.network, options.np, options.rounds, options.only)
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
