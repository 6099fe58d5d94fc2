"""Adds up which damaged samples others have replaced: over ranks, epochs and resumed attempts, each use once.

Each rank notes those in the batches of its own updates, and so never what was read ahead for an update that is not
made. Ranks put together what they have noted at the end of an epoch and before a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.checkpoint import MOST_TOLD, Replaced
from harness.comm import World
from harness.config import RunConfig
from harness.data import EvaluationBatch, Replacement
from harness.train.state import RunState


class ReplacedSamples:
    """What this rank has noted since ranks last put together theirs.

    Args:
        world: the ranks.
        config: of the run; without `data.pictures.damaged: replace` there is nothing to add up, and no collective.
    """

    def __init__(self, world: World, config: RunConfig) -> None:
        """Nothing is noted yet."""
        pictures = config.data.pictures
        self._is_on = pictures is not None and pictures.damaged == "replace"
        self._world = world
        self.forget()

    def forget(self) -> None:
        """Drop what was noted: it belongs to updates that the run has rewound."""
        self._count = 0
        self._first: list[tuple[int, Replacement]] = []

    def note(self, replaced: Sequence[Replacement], number: int) -> None:
        """Note those of an update, or a batch.

        Args:
            replaced: by this rank.
            number: of the update or batch; not below the last one's.
        """
        self._count += len(replaced)
        if len(self._first) < MOST_TOLD:
            self._first = sorted([*self._first, *((number, one) for one in replaced)])[:MOST_TOLD]

    def watch(self, batch: EvaluationBatch) -> None:
        """Note those of a batch of an evaluation."""
        self.note(batch.replaced, batch.number)

    def put_together(self, so_far: Replaced) -> Replaced:
        """Add what all ranks have noted, and begin anew; a collective.

        The lines are those of the first updates, and in each of the first samples, however many ranks there are.

        Args:
            so_far: before.
        """
        if not self._is_on:
            return so_far
        own = [self._count, [[number, *one] for number, one in self._first]]
        self.forget()
        everyone = self._world.allgather_object(own, "replaced")
        first = sorted((number, Replacement(*one)) for _, noted in everyone for number, *one in noted)
        return so_far.more(sum(count for count, _ in everyone), [str(one) for _, one in first])

    def into(self, state: RunState) -> RunState:
        """The state of a run with what all ranks have noted; a collective."""
        return replace(state, replaced=self.put_together(state.replaced)) if self._is_on else state
