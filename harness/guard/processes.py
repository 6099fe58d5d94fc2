"""The processes below another one: a launcher's ranks, which may have sessions and process groups of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def descendants(ancestor: int) -> list[int]:
    """Every living process below one; where that one is a subreaper, orphans among them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            words = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if words[0] != "Z":
                parents[int(entry.name)] = int(words[1])
    found: list[int] = []
    level = {ancestor}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += level
    return found


def kill(pids: Iterable[int]) -> None:
    """End processes at once, those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
