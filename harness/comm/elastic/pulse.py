"""Which processes of an elastic job run: each shows a pulse at the launcher's server, whatever else it waits for.

A process that was killed is known to the driver. One that is frozen, or whose host cannot be reached, is not, and the
driver would wait for it for ever.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from harness.comm.elastic.notices import Notice
from harness.comm.launcher_store import LauncherStore
from harness.processes import began, state

SILENT_S = 5.0  # without a new beat
_SUSPECT_S = 2.0  # of one that others have not heard of either
_UNSEEN_S = 1.0  # by which a single look at an unchanged pulse counts at most
_BEAT_S = 0.5
_RANKS_PER_S = 256  # that write to the one server
_MAX_PULSE = 200


class _Pulse(NamedTuple):
    """What was last seen of a process, and for how many seconds of looking it has not changed."""

    text: bytes
    silent_s: float


class Pulse:
    """This process's own, from `start` on.

    Attributes:
        size: how many processes write to the server.
    """

    def __init__(self, store: LauncherStore, uid: str) -> None:
        """Nothing is shown yet.

        Args:
            store: at the launcher's server.
            uid: of this process.
        """
        self._store, self._key = store, _key(uid)
        self._beats = 0
        self.size = 1
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Show it until this process ends."""
        self._thread.start()

    def beat(self) -> None:
        """Show it once more."""
        self._beats += 1
        self._store.put(self._key, str(self._beats).encode())

    def _run(self) -> None:
        while True:
            with suppress(Exception):  # whatever comes from a server
                self.beat()
            time.sleep(max(_BEAT_S, self.size / _RANKS_PER_S))


class Pulses:
    """The others', as this process sees them.

    Attributes:
        suspects: processes of whom others have heard nothing either.
    """

    def __init__(self, store: LauncherStore, own: str) -> None:
        """Nobody was looked at yet.

        Args:
            store: at the launcher's server.
            own: the uid of this process, whose own pulse says whether the server shows any.
        """
        self._store, self._own = store, own
        self._seen: dict[str, _Pulse] = {}
        self._looked_s = 0.0
        self.suspects: frozenset[str] = frozenset()

    def silent(self, uids: Iterable[str]) -> set[str]:
        """Which of these processes have shown no new beat for `SILENT_S` while this one looked; ask often.

        Args:
            uids: of the processes; those in `suspects`, of whom others have heard nothing either, have less time.
        """
        now_s, uids = time.monotonic(), {*uids, self._own}
        passed_s = now_s - self._looked_s
        if passed_s > _BEAT_S:
            self._looked_s = now_s
            for uid in uids:
                # When nobody has looked for long, one look tells little: the driver may just have cleared the server.
                if not self._look(uid, min(passed_s, _UNSEEN_S)):
                    break
        ages = {uid: self._seen[uid].silent_s for uid in uids if uid in self._seen}
        if ages.get(self._own, SILENT_S) > _SUSPECT_S:
            return set()  # the server is slow, or gone
        return {uid for uid, age_s in ages.items() if age_s > (_SUSPECT_S if uid in self.suspects else SILENT_S)}

    def _look(self, uid: str, passed_s: float) -> bool:
        """Look at one; whether the server has answered."""
        text, seen = self._store.get(_key(uid), _MAX_PULSE), self._seen.get(uid)
        if text is None:
            return False  # which says nothing of the process: it may be this one that is cut off
        # the driver clears the server now and then; what is missing says no more than what is unchanged
        if seen is None or (text and text != seen.text):
            self._seen[uid] = _Pulse(text or b"", 0.0)
        else:
            self._seen[uid] = seen._replace(silent_s=seen.silent_s + passed_s)
        return True


class Strays:
    """Processes that were in an earlier world, or get ready for the next: horovodrun would wait for a frozen one."""

    def __init__(self, pulses: Pulses) -> None:
        """There is no world yet."""
        self._pulses = pulses
        self._members: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self._joining: dict[str, str] = {}

    def enter(self, members: Iterable[Notice]) -> None:
        """A world begins, with these processes."""
        known = {**self._left_out, **self._members}
        self._members = {one.uid: one.process for one in members}
        self._left_out = {uid: process for uid, process in known.items() if uid not in self._members}

    def meet(self, notices: Iterable[Notice | None]) -> None:
        """This is who is there now."""
        known = {**self._left_out, **self._members}
        self._joining = {one.uid: one.process for one in notices if one is not None and one.uid not in known}

    def end_silent(self) -> None:
        """End those that were too late for a meeting, and those that are stopped, once silent; ask often."""
        for uid in self._pulses.silent({**self._left_out, **self._joining}):
            if uid in self._left_out:
                end_silent(self._left_out.pop(uid))
            elif uid in self._joining:  # one that imports shows no pulse either while other threads have to wait for it
                end_stopped(self._joining[uid])

    def end_stopped(self) -> None:
        """The job ends: end those that are stopped."""
        for process in (*self._left_out.values(), *self._joining.values()):
            end_stopped(process)

    def end_stopped_members(self) -> None:
        """The job is over for this process: end those of its world that are stopped, unless they soon go on."""
        begun_s = time.monotonic()
        while any(map(is_stopped, self._members.values())):
            if time.monotonic() - begun_s > SILENT_S:
                for process in self._members.values():
                    end_stopped(process)
                return
            time.sleep(_BEAT_S / 5)


def this_process() -> str:
    """What tells this process from all others, of this machine and of any other."""
    return f"{os.getpid()} {began(os.getpid())} {_processes_of_this_kernel()}"


def end_silent(process: str) -> None:
    """End a process that shows no pulse if it is on this machine, so that the driver knows of its end.

    Args:
        process: what it has told of itself, by `this_process`.
    """
    pid = _pid_here(process)
    if pid is not None:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def end_stopped(process: str) -> None:
    """End a process that is stopped if it is on this machine: it would not end with the job.

    Args:
        process: what it has told of itself, by `this_process`.
    """
    if is_stopped(process):
        end_silent(process)


def is_stopped(process: str) -> bool:
    """Whether a process is stopped, and on this machine."""
    pid = _pid_here(process)
    return pid is not None and state(pid) == "T"


def is_here(process: str) -> bool:
    """Whether a process is, or was, on this machine."""
    words = process.split(" ")
    return len(words) == 3 and words[2] == _processes_of_this_kernel() and words[0].isdecimal()


def _pid_here(process: str) -> int | None:
    """The id of a process that lives on this machine; `None` of any other."""
    if not is_here(process):
        return None
    pid, begun = process.split(" ")[:2]
    return int(pid) if str(began(int(pid))) == begun else None


def _key(uid: str) -> str:
    return f"pulse-{uid}"


def _processes_of_this_kernel() -> str:
    """What is the same for processes that can kill each other by their ids."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
