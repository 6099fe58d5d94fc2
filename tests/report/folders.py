"""Made-up folders of runs, as a run would have left them."""

from __future__ import annotations

import json

from harness.config import parse_config
from harness.plan import PlateauCut, Rewind, Sizes, amended_plan
from harness.report import write_plan

BEGUN = {
    "attempt": "a",
    "began_at": 1.7e9,
    "after": 0,
    "from": None,
    "ranks": 2,
    "comm": "mpi",
    "host": "node-1",
    "command": "mpirun -np 2 python launch/train.py --config configs/x.yaml",
    "environment": {"mxnet": "1.9.1", "threads_per_rank": 1},
}
DONE = {"attempt": "a", "exit_code": 0, "cause": "done", "ended_at": 1.7e9 + 60}


def lines_of(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def trained(t, loss, **more):
    return {"split": "train", "iteration": t, "epoch": 1, "lr": 0.1, "momentum": 0.9, "loss": loss, **more}


def evaluated(t, loss, accuracy):
    return {"split": "test", "iteration": t, "epoch": 1, "lr": 0.1, "momentum": 0.9, "loss": loss, "accuracy": accuracy}


def make_run(parent, name="digits", metrics=(), attempts=(BEGUN,), outcome=DONE, amendments=(), base=0.1, **sections):
    """A run of 100 iterations with a warm-up of 10 and a drop after 60; every part but the plan may be left out."""
    folder = parent / name
    folder.mkdir()
    raw = {
        "name": None,
        "train": {"iterations": 100},
        "network": {"name": "mlp"},
        "lr": {
            "base": base,
            "warmup": {"length": "10it"},
            "schedule": {"multi_factor": {"base_lr": "1x", "step": ["50it"], "factor": 0.5}},
        },
        **sections,
    }
    config = parse_config(raw, f"{name}.yaml")
    sizes = Sizes.of(config.train, num_samples=800, shards=2, batch_size=16)
    cuts = [amendment for amendment in amendments if isinstance(amendment, Rewind | PlateauCut)]
    write_plan(folder, config, amended_plan(config, sizes, cuts), amendments)
    lines_of(folder / "metrics.jsonl", metrics)
    lines_of(folder / "attempts.jsonl", attempts)
    if outcome is not None:
        (folder / "outcome.json").write_text(json.dumps(outcome))
    return folder


def finder_result(lr=0.1, refusal=None, num_sweeps=1):
    """The content of a `result.json`: the loss falls, and rises again from a learning rate of 0.3 on."""
    rates = [1e-4 * 1.2**k for k in range(50)]
    points = [[rate, 2 / (1 + 50 * rate) + rate**2] for rate in rates]
    points[3][1] = None
    rules = {"steepest": 0.02, "valley": 0.05, "minimum_tenth": None, "edge": 0.1}
    sweep = {"stop": "the loss rose above its limit", "limit": 8.0, "probes": [], "points": points}
    return {
        "format": 1,
        "kind": "learning-rate finder",
        "suggestion": {
            "lr": lr,
            "low": 0.05,
            "high": 0.2,
            "rule": "edge",
            "rules": rules,
            "refusal": refusal,
            "begins": None if lr is None else 0.002,
        },
        "sweeps": [sweep] * num_sweeps,
        "proof": {"digest": "0123456789abcdef" * 4, "num_ranks": 2},
        "settings": {"sweep": {"lr_start": 1e-4}, "stop_rule": {"min_iter": 20}, "probes": 0, "repeats": num_sweeps},
        "provenance": {"global_batch": 64, "network": {"name": "mlp", "params": {"hidden": [64]}}},
        "use": {"role": "one_cycle", "scaling": None},
        "groups": [],
    }
