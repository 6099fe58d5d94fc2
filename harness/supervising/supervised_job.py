"""A job that ends when its supervisor does, even if that is killed: a reaper (`reaper.py`) starts and holds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from harness.errors import ConfigError
from harness.processes import descendants
from harness.supervising.reaper import GOODBYE

_REAPER = Path(__file__).with_name("reaper.py")
_GOODBYE_S = 5.0


class _Report(NamedTuple):
    """What the reaper has reported: why the command could not be started, or the launcher's exit code."""

    failed: str | None = None
    ended: int | None = None


class SupervisedJob:
    """A command and all processes that it has started on this host."""

    def __init__(self, command: Sequence[str], job: Path, environ: Mapping[str, str]) -> None:
        """Start it in a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone.

        Args:
            command: the launcher and what it launches.
            job: a folder that is removed if this process is killed.
            environ: of the command.
        """
        read_orders, self._orders = os.pipe()
        self._reports, write_reports = os.pipe()
        os.set_blocking(self._reports, False)
        self._text = b""
        self._code: int | None = None
        self.command = list(command)
        try:
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_REAPER), str(read_orders), str(write_reports)],
                env=dict(environ),
                pass_fds=(read_orders, write_reports),
                start_new_session=True,
            )
        finally:
            os.close(read_orders)
            os.close(write_reports)
        with suppress(BrokenPipeError):
            os.write(self._orders, json.dumps({"command": self.command, "job": str(job)}).encode() + b"\n")

    def poll(self) -> int | None:
        """The exit code of the launcher, once it has ended; `-9` if the reaper was killed.

        Raises:
            ConfigError: if the command could not be started.
        """
        if self._code is None:
            is_dead = self._reaper.poll() is not None
            report = self._receive()
            if report.failed is not None:
                raise ConfigError(
                    f"{self.command[0]}: cannot be started ({report.failed}); give the launcher and the "
                    "program after --"
                )
            self._code = -signal.SIGKILL if report.ended is None and is_dead else report.ended
        return self._code

    def members(self) -> list[int]:
        """The living processes of the job; if the reaper was killed, they have become children of this process."""
        return [pid for pid in descendants(os.getpid()) if pid != self._reaper.pid]

    def __enter__(self) -> Self:
        """The running job."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Dismiss the reaper; after an error, it ends what is left of the job."""
        with suppress(OSError):
            if kind is None:
                os.write(self._orders, GOODBYE)
        os.close(self._orders)
        try:
            self._reaper.wait(timeout=_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._reaper.kill()
            self._reaper.wait()
        os.close(self._reports)

    def _receive(self) -> _Report:
        with suppress(BlockingIOError):
            while piece := os.read(self._reports, 65536):
                self._text += piece
        line, found, _ = self._text.partition(b"\n")
        return _Report(**json.loads(line)) if found else _Report()
