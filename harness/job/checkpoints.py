"""The checkpoints of a job: what stands in them, and which of them a job may resume from. Rank 0 reads and writes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoint import (
    iteration_of,
    list_checkpoints,
    newest_valid,
    read_manifest,
    remove_debris,
    set_aside,
    write_checkpoint,
)
from harness.checkpoint.consistency import sum_of
from harness.checkpoint.store import keep_newest
from harness.errors import CheckpointError, ConfigError, listed
from harness.files import make_folder
from harness.folder import Fields, RecordError, RunFolder
from harness.gluon import LearnerState
from harness.gluon.state import refuse_not_finite
from harness.job.finding import plan_by_base
from harness.job.session import Session
from harness.job.settings import environment_of_job
from harness.plan import LRPlan
from harness.shipped import name_command
from harness.train.resume import changes_of_environment, checkpoints_after, refuse_newer_elsewhere
from harness.train.saving import plan_to_json, sizes_to_json

_UNSET = "not set"
_OTHER_FOLDER = "give the job another folder (Job(folder=...))"


class Resumed(NamedTuple):
    """Where a job continues.

    Attributes:
        iteration: of the checkpoint; 0 where there is none.
        base: of its learning rates; `None` where nothing was scaled.
        reference_batch: the global batch that the base was meant for.
        remarks: what the user should know, a sentence each.
        origin: the checkpoint.
        num_ranks: how many ranks have saved it.
    """

    iteration: int = 0
    base: float | None = None
    reference_batch: int | None = None
    remarks: Sequence[str] = ()
    origin: str = ""
    num_ranks: int = 0

    def plan_of(self, plan: LRPlan) -> LRPlan:
        """The plan, with the base that was found then: a job that resumes does not search again."""
        if not plan.in_units_of_base or self.base is None:
            return plan
        return plan_by_base(plan, self.base, self.reference_batch)


class JobCheckpoints:
    """Saves the state of an open job, and takes it up again."""

    def __init__(self, folder: Path) -> None:
        """Nothing is touched yet; the checkpoints lie in `checkpoints` below the job's folder."""
        self._folder = RunFolder(folder)
        self._sets = folder / "checkpoints"
        self._is_known = False  # what lies in the folder was written or resumed from by this job

    def close(self) -> None:
        """Let other processes into the folder."""
        self._folder.close()

    def save(self, session: Session, t: int, keep: int) -> Path:
        """Write the state after update `t`; a collective.

        Args:
            session: of the job.
            t: the iteration.
            keep: how many of the newest checkpoints stay.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: on every rank, if it cannot be written, or an earlier job's would be mixed with this one's.
            DisagreementError: on every rank, if the ranks have drifted apart.
        """
        session.verify(t)
        return Path(session.world.on_root("save", lambda: self._write(session, t, keep)))

    def resume(self, session: Session, plan_may_differ: bool) -> Resumed:
        """Take the newest valid checkpoint; a collective.

        Args:
            session: of the job.
            plan_may_differ: whether to resume though the plan gives other rates than the checkpoint was trained at, or
                the optimizer's numbers or the clipping are others.

        Raises:
            CheckpointError: on every rank, if it does not fit this job, or there are checkpoints and none is valid.
        """
        world = session.world
        newest = max((iteration_of(path) or 0 for path in list_checkpoints(self._sets)), default=0)
        refuse_newer_elsewhere(world.allgather_object((world.hostname, str(self._folder.path), newest), "checkpoints"))
        resumed = Resumed(*world.on_root("resume", lambda: self._read(session, plan_may_differ)))
        if resumed.iteration:
            session.learner.broadcast_state()
        return resumed

    def _write(self, session: Session, t: int, keep: int) -> str:
        self._open()
        present = list_checkpoints(self._sets)
        if present and not self._is_known:
            raise CheckpointError(
                f"{self._sets} holds checkpoints of an earlier job (the newest is {present[-1].name}); continue that "
                "job with job.resume() before the first update, or give this one another folder (Job(folder=...))"
            )
        state = session.learner.snapshot()
        written = write_checkpoint(self._sets, t, state.arrays, _manifest(session, t, state.numbers))
        self._is_known = True
        keep_newest(self._sets, keep)
        return str(written)

    def _read(self, session: Session, plan_may_differ: bool) -> Resumed:
        self._refuse_what_is_no_folder()
        if not list_checkpoints(self._sets):
            return Resumed()
        self._open()
        present = list_checkpoints(self._sets)  # again: until now another process could have written there
        found = newest_valid(present)
        if found.newest is None:
            reasons = listed([reason for _, reason in found.rejected])
            raise CheckpointError(f"{self._sets}: no checkpoint is valid:{reasons}\nto start over, move them aside")
        path = found.newest
        resumed = _compare(session, path, plan_may_differ)
        state = LearnerState.load(path)
        refuse_not_finite(state, str(path))
        problems = session.learner.mismatches(state)
        if problems:
            raise CheckpointError(f"{path}: does not fit this network and optimizer:{listed(problems)}")
        session.learner.restore(state)
        set_aside(checkpoints_after(present, path))
        self._is_known = True
        rejected = [f"rejected: {reason}" for _, reason in found.rejected]
        return resumed._replace(remarks=[*rejected, *resumed.remarks])

    def _refuse_what_is_no_folder(self) -> None:
        """Say so now of a folder that cannot be one, and not when the first checkpoint is saved."""
        for path in (self._sets, self._folder.path):
            if path.is_symlink():
                raise ConfigError(f"{path} is a symbolic link, which is not followed; {_OTHER_FOLDER}")
        for path in (self._sets, *self._sets.parents):
            if path.exists():
                if path.is_dir():
                    return
                raise ConfigError(f"{path} is not a folder, so no checkpoint can be in it; {_OTHER_FOLDER}")

    def _open(self) -> None:
        """Make the folder, and keep other processes from it."""
        try:
            self._folder.open()
        except ConfigError as error:  # whose advice is that of a command
            found, _, advice = str(error).partition(";")
            wait = "wait until that has ended, or " if "wait" in advice else ""  # only for another process
            raise ConfigError(f"{found}; {wait}{_OTHER_FOLDER}") from None
        if (self._folder.path / "config.yaml").exists():
            raise ConfigError(f"{self._folder.path} holds a run of `{name_command('train')}`; {_OTHER_FOLDER}")
        try:
            make_folder(self._sets)
            remove_debris(self._sets)
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be written ({error.strerror}); make it writable") from None


