"""A run's folder: who may write there, and what is in it from the start."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TextIO

from harness.config import RunConfig, dump_config
from harness.errors import ConfigError
from harness.plan import LRPlan
from harness.report.plots import plot_plan


def claim_folder(folder: Path, overwrite: bool) -> None:
    """Make a run's folder; one that is there already is moved aside with `overwrite` and refused without.

    Raises:
        ConfigError: if it exists, or cannot be made.
    """
    if folder.exists() and not overwrite:
        raise ConfigError(
            f"{folder} already holds a run; move it aside with --overwrite, or choose another --set name=..."
        )
    try:
        if folder.exists():
            number = next(n for n in range(1, 1_000_000) if not folder.with_name(f"{folder.name}.{n}").exists())
            folder.rename(folder.with_name(f"{folder.name}.{number}"))
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be made ({error.strerror}); set output to a folder that can be written"
        ) from None


def write_plan(folder: Path, config: RunConfig, plan: LRPlan) -> None:
    """Write `config.yaml` (resolved), `plan.csv` and `plan.png`."""
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    (folder / "plan.csv").write_text(plan.to_csv(), encoding="utf-8")
    plot_plan(plan, folder / "plan.png", title=config.run_name)


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, in the order of iterations, flushed at every line."""

    def __init__(self, path: Path) -> None:
        """Open the file for a new run."""
        self._file: TextIO = path.open("w", encoding="utf-8")

    def write(self, record: Mapping[str, object]) -> None:
        """Append one record; the clock (seconds since 1970) is added to it."""
        self._file.write(json.dumps({**record, "time": round(time.time(), 3)}) + "\n")
        self._file.flush()

    def __enter__(self) -> MetricsFile:
        """The file, open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, with everything on disk."""
        os.fsync(self._file.fileno())
        self._file.close()
