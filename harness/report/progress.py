"""The output of rank 0 during a run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType

LOG_LEVELS = ("error", "warning", "info", "debug")
_LINE_EVERY_S = 5.0


class Progress:
    """Shows the newest numbers; silent on all ranks except 0."""

    def __init__(
        self, total: int, rank: int, begun: int = 0, log_level: str = "info", *, may_draw: bool = True
    ) -> None:
        """Start.

        Args:
            total: iterations in the run.
            rank: of this process.
            begun: iterations done by earlier attempts.
            log_level: one of `LOG_LEVELS`; less urgent messages are hidden. `debug` shows every logged iteration;
                other levels show at most one every five seconds.
            may_draw: whether to draw a bar on a terminal; launchers pass lines on (Open MPI's looks like one).
        """
        self._total = total
        self._width = len(str(total))
        self._level = LOG_LEVELS.index(log_level)
        self._line_every_s = 0.0 if log_level == "debug" else _LINE_EVERY_S
        self._speaks = rank == 0
        self._last_line_s = float("-inf")
        self._bar = None
        if may_draw and self._shows("info") and sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
            from rich.table import Column

            columns = (
                BarColumn(bar_width=None, table_column=Column(ratio=1)),  # gets what the numbers leave
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, expand=True)
            self._task = self._bar.add_task("train", total=total, completed=begun, numbers="")
            self._bar.start()

    def update(self, t: int, epoch: int, lr: float, loss: float, images_per_s: float) -> None:
        """Show iteration `t`."""
        numbers = f"epoch {epoch}  lr {lr:.5g}  loss {loss:.4f}  {images_per_s:.0f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=t, numbers=numbers)
        elif self._speaks and time.monotonic() - self._last_line_s >= self._line_every_s:
            self._last_line_s = time.monotonic()
            self.say(f"[{t:{self._width}}/{self._total}] {numbers}")

    def evaluated(self, t: int, split: str, results: Mapping[str, float]) -> None:
        """Show an evaluation."""
        self.say(
            f"[{t:{self._width}}/{self._total}] {split}: "
            + "  ".join(f"{name} {value:.4f}" for name, value in results.items())
        )

    def warn(self, line: str) -> None:
        """Show an important line of text."""
        self.say(line, "warning")

    def say(self, line: str, level: str = "info") -> None:
        """Show a line of text at a level of `LOG_LEVELS`."""
        if not self._shows(level):
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
            return
        try:
            print(line, flush=True)
        except BrokenPipeError:  # whoever was listening has gone (`| head -1`); training goes on
            self._speaks = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _shows(self, level: str) -> bool:
        return self._speaks and LOG_LEVELS.index(level) <= self._level

    def __enter__(self) -> Progress:
        """Return itself; the bar is already running."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar, even after an error."""
        if self._bar is not None:
            self._bar.stop()
