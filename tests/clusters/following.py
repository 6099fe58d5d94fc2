"""A run that is followed while it trains: how far it is, and how its workers have changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stage import check

from tests.jobs.elastic import metrics_of, without_clocks

LIMIT_S = 150.0


class Followed:
    """A run, by the files in its folder."""

    def __init__(self, folder: Path, has_ended: Callable[[], bool], show: Callable[[], str]) -> None:
        """Nothing is read yet.

        Args:
            folder: of the run; need not be there yet.
            has_ended: whether its job has.
            show: what is known of the job, for somebody who looks for what went wrong.
        """
        self.folder = folder
        self._has_ended, self._show = has_ended, show

    def lines(self, file: str) -> list[dict[str, Any]]:
        """The whole lines of a file."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def changes(self) -> list[dict[str, Any]]:
        """How its workers have changed, in every attempt."""
        return [line for line in self.lines("attempts.jsonl") if "changed_at" in line]

    def iteration(self) -> int:
        """The last that was logged."""
        lines = self.lines("metrics.jsonl")
        return lines[-1]["iteration"] if lines else 0

    def wait_for(self, what: str, holds: Callable[[], bool], limit_s: float = LIMIT_S) -> float:
        """Wait until something holds; returns how many seconds that took."""
        began_s = time.monotonic()
        while not holds():
            time.sleep(0.05)
            if self._has_ended() or time.monotonic() - began_s > limit_s:
                raise SystemExit(f"FAILED: {what}: not in {limit_s:g} s; {self.changes()}\n{self._show()}")
        return time.monotonic() - began_s

    def wait_for_change(self, number: int, ranks: int) -> None:
        """Wait until the workers have changed so many times, and check how many train then."""
        took_s = self.wait_for(f"change {number}", lambda: len(self.changes()) >= number)
        change = self.changes()[number - 1]
        print(f"# {took_s:.1f} s later: {change['ranks']} ranks after {change['after']}, {change['took_s']} s without")
        print(f"#   {change['reason']}", flush=True)
        check(f"{ranks} ranks train", change["ranks"] == ranks)
        self.wait_until(change["after"] + 200)

    def wait_until(self, iteration: int) -> None:
        """Wait until it is past an iteration."""
        self.wait_for(f"iteration {iteration}", lambda: self.iteration() >= iteration)

    def has_metrics_of(self, unbroken: Path) -> None:
        """Check that its metrics are those of a run that nothing happened to, but for what a clock has measured."""
        found, expected = (without_clocks(metrics_of(path)) for path in (self.folder, unbroken))
        check("its metrics are the unbroken run's, but for what a clock has measured", found == expected)
