#!/usr/bin/env python
"""Every figure of docs/performance.md: runs what is missing in a folder of results, then writes tables and picture.

    python benchmarks/everything.py [--results benchmarks/results] [--write-only]

Leave the machine alone meanwhile; it takes more than an hour on two cores. Delete a result to have it measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import elastic
import embedding
import fold
import memory
import optimizers
import pictures
import rewriting
import schedules
import speed

HERE = Path(__file__).parent
PAGE, PICTURE = HERE.parent / "docs/performance.md", HERE.parent / "docs/performance.png"
BEGIN, END = "<!-- tables: written by benchmarks/everything.py -->", "<!-- end of tables -->"
PARTS: dict[str, tuple[str, list[str], Any]] = {
    "lenet-1": ("LeNet, one process, arrays in memory", ["speed.py", "--np", "1"], speed),
    "lenet-pipeline": ("LeNet, one process, the whole pipeline", ["speed.py", "--np", "pipeline"], speed),
    "lenet-2": ("LeNet, two ranks", ["speed.py", "--np", "2"], speed),
    "lenet-crowd": ("LeNet, more ranks than cores", ["speed.py", "--np", "crowd"], speed),
    "resnet18-2": ("ResNet-18, two ranks", ["speed.py", "--np", "2", "--network", "resnet18_v2"], speed),
    "rewriting": ("Rewritten graphs", ["rewriting.py"], rewriting),
    "fold": ("The sum over ranks", ["fold.py"], fold),
    "schedules": ("Learning rates", ["schedules.py"], schedules),
    "optimizers-resnet18": ("Steps on the host, ResNet-18", ["optimizers.py", "--network", "resnet18_v2"], optimizers),
    "optimizers-lenet": ("Steps on the host, LeNet", ["optimizers.py", "--network", "lenet"], optimizers),
    "embedding": ("Embeddings", ["embedding.py"], embedding),
    "pictures": ("Pictures from records, of one thread", ["pictures.py"], pictures),
    "pictures-updates": ("Updates from records and from memory", ["pictures.py", "--steps"], pictures),
    "elastic": ("Workers that come and go", ["elastic.py"], elastic),
    "elastic-link": (
        "Workers that come and go, by a link of 1 Gbit/s that they share",
        ["elastic.py", "--networks", "resnet18_v2", "--rounds", "3", "--link", "1000"],
        elastic,
    ),
    "memory": ("Memory", ["memory.py"], memory),
}


def write_page(found: dict[str, Any]) -> None:
    """Put the tables where the old ones were."""
    lines = [BEGIN]
    for name, result in found.items():
        title, command, module = PARTS[name]
        lines += ["", f"### {title}", "", f"`python benchmarks/{' '.join(command)}`", "", *module.table(result)]
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(before + "\n".join([*lines, "", END]) + after)


def draw(found: dict[str, Any]) -> None:
    """Images a second of every contender, as bars with their quartiles."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in found if PARTS[name][2] is speed and "crowd" not in name]
    figure, axes = plt.subplots(
        len(names),
        1,
        figsize=(8, 0.5 + 0.35 * sum(len(found[name]) + 2 for name in names)),
        height_ratios=[len(found[name]) + 1 for name in names],
        constrained_layout=True,
    )
    for name, axis in zip(names, axes, strict=True):
        rates = found[name]
        quartiles = [statistics.quantiles(values, n=4, method="inclusive") for values in rates.values()]
        errors = [[m - low for low, m, _ in quartiles], [high - m for _, m, high in quartiles]]
        colours = ["#2b6cb0" if one.startswith("harness") else "#a0aec0" for one in rates]
        axis.barh(list(rates), [m for _, m, _ in quartiles], xerr=errors, color=colours, ecolor="#1a202c", capsize=2)
        axis.invert_yaxis()
        axis.set_title(PARTS[name][0], loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("images a second (median, quartiles)")
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


def main() -> None:
    """Measure what is missing, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="DIR")
    parser.add_argument("--write-only", action="store_true", help="measure nothing")
    options = parser.parse_args()
    options.results.mkdir(exist_ok=True)
    found = {}
    for name, (title, command, _) in PARTS.items():
        file = options.results / f"{name}.json"
        if not file.exists() and not options.write_only:
            print(f"== {title}", flush=True)
            subprocess.run([sys.executable, HERE / command[0], *command[1:], "--json", file], check=True)
        if file.exists():
            found[name] = json.loads(file.read_text())
    write_page(found)
    draw(found)


if __name__ == "__main__":
    main()
