"""What rank 0 shows while a run goes on: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType

LOG_LEVELS = ("error", "warning", "info", "debug")
_LINE_EVERY_S = 5.0


class Progress:
    """Shows the newest numbers; says nothing on ranks other than 0."""

    def __init__(
        self, total: int, rank: int, begun: int = 0, log_level: str = "info", *, may_draw: bool = True
    ) -> None:
        """Start.

        Args:
            total: iterations in the run.
            rank: of this process.
            begun: iterations that an earlier attempt did.
            log_level: of `LOG_LEVELS`: what is less urgent is not shown. `debug` shows every logged iteration, others
                at most one in five seconds.
            may_draw: whether a bar is drawn on a terminal; launchers pass lines on, and Open MPI's looks like one.
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
        """Show a line of text that the user should not miss."""
        self.say(line, "warning")

    def say(self, line: str, level: str = "info") -> None:
        """Show a line of text of a level of `LOG_LEVELS`."""
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
        """Itself; the bar runs already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar down, on an error too."""
        if self._bar is not None:
            self._bar.stop()
