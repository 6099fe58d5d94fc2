"""The page of schedules and its pictures, made from `schedules/gallery.yaml`; called by `generate.py`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.config import LRConfig
from harness.data import Batching
from harness.plan import LRPlan, Sizes
from harness.report import NamedPlan
from harness.schedules.catalogue import CATALOGUE

DOCS = Path(__file__).parent
SIZES = Sizes(Batching(num_samples=3200, shards=1, batch_size=32), num_iterations=1000)
_INTRODUCTION = """# Schedules

<!-- made from docs/schedules/gallery.yaml by: python docs/generate.py -->

A schedule is a function of the iteration: `schedule(t)` is the learning rate that update `t` applies, counted from 1,
and `schedule(0)` is the value before training. Each picture here is drawn from the YAML beside it, over a run of ten
epochs of 100 iterations on one worker. In a formula, the first line whose condition holds applies.

Write lengths as `5ep` (epochs), `500it` (iterations), `1e6sa` (samples), `3e9tok` (tokens: `train.tokens_per_sample`
says how many are in a sample) or `10%`, and learning rates as plain numbers, which are final, or as multiples `Nx` of
the scaled base ([scaling.md](scaling.md)). In Python each schedule is a class of
`harness.schedules` with the same parameters, in iterations and plain numbers. To see yours, run
`python launch/plan.py --config FILE`. `tests/schedules/test_peers.py` compares them with 46 of PyTorch, transformers,
timm, optax, Composer, fastai and Keras, each with 20 random choices of settings, over 5,000 updates.

"""


@dataclass(frozen=True)
class Entry:
    """A schedule in the gallery.

    Attributes:
        title: its heading; the picture is named after it.
        what: one or two sentences.
        curves: the section `lr` as YAML, by the name of each curve (empty if there is only one).
        of: its name in the catalogue, if this entry explains it.
        formula: in Python.
        source: who invented it.
        code: a file in `docs/` to show.
    """

    title: str
    what: str
    curves: dict[str, str]
    of: str | None = None
    formula: str | None = None
    source: str | None = None
    code: str | None = None

    @property
    def anchor(self) -> str:
        """The heading's anchor at GitHub."""
        return self.title.lower().replace(" ", "-").replace(".", "")

    @property
    def picture(self) -> str:
        """The name of its picture."""
        return f"{self.anchor}.svg"

    def plans(self) -> list[NamedPlan]:
        """The plan of each curve."""
        sections = {name: LRConfig.model_validate(yaml.safe_load(text)["lr"]) for name, text in self.curves.items()}
        return [NamedPlan(name, LRPlan(section, SIZES)) for name, section in sections.items()]

    def section(self) -> str:
        """Its part of the page."""
        parts = [f"## {self.title}", self.what]
        if self.formula:
            parts.append(f"```text\n{self.formula}```")
        if self.of:
            parts.append(_parameters(self.of))
        if self.code:
            parts.append(f"```python\n{(DOCS / self.code).read_text(encoding='utf-8')}```")
        for name, text in self.curves.items():
            parts.append(f"{name}:\n\n```yaml\n{text}```" if name else f"```yaml\n{text}```")
        parts.append(f"![{self.title}: the learning rate over ten epochs](schedules/{self.picture})")
        if self.source:
            parts.append(f"Source: {self.source}.")
        return "\n\n".join(parts) + "\n"


def entries() -> list[Entry]:
    """Every entry of the gallery, in order."""
    raw: list[dict[str, Any]] = yaml.safe_load((DOCS / "schedules/gallery.yaml").read_text(encoding="utf-8"))
    return [Entry(curves=lr if isinstance(lr := one.pop("lr"), dict) else {"": lr}, **one) for one in raw]


def page() -> str:
    """`schedules.md`."""
    shown = entries()
    cells = [f"[![{one.title}](schedules/{one.picture})<br>{one.title}](#{one.anchor})" for one in shown]
    rows = [" | ".join(cells[begin : begin + 3]) for begin in range(0, len(cells), 3)]
    grid = "\n".join(f"| {row} |" for row in ["| |", ":-:|:-:|:-:", *rows])
    return _INTRODUCTION + grid + "\n\n" + "\n".join(one.section() for one in shown)


def pictures() -> dict[str, list[NamedPlan]]:
    """The plans in each picture, by its path in `docs/`."""
    return {f"schedules/{one.picture}": one.plans() for one in entries()}


def _parameters(name: str) -> str:
    shown = []
    for parameter in CATALOGUE[name].parameters:
        default = CATALOGUE[name].default(parameter)
        written = "null" if default is None else default
        shown.append(f"`{parameter}`" + ("" if default is inspect.Parameter.empty else f" = `{written}`"))
    return f"Parameters of `{name}`: {', '.join(shown)}."
