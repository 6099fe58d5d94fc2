"""A guard that does nothing, for those who use the library without one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from harness.errors import StoppedOnRequestError
from harness.folder import AttemptStart


class Unguarded:
    """What a library user has who brings no guard: nobody stops the run, nobody watches."""

    def use_folder(self, folder: Path, start: AttemptStart, page: Callable[[], object] | None = None) -> None:
        """Nothing is written."""

    def tick(self, where: str, kind: str = "update") -> bool:
        """Nobody was told to stop."""
        return False

    def explained(self) -> AbstractContextManager[None]:
        """Nothing is known of other ranks."""
        return nullcontext()

    def stopped(self, where: str) -> StoppedOnRequestError:
        """See `Guard`."""
        return StoppedOnRequestError(f"stopped on request: {where}").on_all_ranks()
