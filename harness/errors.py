"""Every way in which a run can fail, each with an exit code, so that a script can tell them apart.

Exit code 0 is a finished run, and 1 is a bug of ours (with a traceback). The message of a `HarnessError` is
written for the person who started the run: where, what was found, what is allowed, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self


def listed(problems: Sequence[str], most: int = 20, of: int | None = None) -> str:
    """Problems, one on each line, for the end of a message: the first ones, and how many more there are.

    Args:
        problems: the first ones, or all.
        most: lines.
        of: how many there are; by default those.
    """
    left = (len(problems) if of is None else of) - min(len(problems), most)
    return "".join(f"\n  {problem}" for problem in [*problems[:most], *([f"and {left:,} more"] if left > 0 else [])])


class HarnessError(Exception):
    """Base of all errors that a user can cause or fix; `exit_code` is that of the process.

    Attributes:
        everywhere: whether every rank is known to raise this same error, so that rank 0 alone reports it.
        source: the configuration's file, if the message begins with it.
    """

    exit_code = 1
    everywhere = False
    source: str | None = None

    def on_all_ranks(self) -> Self:
        """The same error, marked as one that every rank raises."""
        self.everywhere = True
        return self

    def found_in(self, source: str) -> Self:
        """The same error with the configuration's file before its message, unless it is there already.

        The code that raises an error need not know the file. Code that does adds it, possibly on several levels.
        """
        if self.source is None:
            self.source = source
            self.args = (f"{source}: {self}",)
        return self


class ConfigError(HarnessError):
    """A configuration or command line cannot be run."""

    exit_code = 2


class DataError(HarnessError):
    """Data is missing, unreadable, or not what the configuration says."""

    exit_code = 3


class CheckpointError(HarnessError):
    """A checkpoint that is missing, damaged, or does not fit this run."""

    exit_code = 4


class DisagreementError(HarnessError):
    """Ranks, or states that must be equal, differ."""

    exit_code = 5


class DivergedError(HarnessError):
    """The loss or the gradient is no longer finite.

    Attributes:
        iteration: of the update that was not finite.
    """

    exit_code = 6
    iteration: int | None = None

    def at(self, iteration: int) -> Self:
        """The same error, which every rank raises of this update."""
        self.iteration = iteration
        return self.on_all_ranks()


class LostRankError(HarnessError):
    """A rank died, or a collective did not finish."""

    exit_code = 7


class NoUsableLRError(HarnessError):
    """The learning-rate finder found no reliable learning rate."""

    exit_code = 8


class StoppedOnRequestError(HarnessError):
    """The run was asked to stop, saved its state, and can be resumed."""

    exit_code = 75
