"""A run's folder: who may write there, and what is in it from the start."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from harness.config import RunConfig, dump_config
from harness.errors import ConfigError
from harness.folder import (
    ATTEMPTS,
    CURVE,
    FAILURES,
    MOST_PHASES,
    OUTCOME,
    PLAN,
    Amendment,
    Fields,
    Phase,
    PlannedSizes,
    PlanRecord,
    write_object,
)
from harness.plan import LRPlan
from harness.report.plots import plot_plan

_BEFORE_A_RUN = ("finder", ".lock", ATTEMPTS, OUTCOME, FAILURES, "report.html")  # also there without any update


class RunFolder:
    """The folder of one run, which one process at a time may write to.

    Attributes:
        path: where it lies.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is touched yet."""
        self.path = path
        self._lock: TextIO | None = None

    def lock(self) -> None:
        """Keep other processes out until this one ends, however it ends.

        Raises:
            ConfigError: if another process writes there, or the folder cannot be written.
        """
        if self._lock is not None:
            return
        try:
            lock = (self.path / ".lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be written ({error.strerror}); set output to a folder that can be"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            lock.close()
            raise ConfigError(
                f"{self.path}: {owner} is writing there; wait until it has ended, or choose another --set name=..."
            ) from None
        except OSError:
            pass  # a file system without locks: what keeps two jobs apart there is the batch system
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        self._lock = lock

    def claim(self, overwrite: bool) -> Path | None:
        """Make the folder for a new run; one that is there already is moved aside with `overwrite`.

        Returns:
            Where it was moved to, if it was there.

        Raises:
            ConfigError: if it exists, is in use, or cannot be made.
        """
        if self.path.is_dir() and all(path.name.startswith(_BEFORE_A_RUN) for path in self.path.iterdir()):
            self.lock()  # a finder was here, no run
            return None
        if self.path.exists() and not overwrite:
            raise ConfigError(
                f"{self.path} already holds a run; go on with it by --resume auto, move it aside with --overwrite, or "
                "choose another --set name=..."
            )
        moved = None
        try:
            if self.path.exists():
                if self.path.is_dir():
                    self.lock()
                    self.close()
                numbers = range(1, 1_000_000)
                names = (self.path.with_name(f"{self.path.name}.{number}") for number in numbers)
                moved = self.path.rename(next(name for name in names if not name.exists()))
            self.path.mkdir(parents=True)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be made ({error.strerror}); set output to a folder that can be written"
            ) from None
        self.lock()
        return moved

    def close(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def write_plan(folder: Path, config: RunConfig, plan: LRPlan, amendments: Sequence[Mapping[str, Any]]) -> None:
    """Write `config.yaml` (resolved), `plan.json`, `plan.csv` and `plan.png`.

    Args:
        folder: of the run.
        config: resolved.
        plan: of the run.
        amendments: what was changed in it on the way.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    phases = list(_phases(plan))
    record = PlanRecord(
        described=plan.describe(),
        sizes=PlannedSizes(**vars(plan.sizes)),
        phases=phases[:MOST_PHASES],
        num_phases=len(phases),
        remarks=plan.remarks(),
        amendments=[Amendment.read(Fields(amendment, f"amendments[{k}]")) for k, amendment in enumerate(amendments)],
    )
    try:
        (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        write_object(folder / PLAN, record.to_json())
        (folder / CURVE).write_text(plan.to_csv(config.optimizer.own_momentum), encoding="utf-8")
        plot_plan(plan, folder / "plan.png", title=config.run_name)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror or error}); make room, or set output to another folder"
        ) from None


def _phases(plan: LRPlan) -> Iterator[Phase]:
    """First and last iteration of every piece of the plan's formula, with the values there."""
    total = plan.sizes.num_iterations
    points = [t for t in plan.breakpoints() if t < total] or [1]
    starts = [t for t, following in zip(points, [*points[1:], total + 1], strict=True) if following > t + 1 or t == 1]
    for first, following in zip(starts, [*starts[1:], total + 1], strict=True):
        last = following - 1
        lr, momentum = (plan.lr(first), plan.lr(last)), (plan.momentum(first), plan.momentum(last))
        yield Phase(first, last, lr, momentum)
