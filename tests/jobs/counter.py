"""Counts the processes that tests start, over all workers of pytest-xdist, and tells the number at the end."""

from __future__ import annotations

import os
import sys

import pytest

LAUNCHERS = ("horovodrun", "mpirun")


class JobCounter:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self.here = 0
        self.elsewhere = 0
        sys.addaudithook(self._listen)

    def _listen(self, event, arguments):
        if event == "subprocess.Popen":
            program, words = arguments[:2]
            words = [words] if isinstance(words, str | bytes | os.PathLike) else list(words or ())
            names = {os.path.basename(os.fsdecode(word)) for word in (program, *words) if word is not None}
            self.here += bool(names & {*LAUNCHERS, os.path.basename(sys.executable), "python"})

    def pytest_sessionfinish(self, session):
        worker = getattr(session.config, "workeroutput", None)
        if worker is not None:
            worker["jobs"] = self.here

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.elsewhere += getattr(node, "workeroutput", {}).get("jobs", 0)

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.write_line(f"{self.here + self.elsewhere} jobs started")
