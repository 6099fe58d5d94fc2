"""Watches a rank from its first line until it has met the others, which it would wait for without end.

Before the first collective there is no connection over which a rank could be missed, and `MPI_Init` and `hvd.init`
themselves wait for all. So a thread tells the others that this rank has come, looks who else has, and ends the job by
name when the time is over. It also takes the wish to stop, for as long as nothing is lost by ending at once.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType

from harness.causes import Cause
from harness.comm import Launch
from harness.comm.compare import name_ranks
from harness.config import GuardConfig
from harness.errors import StoppedOnRequestError
from harness.folder.outcome import OutcomeFiles
from harness.guard.presence import Note, Presence, open_presence
from harness.guard.signals import StopSignals
from harness.interrupts import leave_job

START_LIMIT_S = GuardConfig().stall_after_start_s  # until the configuration is read, which may say otherwise
JOINING = "joining the other ranks"
_PERIOD_S = 0.25
_IMPORTS_S = 10.0  # which a limit on the first update does not mean
_SURE_S = 2.0  # for how long a process must have been gone
_LINGER_S = 1.0  # beyond two questions of the others, who have to hear why


class Startup:
    """The watch over one rank's start.

    Attributes:
        signals: of this process; the guard takes them over.
    """

    def __init__(self, launch: Launch, files: OutcomeFiles, presence: Presence | None = None) -> None:
        """Nothing runs yet.

        Args:
            launch: how this process was started.
            files: in which a supervisor is told how it ended.
            presence: where the ranks leave notes; by default as the launcher allows.
        """
        self.signals = StopSignals()
        self._launch, self._files = launch, files
        self._presence = presence or open_presence(launch)
        self._began_s = time.monotonic()
        self._limit_s = START_LIMIT_S
        self._phase = "the beginning"
        self._main = threading.main_thread().ident
        self._gone_s: float | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="startup", daemon=True)

    def open(self) -> None:
        """Take signals, tell the others and a supervisor that this rank has come, and begin to watch."""
        self.signals.open()
        self._files.announce()
        self._presence.tell(self._note())
        self._thread.start()

    def enter(self, phase: str) -> None:
        """Say what this rank does now."""
        self._phase = phase

    def limit(self, section: GuardConfig) -> None:
        """Take the limit that the configuration sets.

        That of the first update counts where it is less, but for the ten seconds that imports may take.
        """
        self._limit_s = min(section.stall_after_start_s, max(section.stall_after_first_s, _IMPORTS_S))

    def close(self) -> None:
        """This rank has met the others, or ends by itself; its signals stay with whoever has them."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._presence.withdraw(self._launch.rank)

    def who_is_missing(self) -> str:
        """Which ranks have not come, or where they are, in words."""
        notes = self._presence.look()
        return who_is_missing(self._launch, notes, self._note(), sees_all_hosts=self._presence.sees_all_hosts)

    def _watch(self) -> None:
        told_s = looked_s = time.monotonic()
        told = self._note()
        while not self._ending.is_set():
            ready, _, _ = select.select([self.signals.socket], [], [], _PERIOD_S)
            if ready:
                self._take_signal()
            now, note = time.monotonic(), self._note()
            if note != told and now - told_s > 2 * self._presence.poll_s:
                told, told_s = note, now
                self._presence.tell(note)
            if now - looked_s > self._presence.poll_s:
                looked_s = now
                self._look(now)
            if now - self._began_s > self._limit_s and not self._ending.is_set():
                self.end(Cause(self._explain()))

    def _explain(self) -> str:
        if self._launch.size == 1:
            return f"not ready to train within {self._limit_s:g} s: it is at {self._note().place}"
        return (
            f"the ranks have not met within {self._limit_s:g} s: {self.who_is_missing()}; look at that process and its "
            "host, or raise guard.stall_after_start_s if it is only slow"
        )

    def _take_signal(self) -> None:
        self.signals.read()
        if self.signals.received is not None:
            who = "" if self._launch.size == 1 else f" to rank {self._launch.rank}"
            text = f"stopped on request ({self.signals.received}{who}) before the first update; nothing was changed"
            self.end(Cause(text, StoppedOnRequestError.exit_code))

    def _look(self, now: float) -> None:
        """Whether another rank has said why the job ends, or has ended without a word."""
        cause = self._presence.ended()
        if cause is not None:
            self._files.write(cause.exit_code, cause.text)
            time.sleep(2 * self._presence.poll_s + 2 * _LINGER_S)  # who has said it goes first
            leave_job(cause.exit_code)
        notes = self._presence.look() if self._presence.poll_s < _SURE_S and not self._presence.sees_all_hosts else None
        gone = [note for note in (notes or {}).values() if note.state() is None]
        if not gone:
            self._gone_s = None
        elif self._gone_s is None:
            self._gone_s = now
        elif now - self._gone_s > _SURE_S:
            self.end(
                Cause("; ".join(f"{_name(note)} ended before it met the others, at {note.place}" for note in gone))
            )

    def end(self, cause: Cause) -> None:
        """End this process, and the others by what they find: with one line on the terminal, and the cause's code."""
        is_first = self._presence.end(cause)
        self._files.write(cause.exit_code, cause.text)
        if is_first:
            kind = "" if cause.exit_code == StoppedOnRequestError.exit_code else "error: "
            who = f"rank {self._launch.rank}: " if self._launch.rank and kind else ""
            os.write(2, f"{kind}{who}{cause.text}\n".encode())
        time.sleep(2 * self._presence.poll_s + (0.0 if is_first else _LINGER_S) if self._launch.size > 1 else 0.0)
        self._presence.clear()
        leave_job(cause.exit_code)

    def _note(self) -> Note:
        frame = sys._current_frames().get(self._main or 0)
        return Note.of_this_process(self._launch.rank, f"{self._phase}, {where(frame)}")


