"""A hook that records a run in MLflow: `hooks: [harness.hooks.mlflow:track]`.

MLflow's own environment says where: `MLFLOW_TRACKING_URI` (`file:mlruns` for a folder), `MLFLOW_EXPERIMENT_NAME`. Every
attempt of a run continues the same record, whose id is kept in the run's folder.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from harness.files import replace_file
from harness.hooks.events import Amended, Ended, Evaluated, Event, Logged, Opened, Saved, WorldChanged
from harness.named import flat

_ID = "mlflow-run.txt"
_MOST_PARAMS, _LONGEST = 100, 500  # in one request; the characters of a value
_STATUS = {0: "FINISHED", 75: "KILLED"}


def track(event: Event) -> None:
    """Record an event: settings as parameters, numbers as metrics, decisions as tags, the report as an artifact."""
    if isinstance(event, Opened):
        _open(event)
    elif isinstance(event, Logged) and event.line.split == "train":
        lr = {} if event.line.lr is None else {"lr": event.line.lr}
        train = {f"train/{name}": value for name, value in event.line.values.items()}
        mlflow.log_metrics({**lr, **train}, step=event.iteration)
    elif isinstance(event, Evaluated):
        found = {f"{line.split}/{name}": value for line in event.lines for name, value in line.values.items()}
        mlflow.log_metrics({_safe(name): value for name, value in found.items()}, step=event.iteration)
    elif isinstance(event, Saved):
        mlflow.set_tag("checkpoint", str(event.checkpoint))
    elif isinstance(event, Amended):
        mlflow.set_tag(f"amended.{event.iteration}", json.dumps(event.amendment.to_json()))
    elif isinstance(event, WorldChanged):
        mlflow.set_tags({"workers": event.after, f"workers.{event.iteration}": f"{event.before} -> {event.after}"})
    elif isinstance(event, Ended):
        mlflow.set_tag("cause", event.outcome.cause)
        for name in ("report.html", "config.yaml", "metrics.jsonl"):
            if (event.folder / name).is_file():
                mlflow.log_artifact(str(event.folder / name))
        mlflow.end_run(_STATUS.get(event.outcome.exit_code, "FAILED"))


def _open(event: Opened) -> None:
    """Continue the record of this run's folder, or begin one."""
    path = event.folder / _ID
    with suppress(OSError, MlflowException):  # the first attempt, or one whose record was deleted
        mlflow.start_run(run_id=path.read_text(encoding="utf-8").strip())
        mlflow.set_tag("workers", event.start.ranks)
        return
    begun = mlflow.start_run(run_name=event.name, tags={"harness.folder": str(Path(event.folder).absolute())})
    replace_file(path, f"{begun.info.run_id}\n")
    mlflow.set_tags({"workers": event.start.ranks, "command": event.start.command, "data": event.start.data})
    params = [(_safe(name), str(value)[:_LONGEST]) for name, value in flat(event.config)]
    for first in range(0, len(params), _MOST_PARAMS):
        mlflow.log_params(dict(params[first : first + _MOST_PARAMS]))


def _safe(name: str) -> str:
    """A name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-./ ]", "_", name)
