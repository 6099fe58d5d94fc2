#!/usr/bin/env python
"""Is the suggestion any good? Each rule's learning rate against a grid of ten, by what three epochs of 1cycle reach.

For each workload: five sweeps with five seeds; ten learning rates, and each rule's median suggestion, trained for three
epochs of 1cycle up to that rate, once for each of `--seeds` seeds. Writes a table and a picture.

    OMP_NUM_THREADS=1 python benchmarks/finder.py --data ../shared/data --output finder-benchmark digits fashion resnet
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
ONE_CYCLE = (
    "lr.schedule={one_cycle: {start_lr: 0.1x, max_lr: 1x, cycle_length: 80%, cooldown_length: 20%, finish_lr: 0.001x}}"
)
WORKLOADS = {
    "digits": ("configs/digits.yaml", None, (), (0.01, 3.0)),
    "fashion": ("configs/fashion_mnist_cnn.yaml", "fashion-mnist", (), (0.003, 1.0)),
    "resnet": (
        "configs/cifar10_resnet18.yaml",
        "cifar10-sample",
        ("batch.size=128", "network.params={thumbnail: false}"),
        (0.01, 3.0),
    ),
}
NUM_SWEEPS, NUM_RATES = 5, 10


def run(script: str, config: str, settings: list[str], output: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the project."""
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, str(ROOT / "launch" / script), "--config", str(ROOT / config), *words]
    return subprocess.run(
        [*command, *(["--output", str(output)] if script == "find_lr.py" else [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def accuracy(config: str, settings: list[str], lr: float, seed: int, folder: Path) -> float:
    """Test accuracy after three epochs of 1cycle up to `lr`; 0 for a run that diverged."""
    name = f"{lr!r}-{seed}"
    more = [
        ONE_CYCLE,
        "lr.warmup=null",
        f"lr.base={lr!r}",
        "train={epochs: 3}",
        "evaluation.every=null",
        "checkpoint.every=null",
    ]
    done = run("train.py", config, [*settings, *more, f"seed={seed}", f"output={folder}", f"name=run-{name}"], folder)
    if done.returncode == 6:
        return 0.0
    if done.returncode:
        sys.exit(done.stderr)
    lines = (folder / f"run-{name}" / "metrics.jsonl").read_text().splitlines()
    return float([line["accuracy"] for line in map(json.loads, lines) if line["split"] == "test"][-1])


def measure(workload: str, data: Path | None, seeds: int, folder: Path) -> dict:
    """Suggestions by rule and seed, and accuracies by learning rate."""
    config, subfolder, more, (low, high) = WORKLOADS[workload]
    settings = [*more, *([f"data.root={data / subfolder}"] if subfolder and data else [])]
    suggestions: dict[str, list[float]] = {}
    refused = []
    for seed in range(NUM_SWEEPS):
        out = folder / f"sweep-{seed}"
        done = run("find_lr.py", config, [*settings, f"seed={seed}", f"output={folder}"], out)
        if done.returncode not in (0, 8):
            sys.exit(done.stderr)
        said = json.loads((out / "result.json").read_text())["suggestion"]
        refused += [] if said["refusal"] is None else [said["refusal"]["reason"]]
        for rule, lr in said["rules"].items():
            if lr is not None:
                suggestions.setdefault(rule, []).append(lr)
    rates = [low * (high / low) ** (k / (NUM_RATES - 1)) for k in range(NUM_RATES)]
    rates += [statistics.median(values) for values in suggestions.values()]
    rates = list(dict.fromkeys(rates))  # two rules may have said the same
    scores = {lr: [accuracy(config, settings, lr, seed, folder) for seed in range(seeds)] for lr in rates}
    return {"suggestions": suggestions, "refused": refused, "scores": scores, "num_grid": NUM_RATES}


def show(workload: str, found: dict, output: Path) -> None:
    """Print the table and draw the picture."""
    means = {lr: statistics.mean(values) for lr, values in found["scores"].items()}
    grid = dict(list(means.items())[: found["num_grid"]])
    best = max(grid, key=grid.__getitem__)
    lines = [
        f"{workload}: best of the grid {grid[best]:.4f} at {best:.3g}; refused {len(found['refused'])} of {NUM_SWEEPS}"
    ]
    lines += [f"  grid  {lr:8.4g}  {score:.4f}" for lr, score in grid.items()]
    for rule, values in found["suggestions"].items():
        middle = statistics.median(values)
        lines.append(
            f"  {rule:14} {middle:8.4g}  {means[middle]:.4f}  {100 * (means[middle] - grid[best]):+.2f} points, "
            f"spread {max(values) / min(values):.2f} over {len(values)} seeds"
        )
    text = "\n".join([*lines, *(f"  refused: {reason}" for reason in found["refused"])])
    print(text, flush=True)
    (output / f"{workload}.txt").write_text(text + "\n")
    (output / f"{workload}.json").write_text(json.dumps({**found, "scores": list(found["scores"].items())}))
    figure = Figure(figsize=(8, 4), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.semilogx(list(grid), list(grid.values()), "o-", color="#1f5fa8", label="grid")
    for (rule, values), marker in zip(found["suggestions"].items(), "vosD", strict=False):
        middle = statistics.median(values)
        axes.plot([middle], [means[middle]], marker, markersize=9, label=rule)
        axes.axvspan(min(values), max(values), alpha=0.08)
    scores = [score for score in means.values() if score > 0.2] or [0.0]
    axes.set_ylim(max(0, min(scores) - 0.02), max(scores) + 0.01)
    axes.set_xlabel("max_lr of 1cycle")
    axes.set_ylabel("test accuracy after 3 epochs")
    axes.set_title(workload)
    axes.legend(fontsize=8)
    axes.grid(linewidth=0.4, alpha=0.5)
    figure.savefig(output / f"{workload}.png", metadata={"Software": None})


def main() -> None:
    """Measure the workloads asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="+", choices=list(WORKLOADS))
    parser.add_argument("--data", type=Path, help="the folder with fashion-mnist/ and cifar10-sample/")
    parser.add_argument("--seeds", type=int, default=1, help="runs for each learning rate")
    parser.add_argument("--output", type=Path, default=Path("finder-benchmark"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for workload in options.workloads:
        with tempfile.TemporaryDirectory() as folder:
            data = None if options.data is None else options.data.resolve()
            show(workload, measure(workload, data, options.seeds, Path(folder)), options.output)


if __name__ == "__main__":
    main()
