"""A hook that records a run in Weights & Biases: `hooks: [harness.hooks.wandb:track]`.

It works offline, and `wandb sync` uploads what it wrote, unless `WANDB_MODE` says otherwise; `WANDB_PROJECT` and the
other variables of W&B hold as well. Every attempt of a run continues the same record, whose id is kept in the run's
folder.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

import wandb

from harness.files import replace_file
from harness.hooks.events import Amended, Ended, Evaluated, Event, Logged, Opened, Saved, WorldChanged

_ID = "wandb-run.txt"


def track(event: Event) -> None:
    """Record an event: settings, numbers by iteration, decisions and the end in the summary."""
    if isinstance(event, Opened):
        _open(event)
    elif isinstance(event, Logged) and event.line.split == "train":
        lr = {} if event.line.lr is None else {"lr": event.line.lr}
        _log(event, {**lr, **{f"train/{name}": value for name, value in event.line.values.items()}})
    elif isinstance(event, Evaluated):
        _log(event, {f"{line.split}/{name}": value for line in event.lines for name, value in line.values.items()})
    elif isinstance(event, WorldChanged):
        _log(event, {"workers": event.after})
    elif isinstance(event, Saved):
        wandb.run.summary["checkpoint"] = str(event.checkpoint)
    elif isinstance(event, Amended):
        wandb.run.summary[f"amended/{event.iteration}"] = event.amendment.to_json()
    elif isinstance(event, Ended):
        wandb.run.summary["cause"] = event.outcome.cause
        wandb.finish(exit_code=0 if event.outcome.exit_code in (0, 75) else event.outcome.exit_code)


def _open(event: Opened) -> None:
    """Continue the record of this run's folder, or begin one."""
    path = event.folder / _ID
    if not path.is_file():
        replace_file(path, f"{secrets.token_hex(4)}\n")
    wandb.init(
        id=path.read_text(encoding="utf-8").strip(),
        name=event.name,
        config={**event.config, "workers": event.start.ranks, "data_fingerprint": event.start.data},
        dir=os.environ.get("WANDB_DIR", str(event.folder)),
        mode=os.environ.get("WANDB_MODE", "offline"),
        resume="allow",
        settings=wandb.Settings(console="off"),  # the terminal belongs to the run
    )
    wandb.define_metric("*", step_metric="iteration")  # W&B's own step may not go back, and a rewind does


def _log(event: Event, values: dict[str, Any]) -> None:
    wandb.log({**values, "iteration": event.iteration})
