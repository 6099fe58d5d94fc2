"""The ranks of a job that a program runs: joined, watched over, and left in good order.

Where there are several, a guard's thread notices a rank that is lost or hangs, and none waits for it for ever. Signals
stay the program's own. Where there is one rank, no thread is started.
"""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType

from harness.causes import Cause
from harness.comm import World, connect, read_launch
from harness.command.leaving import close_together, record_departure
from harness.config import GuardConfig
from harness.errors import HarnessError
from harness.folder.outcome import OutcomeFiles
from harness.guard import Guard
from harness.guard.missing import JOINING
from harness.guard.signals import StopSignals
from harness.guard.startup import Startup


class Ranks:
    """Joins the other ranks on entry and leaves them on exit; to be used as a context.

    Attributes:
        world: the ranks, while they are joined.
    """

    world: World

    def __init__(self, world: World | None, device: str, stall_after_s: float) -> None:
        """Nothing is started yet.

        Args:
            world: joined already, which stays open; `None` to join the job that this process belongs to.
            device: `cpu` or `gpu`.
            stall_after_s: how long a rank may make no progress, in seconds.
        """
        self._given, self._device = world, device
        self._limits = GuardConfig(
            stall_after_s=stall_after_s, stall_after_first_s=stall_after_s, stall_after_evaluation_s=stall_after_s
        )
        self._guard: Guard | None = None
        self._alone = OutcomeFiles(
            0, secrets.token_hex(8)
        )  # of the only rank, which has no guard to write how it ended

    def __enter__(self) -> Ranks:
        """Join; a collective."""
        startup = None
        if self._given is not None:
            self.world = self._given
        else:
            startup = self._join()
        if self.world.size > 1:
            attempt = self.world.broadcast_object(secrets.token_hex(8), "attempt")
            files = OutcomeFiles(self.world.rank, attempt)
            signals = StopSignals(()) if startup is None else None
            self._guard = Guard(self.world, self._limits, files, startup, signals)
            self._guard.open()
        else:
            self._alone.announce()
        return self

    def enter(self, activity: str) -> None:
        """Report progress: what this rank does from now on, until the next call."""
        if self._guard is not None:
            self._guard.enter(activity)

    def outside(self, activity: str) -> AbstractContextManager[None]:
        """Report that code of the program's own runs in the block."""
        return nullcontext() if self._guard is None else self._guard.outside(activity)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave: together with the others, or alone, which ends them as well.

        Raises:
            HarnessError: why another rank has left, if that is why this one ends.
        """
        if self._guard is None:
            code = 0 if error is None else getattr(error, "exit_code", HarnessError.exit_code)
            kind_of_error = "" if isinstance(error, HarnessError) else f"{type(error).__name__}: "
            self._alone.write(code, "done" if error is None else f"{kind_of_error}{error}")
            if self._given is None:
                self.world.close()
        elif error is None:
            self._close(self._guard)
        elif isinstance(error, HarnessError) and error.everywhere:
            self._guard.files.write(error.exit_code, str(error))
            self._close(self._guard, Cause(str(error), error.exit_code))
        else:
            self._leave(self._guard, error)

    def _join(self) -> Startup | None:
        """Join the job, watched where there are others to wait for; the watch goes on until the guard's begins."""
        launch = read_launch()
        if launch.size == 1:
            self.world = connect(launch=launch, device=self._device)
            return None
        startup = Startup(launch, OutcomeFiles(launch.rank, ""), signals=StopSignals(()))
        startup.limit(self._limits)
        startup.open()
        startup.enter(JOINING)
        try:
            self.world = connect(launch=launch, device=self._device)
        except HarnessError as error:
            if not error.everywhere:
                startup.end(Cause(str(error), error.exit_code))  # ends this process: the others wait for it
            startup.close()
            raise
        return startup

    def _close(self, guard: Guard, cause: Cause | None = None) -> None:
        close: Callable[[], None] | None = None if self._given is None else partial(self.world.barrier, "job.end")
        try:
            close_together(self.world, guard, cause, close)
        except HarnessError as lost:
            self._leave(guard, lost)

    def _leave(self, guard: Guard, error: BaseException) -> None:
        """Tell the others why this rank leaves; its process ends within seconds, whatever the program does then."""
        lost = self.world.explain(error) if isinstance(error, Exception) else None
        own = error if isinstance(error, HarnessError) else lost
        cause, shown = record_departure(own or HarnessError(f"{type(error).__name__}: {error}"), self.world, guard)
        if cause.first and not self.world.fails_when_lost:
            traceback.print_exception(error)  # a launcher of MPI ends this process before Python could show it
        guard.leave(cause)
        if not cause.first:
            raise shown from error
