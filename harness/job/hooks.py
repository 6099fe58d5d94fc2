"""What the hooks of an open job are told, and what all ranks do because one of them has asked for it."""

from __future__ import annotations

import secrets
import shlex
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.folder import AttemptStart, MetricsLine
from harness.gluon import Requests
from harness.hooks import Hooks
from harness.job.session import Session
from harness.job.settings import environment_of_job
from harness.shipped import typed_words
from harness.train.log import Clock
from harness.train.state import is_due


class JobHooks:
    """Tells the hooks of a job; to be used as a context, which tells them how it ended.

    Attributes:
        are_called: whether one of them is being called now.
    """

    def __init__(self, session: Session, folder: Path) -> None:
        """Nobody is told anything before the job does something.

        Args:
            session: of the job.
            folder: of its checkpoints.
        """
        given, world = session.given, session.world
        self._any, self._settings, self._world = bool(given.hooks), given.settings, world
        self._folder = folder
        around = session.ranks.outside if self._any else nullcontext
        self._hooks = Hooks(given.hooks if world.rank == 0 else (), given.settings.hooks_fail, around)
        self._clock, self._origin, self._earlier_ranks = Clock(), "", world.size
        self._is_open = False

    @property
    def are_called(self) -> bool:
        """Whether a hook is being called."""
        return self._hooks.are_called

    def resumed(self, origin: str, num_ranks: int) -> None:
        """The job resumes from a checkpoint that so many ranks have saved."""
        self._origin, self._earlier_ranks = origin, num_ranks

    def begin(self, session: Session, after: int) -> None:
        """Tell that the job is open, before what it does first."""
        if self._is_open or not self._any:
            return
        self._is_open = True
        self._clock.restart()
        hooks, size = self._hooks, session.world.size

        def rates() -> npt.NDArray[np.float64]:
            return session.plan.lrs(np.arange(1, session.sizes.num_iterations + 1))

        def settings() -> dict[str, Any]:
            return {**self._settings.model_dump(by_alias=True), **session.described}

        hooks.open(self._folder, self._folder.name, self._start(session, after), settings, rates, warnings.warn)
        if self._origin:
            hooks.saved(after, Path(self._origin))
        if self._earlier_ranks != size:
            hooks.world_changed(after, self._earlier_ranks, size, f"resumed from {self._origin}")

    def ask(self) -> Requests:
        """What this rank asks of all with the next update: a checkpoint once, an end until it comes."""
        save, self._hooks.wants_save = self._hooks.wants_save, False
        return Requests(save=save, stop=self._hooks.wants_stop)

    def updated(self, session: Session, t: int, loss: Any) -> Requests:
        """Tell of the loss of update `t` where that is due.

        Returns:
            What any rank has asked for with this update; the same on every rank.
        """
        if not self._any:
            return Requests()
        asked, total = session.learner.pop_requests(), session.sizes.num_iterations
        self._clock.count(session.order.global_count(t))
        if self._world.rank == 0 and (t == 1 or is_due(t, self._settings.log_every, total)):
            session.learner.check_pending()
            norm = session.learner.gradient_norm
            values = {"loss": float(loss), **({} if norm is None else {"gradient_norm": norm})}
            self._record(session, t, {"train": {**values, "images_per_s": round(self._clock.rate(), 1)}})
        return asked

    def evaluated(self, session: Session, t: int, name: str, values: Mapping[str, float]) -> None:
        """Tell of an evaluation after update `t`."""
        self._record(session, t, {name: values})
        self._clock.restart()

    def saved(self, t: int, checkpoint: Path) -> None:
        """Tell of the checkpoint of iteration `t`, which is complete."""
        self._hooks.saved(t, checkpoint)

    def raise_failure(self) -> None:
        """End every rank if a hook has failed and that is to end the job; a collective where it may.

        Raises:
            ConfigError: on every rank.
        """
        if self._any and self._settings.hooks_fail == "stop":
            self._world.on_root("hooks.failed", self._hooks.raise_failure)

    def _record(self, session: Session, t: int, found: Mapping[str, Mapping[str, float]]) -> None:
        momentum, epoch = session.plan.momentum(t), session.sizes.epoch(t) if t else None
        own = getattr(session.given.optimizer, "momentum", None) if momentum is None else momentum
        lr, now = session.plan.lr(t), round(time.time(), 3)
        lines: Sequence[MetricsLine] = [
            MetricsLine(split, t, epoch, lr, own, values, now) for split, values in found.items()
        ]
        self._hooks.recorded(lines)

    def _start(self, session: Session, after: int) -> AttemptStart:
        world = session.world
        return AttemptStart(
            attempt=secrets.token_hex(8),
            began_at=round(time.time(), 3),
            after=after,
            origin=self._origin or None,
            ranks=world.size,
            comm=world.kind,
            host=world.hostname,
            command=shlex.join(typed_words(sys.argv)),
            environment=environment_of_job(),
            data=session.data.fingerprint,
        )

    def __enter__(self) -> JobHooks:
        """The hooks, ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell how the job ended."""
        self._hooks.__exit__(kind, error, trace)
