#!/usr/bin/env python
"""What a learning rate costs: a call, and ten million iterations at once, for every configuration in `configs/`.

python benchmarks/schedules.py [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from speed import shown

from harness.config import load_config
from harness.plan import LRPlan, Sizes

ROOT = Path(__file__).parents[1]
MANY, CALLS = 10_000_000, 100_000


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Rows of Markdown."""
    rows = ["| configuration | a call, us (quartiles) | 10 million at once, s | same bits |", "|---|---|---|---|"]
    for name, one in found.items():
        rows.append(f"| {name} | {shown(one['call_us'])} | {shown(one['many_s'])} | {'yes' if one['same'] else 'NO'} |")
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = {}
    iterations = np.arange(1, MANY + 1)
    some = np.random.default_rng(0).integers(1, MANY + 1, CALLS)
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
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
