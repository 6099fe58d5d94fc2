"""The consistency check: every `guard.verify_every`, ranks compare a few numbers and checksums of their state."""

from __future__ import annotations

import json
import zlib
from typing import Protocol

from harness.comm import World
from harness.comm.compare import Facts, differences
from harness.errors import DisagreementError


class Checked(Protocol):
    """What the check needs of a learner."""

    def checksums(self) -> dict[str, int]:
        """A checksum of every array by name; the names of optimizer state have a slash."""

    def numbers(self) -> Facts:
        """The scalars of the state."""


class ConsistencyCheck:
    """Compares ranks; a world of one has nothing to compare."""

    def __init__(self, world: World, learner: Checked) -> None:
        """Bind the ranks and the learner."""
        self._world = world
        self._learner = learner

    def verify(self, t: int, lr: float, momentum: float | None, num_samples: int) -> None:
        """Compare after update `t`, in one named collective; arrays are named only where they differ.

        Args:
            t: the iteration.
            lr: the learning rate that it applied.
            momentum: its momentum.
            num_samples: that the run has processed.

        Raises:
            DisagreementError: on every rank, naming what differs, the ranks and their values.
        """
        if self._world.size == 1:
            return
        sums = self._learner.checksums()
        facts = {
            "iteration": t,
            "learning rate": lr,
            "momentum": momentum,
            "samples seen": num_samples,
            "counters": self._learner.numbers(),
            "parameters": _total({name: value for name, value in sums.items() if "/" not in name}),
            "optimizer state": _total({name: value for name, value in sums.items() if "/" in name}),
        }
        everyone = self._world.allgather_object(facts, "consistency")
        found = differences(everyone)
        if not found:
            return
        shown = {name: f"{value:08x}" for name, value in sums.items()}
        found += differences(self._world.allgather_object(shown, "consistency.arrays"))
        raise DisagreementError(
            f"iteration {t}: the ranks have drifted apart:\n  "
            + "\n  ".join(found)
            + "\nsomething on one rank changed a weight, optimizer state or a counter: code of your own, or a hardware "
            "fault; resume from the newest checkpoint with --resume auto"
        ).on_all_ranks()


def _total(sums: dict[str, int]) -> str:
    return f"{zlib.crc32(json.dumps(sums).encode()):08x}"
