"""How a rank leaves a job: together with all others, or alone, with a cause that the others hear of. Prints nothing."""

from __future__ import annotations

from collections.abc import Callable

from harness.causes import Cause, outranks
from harness.comm import World
from harness.errors import HarnessError, LostRankError
from harness.guard.watch import Guard


def close_together(
    world: World, guard: Guard, cause: Cause | None = None, close: Callable[[], None] | None = None
) -> None:
    """All ranks end: wait for each other, and close.

    The guard still watches, for a rank may be lost even here. So nothing is recorded as done before all ranks have
    arrived, and nothing that waits for another rank comes after.

    Args:
        world: the ranks.
        guard: of this rank.
        cause: why all of them end; `None` if they are done.
        close: waits for all ranks; by default it closes the world as well.

    Raises:
        HarnessError: if another rank is lost meanwhile; this one has still to leave.
    """
    guard.begin_shutdown(cause)
    try:
        (close or world.close)()
    except Exception as error:
        lost = error if isinstance(error, HarnessError) else world.explain(error)
        if lost is None:
            raise
        raise lost from error
    if cause is None:
        guard.files.write(0, "done")
    guard.close()


def record_departure(error: HarnessError, world: World, guard: Guard) -> tuple[Cause, HarnessError]:
    """Write down why this rank leaves: for an error of its own, or because another rank has left.

    Args:
        error: that ended the work of this rank.
        world: of several ranks.
        guard: of this rank.

    Returns:
        What the others are told (`guard.leave`), and the error that explains the end to the user.
    """
    kind = "" if type(error) is HarnessError else f"{type(error).__name__}: "
    is_first = not isinstance(error, LostRankError)
    own = Cause(f"{kind}{error}", error.exit_code, is_first)
    known = guard.known_departure() if is_first else guard.cause_of_departure()
    if is_first and outranks(own, known):
        cause, told = own, f"rank {world.rank} left in {guard.activity()}: {own.text}"
    else:  # a consequence: what is recorded and sent is the other rank's cause
        cause = (known or own)._replace(first=False)
        told = cause.text
        error = LostRankError(
            f"waiting in the collective {world.last_collective!r} in {guard.activity()}: {cause.text}"
        )
    guard.files.write(cause.exit_code, told, place=guard.activity(), collective=world.last_collective)
    return cause, error
