#!/usr/bin/env python
"""How long ranks take to sum an array: the fold of the harness against MPI_Allreduce of the same library.

Both sum the same memory in place, in turns, within one job. A time is that of the slowest rank, from a common start; a
ratio is taken within a turn, and what counts is its lower quartile.

After a few calls MPICH 5 goes over to an Allreduce that spins in shared memory. With more ranks than cores a single one
of 44 MB then took 42 s, so there it is told not to; with fewer it is measured both ways.

    python benchmarks/fold.py [--np 2 4] [--megabytes 44 0.7] [--rounds 30] [--json FILE]
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
from itertools import product
from pathlib import Path
from typing import Any

from speed import BIN, shown


def measure(megabytes: float, rounds: int) -> None:
    """Print the seconds of both in every round, on rank 0; runs under mpirun."""
    from harness.comm import connect
    from harness.comm.tree import assign
    from harness.gluon.gradient_buffer import Buffer

    world = connect("mpi", device="cpu")
    from mpi4py import MPI  # once the world has chosen its library

    comm = MPI.COMM_WORLD
    buffer = Buffer(int(megabytes * 1e6 / 4))
    array = buffer.host
    assert array is not None
    own = assign(world.size, world.size)
    repeats = max(1, int(20 / megabytes))

    def fold() -> None:
        world.sum_parts([buffer], own, "fold")

    def allreduce() -> None:
        comm.Allreduce(MPI.IN_PLACE, array, op=MPI.SUM)

    def seconds(call: Callable[[], None]) -> float:
        array.fill(1)
        comm.Barrier()
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        return float(comm.allreduce(time.perf_counter() - began, op=MPI.MAX)) / repeats

    calls = {"fold": fold, "allreduce": allreduce}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):  # the first two warm up
        for name in list(calls)[:: 1 if number % 2 else -1]:
            taken = seconds(calls[name])
            if number >= 2:
                found[name].append(taken)
    if world.rank == 0:
        print(json.dumps({"kind": world.kind, "np": world.size, "megabytes": megabytes, "seconds": found}), flush=True)


def table(found: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown."""
    rows = ["| ranks | MB | MPICH | fold, ms | MPI_Allreduce, ms | ratio (quartiles) |", "|---|---|---|---|---|---|"]
    for one in found:
        ours, theirs = one["seconds"]["fold"], one["seconds"]["allreduce"]
        medians = [f"{1000 * statistics.median(values):.2f}" for values in (ours, theirs)]
        ratios = shown([b / a for a, b in zip(ours, theirs, strict=True)])
        mode = "may spin" if one["spins"] else "may not"
        rows.append(f"| {one['np']} | {one['megabytes']:g} | {mode} | {medians[0]} | {medians[1]} | {ratios} |")
    return rows


def main() -> None:
    """Start the jobs, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--np", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[44, 0.7])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rank-of", type=float, metavar="MEGABYTES", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of:
        measure(options.rank_of, options.rounds)
        return
    found = []
    for np_, megabytes, spins in product(options.np, options.megabytes, (True, False)):
        if not spins or np_ <= (os.cpu_count() or 1):
            own = [sys.executable, __file__, "--rank-of", str(megabytes), "--rounds", str(options.rounds)]
            environ = {**os.environ, "OMP_NUM_THREADS": "1"}
            if not spins:
                environ["MPIR_CVAR_ALLREDUCE_POSIX_INTRA_ALGORITHM"] = "mpir"
            command = [str(BIN / "mpirun"), "-np", str(np_), *own]
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=900)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
            found.append({**json.loads(done.stdout.strip().splitlines()[-1]), "spins": spins})
            print("\n".join(table(found)[-1:] if len(found) > 1 else table(found)), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
