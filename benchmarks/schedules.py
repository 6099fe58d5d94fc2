#!/usr/bin/env python
"""What a learning rate costs: a call, and ten million iterations at once, for every configuration in `configs/`.

python benchmarks/schedules.py [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from harness.config import load_config
from harness.plan import LRPlan
from harness.sizes import Sizes

ROOT = Path(__file__).parents[1]
MANY, CALLS = 10_000_000, 100_000


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = {}
    iterations = np.arange(1, MANY + 1)
    some = np.random.default_rng(0).integers(1, MANY + 1, CALLS)
    print(
        "| configuration | a call, us (quartiles) | 10 million at once, s (quartiles) | same bits |\n|---|---|---|---|"
    )
    for path in sorted(ROOT.glob("configs/*.yaml")):
        config = load_config(str(path), [f"train={{iterations: {MANY}}}"])
        plan = LRPlan(config.lr, Sizes.of(config.train, num_samples=MANY // 10, shards=1, batch_size=1))
        calls, many = [], []
        for _ in range(options.rounds):
            began = time.perf_counter()
            for t in some.tolist():
                plan.lr(t)
            calls.append(1e6 * (time.perf_counter() - began) / CALLS)
            began = time.perf_counter()
            values = plan.lrs(iterations)
            many.append(time.perf_counter() - began)
        same = [plan.lr(t) for t in some.tolist()] == values[some - 1].tolist()
        found[path.stem] = {"call_us": calls, "many_s": many, "same": same}
        cells = []
        for numbers, digits in ((calls, 2), (many, 2)):
            low, middle, high = statistics.quantiles(numbers, n=4, method="inclusive")
            cells.append(f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        print(f"| {path.stem} | {' | '.join(cells)} | {'yes' if same else 'NO'} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
