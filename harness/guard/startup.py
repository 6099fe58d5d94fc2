"""Watches a rank from its first line until it is connected to the others; the guard takes over from there.

Before the first collective there is no connection over which a rank could be missed, and `MPI_Init` and `hvd.init`
themselves wait for all ranks without end. So a thread registers this rank, looks up which others have registered, and
ends the job with a message that names the missing ones when the time limit is over. It also handles stop requests,
which may end the process at once, because nothing is lost yet.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Mapping

from harness.causes import Cause
from harness.comm import Launch
from harness.config import GuardConfig
from harness.errors import StoppedOnRequestError
from harness.folder.outcome import OutcomeFiles
from harness.guard.missing import current_code, explain_ended, explain_missing
from harness.guard.registry import Entry, NoRegistry, Registry
from harness.guard.registry_files import open_file_registry
from harness.guard.registry_server import open_server_registry
from harness.guard.signals import StopSignals
from harness.guard.timing import PERIOD_S
from harness.interrupts import leave_job, stopped_before_start

START_LIMIT_S = GuardConfig().stall_after_start_s  # until the configuration is read, which may set another
_IMPORTS_S = 10.0  # granted even if the limit of the first update is shorter
_SURE_S = 2.0  # a process must have been gone for this long
_LINGER_S = 1.0  # longer than two polls of the others, which have to see why


def open_registry(launch: Launch, environ: Mapping[str, str] = os.environ) -> Registry:
    """Where the ranks of a job register; never fails."""
    if launch.size == 1:
        return NoRegistry()
    if launch.launcher == "horovodrun":
        return open_server_registry(launch.size, environ) or NoRegistry()
    return open_file_registry() or NoRegistry()


class Startup:
    """The watch over one rank's start.

    Attributes:
        signals: of this process; the guard takes them over.
    """

    def __init__(
        self,
        launch: Launch,
        files: OutcomeFiles,
        registry: Registry | None = None,
        signals: StopSignals | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            launch: how this process was started.
            files: that tell a supervisor how it ended.
            registry: where the ranks register; by default as the launcher allows.
            signals: that ask this process to stop; by default those that a run takes.
        """
        self.signals = signals or StopSignals()
        self._launch, self._files = launch, files
        self._registry = registry or open_registry(launch)
        self._began_s = time.monotonic()
        self._limit_s = START_LIMIT_S
        self._phase = "the beginning"
        self._main = threading.main_thread().ident
        self._ended_since_s: float | None = None  # another rank's process
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="startup", daemon=True)

    def open(self) -> None:
        """Install signal handlers, register with the other ranks and a supervisor, and start to watch."""
        self.signals.open()
        self._files.announce()
        self._registry.register(self._entry())
        self._thread.start()

    def enter(self, phase: str) -> None:
        """Say what this rank does from now on."""
        self._phase = phase

    def limit(self, section: GuardConfig) -> None:
        """Take the limit from the configuration.

        The limit of the first update counts if it is shorter, except for the ten seconds that imports may take.
        """
        self._limit_s = min(section.stall_after_start_s, max(section.stall_after_first_s, _IMPORTS_S))

    def close(self) -> None:
        """This rank is connected to the others, or ends by itself; whoever has its signals keeps them."""
        self._is_closing.set()
        self.signals.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._registry.unregister(self._launch.rank)

    def explain_missing(self) -> str:
        """Which ranks have not started, or where they are."""
        entries = self._registry.entries()
        return explain_missing(self._launch, entries, self._entry(), sees_all_hosts=self._registry.sees_all_hosts)

    def end(self, cause: Cause) -> None:
        """End this process, and the others when they see the cause in the registry; one line on the terminal."""
        is_first = self._registry.fail(cause)
        self._files.write(cause.exit_code, cause.text)
        if is_first:
            kind = "" if cause.exit_code == StoppedOnRequestError.exit_code else "error: "
            who = f"rank {self._launch.rank}: " if self._launch.rank and kind else ""
            os.write(2, f"{kind}{who}{cause.text}\n".encode())
        # the others need time to see why; the rank that failed first goes first, so that its code becomes the job's
        if self._launch.size > 1:
            time.sleep(2 * self._registry.poll_s + (0.0 if is_first else _LINGER_S))
        self._registry.clear()
        leave_job(cause.exit_code)

    def _watch(self) -> None:
        registered_s = looked_s = time.monotonic()
        registered = self._entry()
        while not self._is_closing.is_set():
            ready, _, _ = select.select([self.signals.socket], [], [], PERIOD_S)
            if ready:
                self._handle_signal()
            now_s, entry = time.monotonic(), self._entry()
            if entry != registered and now_s - registered_s > 2 * self._registry.poll_s:
                registered, registered_s = entry, now_s
                self._registry.register(entry)
            if now_s - looked_s > self._registry.poll_s:
                looked_s = now_s
                self._check_others(now_s)
            if now_s - self._began_s > self._limit_s and not self._is_closing.is_set():
                self.end(Cause(self._explain_limit()))

    def _handle_signal(self) -> None:
        self.signals.receive()
        if self.signals.received is not None:
            rank = self._launch.rank if self._launch.size > 1 else None
            text = stopped_before_start(self.signals.received, rank)
            self.end(Cause(text, StoppedOnRequestError.exit_code))

    def _check_others(self, now_s: float) -> None:
        """End if another rank has said why the job ends, or if its process has ended without a word."""
        cause = self._registry.failure()
        if cause is not None:
            self._files.write(cause.exit_code, cause.text)
            time.sleep(2 * self._registry.poll_s + 2 * _LINGER_S)  # the rank that said so goes first
            leave_job(cause.exit_code)
        # whether a process lives can only be asked on its own host; a remote registry would be asked too often
        is_local = self._registry.poll_s < _SURE_S and not self._registry.sees_all_hosts
        entries = self._registry.entries() if is_local else None
        ended = [entry for entry in (entries or {}).values() if entry.process_state() is None]
        if not ended:
            self._ended_since_s = None
        elif self._ended_since_s is None:
            self._ended_since_s = now_s
        elif now_s - self._ended_since_s > _SURE_S:
            self.end(Cause("; ".join(explain_ended(entry) for entry in ended)))

    def _explain_limit(self) -> str:
        if self._launch.size == 1:
            return f"not ready to train within {self._limit_s:g} s: it is at {self._entry().activity}"
        return (
            f"the ranks were not connected within {self._limit_s:g} s: {self.explain_missing()}; look at that process "
            "and its host, or raise guard.stall_after_start_s if it is only slow"
        )

    def _entry(self) -> Entry:
        frame = sys._current_frames().get(self._main or 0)
        return Entry.of_this_process(self._launch.rank, f"{self._phase}, {current_code(frame)}")
