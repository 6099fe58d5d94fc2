"""A guard that does nothing, for programs that use the library without one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from harness.errors import StoppedOnRequestError
from harness.folder import AttemptStart, WorldChange


class Unguarded:
    """For a program without a guard: nothing stops the run, and nothing watches over it."""

    def use_folder(self, folder: Path, start: AttemptStart, page: Callable[[], object] | None = None) -> AttemptStart:
        """Nothing is written."""
        return start

    def continue_in(self, folder: Path, change: WorldChange, page: Callable[[], object] | None = None) -> None:
        """Nothing is written."""

    def defer_stops(self) -> None:
        """Signals stay the program's own."""

    def enter(self, activity: str, kind: str = "update") -> None:
        """Nobody waits for progress."""

    @property
    def stop_requested(self) -> bool:
        """Nobody asks."""
        return False

    def is_told_to_stop(self) -> bool:
        """Nobody tells."""
        return False

    @property
    def stop_signal(self) -> str | None:
        """None came."""
        return None

    @property
    def stop_requested_for_s(self) -> float:
        """Never."""
        return 0.0

    def explained(self) -> AbstractContextManager[None]:
        """Nothing is known of other ranks."""
        return nullcontext()

    def outside(self, activity: str) -> AbstractContextManager[None]:
        """Nobody waits for code that is not the harness's."""
        return nullcontext()

    def stopped(self, state: str, by: str = "") -> StoppedOnRequestError:
        """The error with which every rank ends when a run was asked to stop; `state` says what is saved."""
        return StoppedOnRequestError(f"stopped on request{f' ({by})' if by else ''}: {state}").on_all_ranks()
