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
        self.on_workers: int | None = None
        sys.addaudithook(self._listen)

    def _listen(self, event, arguments):
        if event == "subprocess.Popen":
            program, words = arguments[:2]
            words = [words] if isinstance(words, str | bytes | os.PathLike) else list(words or ())
            names = {os.path.basename(os.fsdecode(word)) for word in (program, *words) if word is not None}
            is_job = names & {*LAUNCHERS, os.path.basename(sys.executable), "python"}
            self.here += bool(is_job) and "server.py" not in names

    def pytest_sessionfinish(self, session):
        worker = getattr(session.config, "workeroutput", None)
        if worker is not None:
            worker["jobs"] = self.here

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.on_workers = (self.on_workers or 0) + getattr(node, "workeroutput", {}).get("jobs", 0)

    def pytest_terminal_summary(self, terminalreporter):
        number = self.here if self.on_workers is None else self.on_workers  # the workers themselves are no jobs
        terminalreporter.write_line(f"{number} jobs started")
