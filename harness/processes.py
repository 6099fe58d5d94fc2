"""Processes of this host: what the kernel says of one, and which are below another one.

A launcher's ranks may have sessions and process groups of their own, so neither finds them. Imports the standard
library alone, because `supervising/reaper.py` loads this file by its path.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MOST_THREADS = 1024  # of a rank: no host has more cores, and OpenMP ends a process that cannot start as many


def descendants(ancestor: int) -> list[int]:
    """Every living process below one; where that one is a subreaper, orphans among them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        words = _stat(int(entry.name))
        if words and words[0] != "Z":
            parents[int(entry.name)] = int(words[1])
    found: list[int] = []
    level = {ancestor}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += level
    return found


def state(pid: int) -> str | None:
    """The kernel's letter for the state of a process: `R`, `S`, `D`, `T` (stopped); `None` if it has ended."""
    words = _stat(pid)
    return words[0] if words and words[0] not in "ZX" else None


def parent(pid: int) -> int | None:
    """The process that started one, while that lives; `None` above the first."""
    words = _stat(pid)
    return int(words[1]) or None if words else None


def began(pid: int) -> int | None:
    """When a process began, in ticks since the host did: with its id that tells it from all others."""
    words = _stat(pid)
    return int(words[19]) if words else None


def age_s(pid: int) -> float:
    """The seconds since a process began; 0 if it has ended."""
    ticks = began(pid)
    return 0.0 if ticks is None else time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """The seconds for which cores have worked for a process; 0 if it has ended."""
    words = _stat(pid)
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK") if words else 0.0


def _stat(pid: int) -> list[str]:
    """What `/proc` says of a process, from its state on."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return []


def pid_namespace() -> str:
    """Identifies the process ids of this host (or container) among those of others that share a folder with it."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot[:8]}.{os.stat('/proc/self/ns/pid').st_ino}"
    return "host"


def memory_id() -> str:
    """The same for all processes that can share memory with this one by its name, and for no others."""
    with suppress(OSError):
        return f"{os.uname().nodename} {pid_namespace()}.{os.stat('/dev/shm').st_dev}"
    return f"{os.uname().nodename} {pid_namespace()}"


def kill(pids: Iterable[int]) -> None:
    """End processes at once, those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