def _manifest(session: Session, t: int, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside the arrays; the names are those of a run's, as far as a job has them."""
    plan = session.plan
    return {
        "state": {"iteration": t, **numbers},
        "job": {**_facts(session), **_options(session)},
        **sizes_to_json(session.sizes),
        "plan": {
            **plan_to_json(plan, plan.fingerprint(), t),
            "momentum": {str(i): plan.momentum(i) for i in (t - 1, t, t + 1) if 1 <= i <= plan.sizes.num_iterations},
            "base": plan.config.base,
            "reference_batch": plan.config.reference_batch,
        },
        "environment": environment_of_job(),
        "world": session.world.to_json(),
    }


def _facts(session: Session) -> dict[str, Any]:
    """What has to be the same when a job resumes."""
    settings = session.given.settings
    return {
        "shards": session.sizes.shards,
        "batch": session.sizes.batch_size,
        "num_samples": session.sizes.num_samples,
        "data": session.data.fingerprint,
        "items": session.data.items_digest,
        "seed": settings.seed,
        "last_batch": settings.last_batch,
        "augmentation": repr(session.given.augmentation),
    }


def _options(session: Session) -> dict[str, Any]:
    """What may be changed where that is wanted; checkpoints of earlier versions do not tell it."""
    settings = session.given.settings
    return {
        "clip_norm": settings.clip_norm,
        "compression": settings.compression,
        "momentum_correction": settings.lr.momentum_correction,
        **session.described,
    }


def _compare(session: Session, path: Path, plan_may_differ: bool) -> Resumed:
    """Refuse a checkpoint of another job; what is only unusual is told."""
    try:
        fields = Fields(read_manifest(path))
        if not fields.has("job"):
            raise CheckpointError(
                f"{path}: was not saved by a Job; to begin with its weights: net.load_parameters, after "
                f"`{name_command('checkpoint')} export {path} FILE`"
            )
        t, saved, plan = fields.whole("iteration"), fields.inner("job"), fields.inner("plan")
        own, rates = _facts(session), plan.inner("lr")
        then, names = {name: saved.value(name) for name in own}, rates.keys()
        told, mine = saved.keys(), _options(session)
        options = {name: saved.value(name) for name in mine if name in told}
        momenta = plan.inner("momentum") if plan.has("momentum") else Fields({})
        at = momenta.keys()
        planned = {int(name): momenta.maybe(momenta.number, name) for name in at}
        trained = {int(name): rates.number(name) for name in names}
        base, batch = plan.maybe(plan.number, "base"), plan.maybe(plan.whole, "reference_batch")
        world = fields.inner("world")
        environment = {**fields.plain("environment"), "sum": sum_of(world, own["shards"])}
        num_ranks = world.whole("size", 1)
    except (RecordError, ValueError) as error:
        raise CheckpointError(f"{path}: manifest.json: {error}; resume from another checkpoint") from None
    problems = list(_changes("", then, own))
    changes = list(_changes("", options, {name: mine[name] for name in options}))
    problems += [change for change in changes if change.startswith("optimizer.class ")]
    if problems:
        raise CheckpointError(f"{path}: belongs to another job:{listed(problems)}\ngive the job what it had then")
    if t > session.sizes.num_iterations:
        raise CheckpointError(
            f"{path}: is {t} iterations into its job, which would now end after {session.sizes.num_iterations}; give "
            "more epochs or iterations"
        )
    now = {**environment_of_job(), "sum": session.world.sum_by}
    resumed = Resumed(t, base, batch, changes_of_environment(environment, now), str(path), num_ranks)
    if not plan_may_differ:
        _refuse_other_rates(path, trained, resumed.plan_of(session.plan))
        _refuse_other_options(path, [*changes, *_changes_of_momentum(planned, session.plan)])
    return resumed


def _changes(place: str, then: Any, now: Any) -> Iterator[str]:
    """A sentence for every value that differs, by the names that lead to it."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in {**then, **now}:
            inner = f"{place}.{name}" if place else name
            yield from _changes(inner, then.get(name, _UNSET), now.get(name, _UNSET))
    elif then != now or isinstance(then, bool) != isinstance(now, bool):
        was, is_now = (_UNSET if value is None else value for value in (then, now))
        yield f"{place} was {was}, now {is_now}"


def _changes_of_momentum(then: Mapping[int, float | None], plan: LRPlan) -> Iterator[str]:
    for t, momentum in then.items():
        now = plan.momentum(t) if t <= plan.sizes.num_iterations else momentum
        yield from _changes(f"the planned momentum of iteration {t}", momentum, now)


def _refuse_other_options(path: Path, changes: Sequence[str]) -> None:
    if changes:
        raise CheckpointError(
            f"{path}: was trained with other settings:{listed(changes)}\ngive the job what it had then, or continue by "
            "the new ones: job.resume(plan_may_differ=True)"
        )


def _refuse_other_rates(path: Path, trained: Mapping[int, float], plan: LRPlan) -> None:
    for t, rate in trained.items():
        now = plan.lr(t) if t <= plan.sizes.num_iterations else rate
        if not math.isclose(rate, now, rel_tol=1e-9, abs_tol=1e-12):
            raise CheckpointError(
                f"{path}: its plan has a learning rate of {rate:g} at iteration {t}, this job's plan {now:g}; give the "
                "same lr, epochs and iterations, or continue by the new plan: job.resume(plan_may_differ=True)"
            )
