"""To which part of an iteration time belongs: the loop and the learner say where they are, whoever times listens."""

from __future__ import annotations

from collections.abc import Callable

UPDATE = ("input", "forward", "backward", "wait", "sum", "check", "step")
"""The parts of an update: its samples; every shard's forward and backward; waiting for slower ranks; adding up shards,
devices and ranks; the check of the sum; the optimizer's step, with the averages of statistics and weights."""
BETWEEN = ("log", "evaluation", "checkpoint")
"""What may lie between two updates."""


class Timing:
    """Times nothing, which costs nothing; others override it.

    Attributes:
        say: shows a line to the user; the loop brings its own.
    """

    def __init__(self) -> None:
        """Nothing is timed."""
        self.say: Callable[[str], None] = print

    def begin(self, t: int) -> None:
        """Iteration `t` begins, and with it the wait for its samples."""

    def enter(self, part: str) -> None:
        """What follows, until the next call, belongs to `part`."""

    def end(self) -> None:
        """The last iteration is over, on every rank."""

    def close(self) -> None:
        """Nothing is timed any more, whatever ended the run."""