def where(frame: FrameType | None) -> str:
    """The module that is being imported, or the line that is executed.

    Args:
        frame: the innermost one.
    """
    innermost = None
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_find_and_load" and "importlib" in code.co_filename:
            return f"importing {frame.f_locals.get('name', '?')}"
        if innermost is None and "importlib" not in code.co_filename and code.co_filename != __file__:
            innermost = f"{code.co_filename}:{frame.f_lineno} ({code.co_name})"
        frame = frame.f_back
    return innermost or "?"


def who_is_missing(launch: Launch, notes: Mapping[int, Note] | None, own: Note, *, sees_all_hosts: bool) -> str:
    """Which ranks have not come, do not run, or are still busy with something else; in words.

    Args:
        launch: how many ranks there are.
        notes: of the ranks that have come, as far as can be seen; `None` if nothing can.
        own: what the rank that asks knows of itself.
        sees_all_hosts: whether ranks of other hosts can be seen.
    """
    if notes is None:
        return f"which of the others have come cannot be seen; rank {own.rank} is at {own.place}"
    notes = {**notes, own.rank: own}
    sees_all = sees_all_hosts or launch.local_size == launch.size
    missing = [rank for rank in range(launch.size) if rank not in notes] if sees_all else []
    reasons = [f"{name_ranks(missing)} {'have' if len(missing) > 1 else 'has'} not come"] if missing else []
    if not sees_all and len(notes) < launch.local_size:
        reasons.append(f"{launch.local_size - len(notes)} of the {launch.local_size} ranks of this host have not come")
    reasons += [reason for _, note in sorted(notes.items()) for reason in [_what_keeps(note)] if reason]
    if reasons:
        return "; ".join(reasons)
    if not sees_all:
        return f"all {launch.local_size} ranks of this host have come; a rank of another host has not"
    places = "; ".join(f"rank {rank} is at {note.place}" for rank, note in sorted(notes.items()))
    return f"all {launch.size} ranks have come, but do not find each other: {places}"


def _what_keeps(note: Note) -> str | None:
    state = note.state()
    if state is None:
        return f"{_name(note)} has ended, last at {note.place}"
    if state in "Tt":
        return f"{_name(note)} is stopped (SIGSTOP, a debugger), at {note.place}"
    if state == "D":
        return f"{_name(note)} waits for a disk or a file system, at {note.place}"
    if not note.place.startswith(JOINING) or "importing" in note.place:
        return f"{_name(note)} has come but is still at {note.place}"
    return None


def _name(note: Note) -> str:
    return f"rank {note.rank} (pid {note.pid} on {note.host.partition(' ')[0]})"
