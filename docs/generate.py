#!/usr/bin/env python
"""Write what `docs/` and `configs/` generate from code: `python docs/generate.py`. A test checks that it is current."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import gallery
from matplotlib import rc_context

from harness.config import load_config
from harness.config.schema import json_schema, reference
from harness.plan import LRPlan, Sizes
from harness.report import NamedPlan, plot_plans

ROOT = Path(__file__).parents[1]
CONFIGURATION = """# Configuration

One YAML file describes a run, and `--set key.path=value` overrides any part of it. This page lists every key; the
[README](../README.md) explains how they work together. All mistakes in a file are reported at once, each with its key
and how to fix it.

`--config` takes a file, or the name of one: `--config digits` is a file `digits` or `digits.yaml` if there is one, else
`configs/digits.yaml` in the working directory, else the configuration of that name that ships with the harness.

Editors that support JSON Schema complete and check the files as you type: those in `configs/` begin with
`# yaml-language-server: $schema=schema.json`, and `python launch/train.py --print-schema` prints the schema for files
elsewhere.

- A *length* is `5ep` (epochs), `500it` (iterations), `1e6sa` (samples), `3e9tok` (tokens) or `10%` (of the run; inside
  a schedule, of the schedule's own span). Samples count on the average of an epoch; neither they nor tokens go with
  batches of your own, which may have any number of them.
- A *learning rate* is a plain number, which is final, or `Nx`: N times the scaled base.
- The description says what `null` means.
- Your own *module:function* is looked up in the working directory first, then on Python's path.

"""


def files() -> dict[Path, str]:
    """Every generated file, with its content."""
    return {
        ROOT / "configs/schema.json": json_schema(),
        ROOT / "docs/configuration.md": CONFIGURATION + reference(),
        ROOT / "docs/migrating.md": migrating(),
        ROOT / "docs/schedules.md": gallery.page(),
    }


def scaling_plans() -> list[NamedPlan]:
    """The worked example of `scaling.md`: one configuration on 1, 2, 4 and 8 workers."""
    config = load_config(ROOT / "configs/cifar10_resnet18.yaml")
    plans = []
    for workers in (1, 2, 4, 8):
        sizes = Sizes.of(config.train, num_samples=50_000, shards=workers, batch_size=config.batch.size)
        plan = LRPlan(config.lr, sizes)
        plans.append(NamedPlan(f"np {workers}, peak {plan.peak:g}", plan))
    return plans


def draw(folder: Path) -> list[str]:
    """Draw every picture into a folder laid out like `docs/`, and return the paths within it.

    Pictures are reproducible to the byte, and their text stays text.
    """
    pictures = gallery.pictures() | {"scaling.svg": scaling_plans()}
    with rc_context({"svg.hashsalt": "harness", "svg.fonttype": "none"}):
        for path, plans in pictures.items():
            (folder / path).parent.mkdir(exist_ok=True)
            plot_plans(plans, folder / path, "", size=(6.4, 2.2))
    return list(pictures)


def migrating() -> str:
    """The page on migrating, with the current difference between the two scripts."""
    page = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")
    scripts = [ROOT / f"examples/migrate/{name}.py" for name in ("before", "after")]
    lines = [script.read_text(encoding="utf-8").splitlines() for script in scripts]
    names = [script.name for script in scripts]
    difference = "\n".join(difflib.unified_diff(*lines, *names, lineterm="", n=2))
    return re.sub(r"(?s)(?<=```diff\n).*?(?=```)", lambda _: f"{difference}\n", page)


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    for path in draw(ROOT / "docs"):
        print(f"docs/{path}")
