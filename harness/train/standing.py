"""How far a run is within its world, and what another world has to begin with. It knows no collectives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from harness.checkpoint import Manifest
from harness.checkpoint.manifest import Best
from harness.finder import with_base
from harness.folder import WorldChange
from harness.gluon import Learner, Requests
from harness.train.run import Run
from harness.train.state import RunState


class WorldChangedError(Exception):
    """This world has ended, and the run goes on in another: a rank was lost, leaves, or can join.

    Attributes:
        is_lost: whether a rank was lost, so that collectives fail.
        reason: in words.
        size_before: how many ranks it had; `None` for a process that has not been one of them.
    """

    def __init__(self, reason: str, *, is_lost: bool) -> None:
        """Say why."""
        super().__init__(reason)
        self.reason, self.is_lost = reason, is_lost
        self.size_before: int | None = None
        self._since_s = time.monotonic()

    def record(self, after: int, ranks: int) -> WorldChange:
        """As the run's history has it, now that another world has begun.

        Args:
            after: the iteration that it goes on after.
            ranks: how many it has.
        """
        took_s = round(time.monotonic() - self._since_s, 3)
        return WorldChange("", round(time.time(), 3), after, ranks, self.reason, took_s)


class Update(NamedTuple):
    """What the ranks know of an update that was done, as far as what is due after it needs it.

    Attributes:
        loss: the mean over its global batch; `float()` of it may wait.
        requests: what ranks have asked with it.
        is_skipped: whether it was left out because it was not finite.
        is_weightless: whether it had no effect because nothing had a weight.
    """

    loss: Any
    requests: Requests
    is_skipped: bool
    is_weightless: bool

    @classmethod
    def of(cls, learner: Learner, loss: Any, counted: tuple[int, int]) -> Update:
        """The one that a learner has just done.

        Args:
            learner: whose requests are taken.
            loss: that it returned.
            counted: how many it had skipped, and found without weight, before.
        """
        return cls(loss, learner.pop_requests(), learner.skipped > counted[0], learner.weightless > counted[1])


@dataclass
class Standing:
    """The last update, before anything that is due after it was done.

    If the world ends, all of that is done again in the next one: then it makes no difference how far it was.

    Attributes:
        run: by the plan of that time.
        state: after the update.
        update: `None` before the first of this attempt.
        saved: what the newest checkpoint in the run's folder holds; `None` as long as that is what the run began with.
        has_state: whether the learner has the state; not in a process that joins.
        is_open: whether the run's folder is this attempt's by now.
        is_planned: whether the plan is in it.
    """

    run: Run
    state: RunState
    update: Update | None = None
    saved: RunState | None = None
    has_state: bool = True
    is_open: bool = False
    is_planned: bool = False

    def made(self, run: Run, state: RunState, update: Update, saved: RunState) -> RunState:
        """An update was done; the state after it."""
        self.run, self.state, self.update, self.saved = run, state, update, saved
        return state

    def is_over(self, run: Run, state: RunState, saved: RunState) -> None:
        """Everything that was due after the update was done."""
        self.run, self.state, self.update, self.saved = run, state, None, saved

    @property
    def is_beginning(self) -> bool:
        """Whether this attempt has made no update yet."""
        return self.update is None and self.state.iteration == self.run.initial_state.iteration

    @property
    def begins_after(self) -> int:
        """The last iteration after which everything was done for certain."""
        return self.state.iteration - (self.update is not None)

    def to_json(self, learner: Learner, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """What ranks are told that were not there, or are an update behind.

        Args:
            learner: with the numbers of the update.
            manifest: of the state.
        """
        update, saved = self.update, self.saved
        return {
            "manifest": {"iteration": self.state.iteration, **manifest},
            "saved": None if saved is None else [saved.iteration, saved.best and saved.best.to_json()],
            "base": [self.run.config.lr.base, self.run.config.lr.reference_batch],
            "update": None if update is None else [update.is_skipped, update.is_weightless, list(update.requests)],
            "loss": None if update is None else learner.loss,
            "folder": [self.is_open, self.is_planned],
            "gradient_norm": learner.gradient_norm,
            "counts": [learner.skipped, learner.weightless],
        }

    @classmethod
    def read(cls, told: dict[str, Any], run: Run, learner: Learner) -> Standing:
        """The standing that another rank has told; the learner takes its numbers."""
        where = "what another rank has told"
        state, saved = RunState.of(Manifest.of(told["manifest"], where), where), None
        if told["saved"] is not None:
            iteration, best = told["saved"]
            saved = RunState(iteration, best=None if best is None else Best(**best))
        learner.loss, learner.gradient_norm = told["loss"], told["gradient_norm"]
        learner.skipped, learner.weightless = told["counts"]
        update = None
        if told["update"] is not None:
            is_skipped, is_weightless, requests = told["update"]
            update = Update(told["loss"], Requests(*requests), is_skipped, is_weightless)
        base, reference_batch = told["base"]
        if run.config.lr.base == "auto" != base:  # the others have found it meanwhile
            run = replace(run, config=with_base(run.config, base, reference_batch))
        is_open, is_planned = told["folder"]
        return cls(run.amended(state), state, update, saved, is_open=is_open, is_planned=is_planned)
