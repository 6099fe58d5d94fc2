"""How much of a long piece of work is done, on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

from harness.folder import seen

_LINE_EVERY_S = 5.0


def say(line: str) -> None:
    """Print a line of a result, with what cannot be shown of it spelt out.

    If nobody listens any more (`| head -1`), the work goes on.
    """
    try:
        print(seen(line), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Counter:
    """Counts up to a total; what is done in a few seconds, nobody hears of where there is no terminal.

    Args:
        total: how many there are.
        what: is counted, such as `pictures packed`.
        done: how many are done already.
    """

    def __init__(self, total: int, what: str, done: int = 0) -> None:
        """Draw the bar, if there is a terminal."""
        self._total, self._what = total, what
        self._begun, self._done = (time.monotonic(), done), done
        self._last_line_s = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
            self._bar = Bar(*columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False)
            self._task = self._bar.add_task(what, total=total, completed=done)
            self._bar.start()

    def tell(self, done: int) -> None:
        """Show that so many are done."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        elif time.monotonic() - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            begun_s, before = self._begun
            rate = (done - before) / (self._last_line_s - begun_s)
            print(f"[{done:{len(str(self._total))}}/{self._total}] {self._what}, {rate:.0f} a second", file=sys.stderr)

    def say(self, line: str) -> None:
        """Print a line of the result on standard output, above the bar if that is on the same terminal."""
        if self._bar is not None and sys.stdout.isatty():
            self._bar.console.print(seen(line), highlight=False, markup=False, soft_wrap=True)
        else:
            say(line)

    def __enter__(self) -> Self:
        """Return itself; the bar is already running."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar, even after an error."""
        if self._bar is not None:
            self._bar.stop()
