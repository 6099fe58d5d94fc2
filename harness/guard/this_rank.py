"""This rank, as its two threads share it: what the main thread is doing, and whether and why the process is ending."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import NamedTuple

from harness.causes import Cause
from harness.comm import World
from harness.config import GuardConfig
from harness.guard.messages import Message


class Activity(NamedTuple):
    """What the main thread is doing.

    Attributes:
        description: such as `iteration 50`, for messages.
        since_s: when it began, by the monotonic clock.
        limit_s: how long it may take before it counts as a stall.
    """

    description: str
    since_s: float
    limit_s: float


class ThisRank:
    """Written by the main thread and by the guard's, each attribute by one of them.

    Attributes:
        activity: by the main thread.
        exit_deadline_s: by whichever thread decides that this rank leaves: when the process has to be gone.
        shutdown_cause: by the main thread, when all ranks end together for a cause that all of them know.
        is_stopping: by the guard's thread: the process stops at once, because it has nothing to lose yet.
    """

    def __init__(self, world: World, limit_s: float) -> None:
        """The run is starting; the first activity may take `limit_s`."""
        self.exit_deadline_s: float | None = None
        self.shutdown_cause: Cause | None = None
        self.is_stopping = False
        self._may_stop_at_once = True
        self._lock = threading.Lock()  # an immediate stop and the first change to the run exclude each other
        self._world = world
        self._main = threading.main_thread().ident or 0
        self.begin("start", limit_s)

    def begin(self, description: str, limit_s: float) -> None:
        """The main thread turns to something else, which may take `limit_s`."""
        self.activity = Activity(description, time.monotonic(), limit_s)

    def restart_clock(self) -> None:
        """The activity begins now."""
        self.activity = self.activity._replace(since_s=time.monotonic())

    def forbid_immediate_stop(self) -> bool:
        """The run is about to change something; whether it is too late, because the process is stopping already."""
        with self._lock:
            self._may_stop_at_once = False
        return self.is_stopping

    def stop_at_once_if_allowed(self) -> bool:
        """Begin an immediate stop, unless the run has changed something; whether the process is stopping."""
        with self._lock:
            self.is_stopping |= self._may_stop_at_once
        return self.is_stopping

    def status(self) -> Message:
        """What this rank reports every second."""
        frame = sys._current_frames().get(self._main)
        line = "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
        return Message(
            activity=self.activity.description,
            collective=self._world.last_collective,
            num_collectives=self._world.num_collectives,
            line=line,
            process=f"pid {os.getpid()} on {self._world.hostname}",
        )


def stall_limits(section: GuardConfig) -> dict[str, float]:
    """How long an activity may take, in seconds, by its kind."""
    return {
        "first": section.stall_after_first_s,
        "update": section.stall_after_s,
        "evaluation": section.stall_after_evaluation_s,
    }
