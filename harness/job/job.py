"""A training job as a program writes it: what is trained, on which data, at which rate; then a loop of its own.

It only puts the parts together that the rest of the package has, and computes nothing: by hand they give the same bits.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from harness.comm import World
from harness.errors import ConfigError
from harness.finder import FinderResult, FinderSettings
from harness.gluon import Learner
from harness.job.checkpoints import JobCheckpoints
from harness.job.evaluation import Evaluator, MetricsGiven
from harness.job.finding import find_rate
from harness.job.given import given_of
from harness.job.hooks import JobHooks
from harness.job.session import Session, open_session
from harness.job.settings import WHERE, JobOptions, of_kind, whole_number
from harness.plan import LRPlan, Sizes

_VERIFY_EVERY = 500  # updates


class Job:
    """Trains a network on all ranks of the job that the process belongs to; to be used as a context.

    >>> with Job(net, loss, optimizer, train=data, batch=32, epochs=4, lr=0.1) as job:  # doctest: +SKIP
    ...     for t in job:
    ...         loss = job.update(t)
    ...     print(job.evaluate(test))

    Attributes:
        iteration: the last update that was made; 0 before the first.
        folder: where `save` puts checkpoints.
        stopped: whether a hook has asked for the end, which was saved; the loop over the job is then over.
    """

    def __init__(
        self,
        net: Any,
        loss: Any,
        optimizer: Any,
        *,
        train: object,
        batch: int,
        lr: object,
        epochs: int | None = None,
        iterations: int | None = None,
        shards: int | None = None,
        folder: str | Path | None = None,
        **options: Unpack[JobOptions],
    ) -> None:
        """Check what was given; nothing starts before `with`.

        Args:
            net: a `gluon.Block` that was initialised, on the devices on which it is to be trained.
            loss: maps (prediction, label) to one value a sample, or to numerators and weights of any shape.
            optimizer: an `mx.optimizer.Optimizer`, a name, or a name with its parameters
                (`{"sgd": {"momentum": 0.9}}`). Its own learning rate does not count.
            train: a `gluon.data.Dataset`, a pair `(data, label)` of arrays, or a data set of `harness.data`.
            batch: samples of a shard, which is what one forward and backward computes.
            lr: a number; what the section `lr` of a configuration holds (`{"base": 0.1, "warmup": ..., "schedule":
                ...}`); a schedule, a function of the iteration, or an object of `mx.lr_scheduler`.
            epochs: how long.
            iterations: how long, instead of `epochs`.
            shards: shards of a global batch, which is `shards * batch` samples; by default one for each worker. Bits
                depend on it, and not on the number of workers.
            folder: of the checkpoints; by default `runs/` and the name of the program.
            **options: those that follow.
            forward: calls network and loss, `forward(net, loss, data, label) -> (prediction, losses)`, where
                `loss(net(*data), label)` does not.
            transform: `transform(item, random)` makes a pair (data, label) of an item, in training and evaluation.
            collate: `collate(items, random)` makes a batch (data, label) of items; or a name (`"pad"`), or a name with
                its parameters (`{"pad": {"value": 1}}`). `random` is a `numpy.random.Generator`, or None in evaluation.
            state: rows -> the first state of a shard with so many rows, for a network that carries state from one
                update to the next: `net(data, state) -> (output, state)`. Samples are then read as streams.
            bucket: batches of samples of alike lengths, `{"by": "data[1]", "widths": [16, 32]}`, as `data.bucket`.
            batches: `batches(lengths, epoch, seed)` returns the global batches of an epoch, as `data.batches`.
            last_batch: what becomes of an epoch's remainder: `"drop"` (the default) or `"keep"`.
            augmentation: what is done to pictures.
            clip_norm: the largest Euclidean norm of the mean gradient.
            compression: what ranks send of gradients: `"none"` (the default) is float32, `"fp16"` is 16 bits, for slow
                networks.
            seed: for shuffling, augmentation and dropout, by default 0; weights are the program's to seed.
            stall_after_s: seconds without progress after which ranks that wait for each other end; by default 1800.
            hooks: functions that rank 0 calls with what happens (`harness.hooks`); they change nothing.
            hooks_fail: what an error in one of them means: `"warn"` (the default), or `"stop"`.
            log_every: every how many updates they are told the loss; by default 10.
            world: ranks that are joined already, and stay so afterwards, for programs of several jobs.

        Raises:
            ConfigError: for what cannot be trained, in one message.
        """
        folder = f"runs/{_program()}" if folder is None else folder
        own = {"batch": batch, "epochs": epochs, "iterations": iterations, "shards": shards, "folder": folder}
        self._given = given_of(net, loss, optimizer, train, lr, own, options)
        self.folder = Path(self._given.settings.folder)
        self.iteration, self.stopped = 0, False
        self._session: Session | None = None
        self._was_opened = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Join the ranks, read the data, build plan and learner; a collective.

        Raises:
            HarnessError: on every rank, whatever rank it began on.
        """
        if self._was_opened:
            raise ConfigError(f"{WHERE}: was opened before; make a new Job")
        self._was_opened = True
        with ExitStack() as stack:
            self._session = open_session(self._given, stack)
            self._checkpoints = JobCheckpoints(self.folder)
            stack.callback(self._checkpoints.close)
            self._evaluator = Evaluator(self._session)
            self._warn(self._session.remarks)
            self._hooks = stack.enter_context(JobHooks(self._session, self.folder))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the streams and leave the other ranks, in good order whatever has happened; once closed, do nothing.

        Raises:
            ConfigError: if it was never opened.
        """
        if not self._was_opened:
            raise ConfigError(f"{WHERE}: is not open yet, so it cannot be closed; write `with Job(...) as job:`")
        self._session = None
        self._stack.pop_all().__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[int]:
        """The iterations that are left, each of which wants `update`."""
        while self.iteration < self._call("iterated over").sizes.num_iterations and not self.stopped:
            before = self.iteration
            yield before + 1
            self._call("iterated over")
            if self.iteration == before:
                raise ConfigError(f"{WHERE}: the loop did not call job.update({before + 1}); call it for every t")

    def update(self, t: int) -> Any:
        """Make update `t`, over the samples of all ranks; a collective.

        Args:
            t: the iteration that is next.

        Returns:
            The mean loss of the global batch before the update; `float()` of it waits for it.

        Raises:
            ConfigError: if another update is next, or `t` is no whole number.
            DivergedError: on every rank, if loss or gradient are not finite, in this update or the one before.
        """
        session = self._call("updated")
        t, total = whole_number("update", t), session.sizes.num_iterations
        if t != self.iteration + 1 or t > total:
            following = f"{self.iteration + 1} is next" if self.iteration < total else f"it ended after {total}"
            raise ConfigError(f"{WHERE}: update {t} is out of order, {following}; loop over the job: for t in job")
        plan = self.plan
        if plan.in_units_of_base:
            raise ConfigError(f"{WHERE}: lr.base is auto and not found yet; call job.find_lr() before the first update")
        self._hooks.begin(session, self.iteration)
        session.ranks.enter(f"iteration {t}")
        loss = session.learner.update(session.stream(t), plan.lr(t), plan.momentum(t), self._hooks.ask())
        self.iteration = t
        if t % _VERIFY_EVERY == 0 or t == total:
            session.verify(t)
        asked = self._hooks.updated(session, t, loss)
        if asked.save or asked.stop:
            self.save()
        if asked.stop or t == total:
            self._hooks.raise_failure()
        self.stopped = asked.stop and t < total
        session.ranks.enter(f"the program, after iteration {t}")
        return loss

    def evaluate(
        self, data: object, metrics: MetricsGiven | None = None, *, streams: int | None = None, name: str = "evaluation"
    ) -> dict[str, float]:
        """The mean loss and metrics over data, every sample once; a collective.

        Args:
            data: as `train`.
            metrics: names, such as `["accuracy", {"top_k": {"k": 3}}]` (all are in `harness.model.metrics.METRICS`), or
                by name functions that map predictions and labels to one value a sample, or objects with `sums` or
                `rows` and `finish` (`harness.model.Sums`, `harness.model.Rows`). By default the accuracy where the loss
                picks classes.
            streams: for a network that carries state, how many rows read the data from front to back; by default as
                many as a global batch has.
            name: what hooks are told these data are.

        Returns:
            `loss` and each metric by name, the same on every rank; `name.key` where one reports several numbers.
        """
        session = self._call("evaluated")
        self._hooks.begin(session, self.iteration)
        session.ranks.enter(f"evaluation after iteration {self.iteration}")
        found = self._evaluator(data, metrics, streams)
        self._hooks.evaluated(session, self.iteration, name, found)
        session.ranks.enter(f"the program, after iteration {self.iteration}")
        return found

    def find_lr(self, settings: FinderSettings | None = None) -> FinderResult:
        """Sweep over learning rates and put everything back; a collective.

        Args:
            settings: of the sweep; by default those of a configuration.

        Returns:
            The result: `suggestion.lr`, or `suggestion.refusal`, and the curves. With `lr={"base": "auto", ...}` the
            job trains by it from now on.

        Raises:
            ConfigError: if the settings are of another kind.
            NoUsableLRError: on every rank, if the base is `auto` and no rate is reliable.
        """
        session = self._call("swept")
        chosen = of_kind("settings", settings, FinderSettings)
        result, plan = find_rate(session, chosen, self.iteration)
        self._session = replace(session, plan=plan)
        return result

    def save(self, keep: int = 3) -> Path:
        """Write the whole state, which is complete on the disk when this returns; a collective.

        Args:
            keep: how many of the newest checkpoints stay, at least 1.

        Returns:
            The checkpoint, in `folder`.

        Raises:
            ConfigError: if `keep` is no such number.
            CheckpointError: on every rank, if it cannot be written.
        """
        session = self._call("saved")
        self._hooks.begin(session, self.iteration)
        path = self._checkpoints.save(session, self.iteration, whole_number("keep", keep, least=1))
        self._hooks.saved(self.iteration, path)
        session.ranks.enter(f"the program, after iteration {self.iteration}")
        return path

    def resume(self, plan_may_differ: bool = False) -> int:
        """Take up the newest valid checkpoint in `folder`, if there is one; a collective.

        Args:
            plan_may_differ: whether to resume though the learning rates, the optimizer's numbers, `clip_norm` or
                `compression` are others than they were.

        Returns:
            The iteration after which the loop continues; 0 where nothing was saved.

        Raises:
            CheckpointError: on every rank, if it does not fit this job, or there are checkpoints and none is valid.
            ConfigError: on every rank, if `folder` is not a folder.
        """
        session = self._call("resumed")
        resumed = self._checkpoints.resume(session, plan_may_differ)
        if resumed.iteration:
            self.iteration = resumed.iteration
            self._hooks.resumed(resumed.origin, resumed.num_ranks)
            self._session = replace(session, plan=resumed.plan_of(session.plan))
        self._warn(resumed.remarks)
        return resumed.iteration

    def lr(self, t: int) -> float:
        """The learning rate of update `t`, from 0 (before the first) to the job's last.

        Raises:
            ConfigError: for anything else.
        """
        plan = self.plan
        return plan.lr(whole_number("lr(t)", t, most=plan.sizes.num_iterations))

    def print(self, *values: object) -> None:
        """Print on rank 0, once for the whole job."""
        if self.rank == 0:
            print(*values, flush=True)

    @property
    def plan(self) -> LRPlan:
        """Learning rate and momentum of every iteration."""
        return self._open("asked for its plan").plan

    @property
    def sizes(self) -> Sizes:
        """Samples, shards, iterations, epochs."""
        return self._open("asked for its sizes").sizes

    @property
    def learner(self) -> Learner:
        """Network and optimizer, with their state."""
        return self._open("asked for its learner").learner

    @property
    def world(self) -> World:
        """The ranks."""
        return self._open("asked for its world").world

    @property
    def rank(self) -> int:
        """This process among all, from 0."""
        return self.world.rank

    def _call(self, what: str) -> Session:
        """The session, for what all ranks do together; which a hook, called on one of them, may not begin."""
        session = self._open(what)
        if self._hooks.are_called:
            raise ConfigError(f"{WHERE}: cannot be {what} by a hook, which rank 0 calls alone; return an Ask")
        return session

    def _open(self, what: str) -> Session:
        if self._session is None:
            state = "is closed" if self._was_opened else "is not open yet"
            raise ConfigError(f"{WHERE}: {state}, so it cannot be {what}; do that inside `with Job(...) as job:`")
        return self._session

    def _warn(self, remarks: Sequence[str]) -> None:
        for remark in remarks if self.rank == 0 else ():
            warnings.warn(remark, stacklevel=3)


def _program() -> str:
    name = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ""
    return name or "job"
