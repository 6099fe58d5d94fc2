"""Which set a run goes on from, and what it then is: configuration, plan and state of the run that was begun.

Rank 0 looks at its disk and tells the others; from there on everything is decided from the same manifest everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoint import (
    Manifest,
    iteration_of,
    list_checkpoints,
    locate,
    newest_valid,
    read_manifest,
    remove_debris,
    set_aside,
)
from harness.comm import World
from harness.config import RunConfig
from harness.errors import CheckpointError, ConfigError
from harness.files import TEMPORARY, make_folder
from harness.finder import with_base
from harness.folder import RunFolder
from harness.plan import Amendment, LRPlan, Sizes
from harness.train.conflicts import (
    Conflicts,
    amend,
    compare,
    explain_plan,
    refuse_fixed,
    refuse_foreign_code,
    saved_config,
    take_saved,
)
from harness.train.plans import amendments_of, has_own_code, refuse_other_rates, resumed_plan, saved_plan

_OWN = {
    *("config.yaml", "plan.json", "plan.csv", "plan.png", "metrics.jsonl", "tensorboard", "checkpoints"),
    *("attempts.jsonl", "outcome.json", "failures", "report.html", ".lock"),
}


class StartOptions(NamedTuple):
    """How a run begins, as the command line says.

    Attributes:
        resume: `auto` (from the newest whole set in the run's folder, if there is one), `never`, or the path of a set,
            a folder of sets or another run's folder.
        overwrite: move an existing folder of the same name aside.
        on_conflict: where set and configuration differ: `error`, or go on by `config` or `checkpoint`.
    """

    resume: str = "never"
    overwrite: bool = False
    on_conflict: str = "error"


class ResumePoint(NamedTuple):
    """The set that a run goes on from.

    Attributes:
        path: of the set.
        manifest: what it says, checked.
        here: whether it lies in the run's own folder.
        abandoned: sets in the run's folder that are newer, or damaged: they do not belong to the run any more.
        reasons: why newer sets were rejected.
    """

    path: str
    manifest: Manifest
    here: bool
    abandoned: list[str]
    reasons: list[str]

    @property
    def iteration(self) -> int:
        """The last update that the set contains."""
        return self.manifest.iteration

    def amendments(self) -> tuple[Amendment, ...]:
        """What was changed in the plan until then.

        Raises:
            CheckpointError: if the manifest holds none that are possible.
        """
        return amendments_of(self.manifest, self.path)


def agree_on_resume_point(world: World, folder: RunFolder, start: StartOptions) -> ResumePoint | None:
    """The set that every rank goes on from, which is the one that rank 0 finds; a collective.

    Raises:
        CheckpointError: on every rank, if rank 0 finds none that is whole, or an older one than another rank sees:
            without a shared disk, a rank 0 on another host than the last time would begin anew without a word.
        ConfigError: on every rank, if rank 0's folder is in use, or is no run's.
    """
    own = (world.hostname, str(folder.path), _newest_here(folder) if start.resume == "auto" else 0)
    refuse_newer_elsewhere(world.allgather_object(own, "sets"))

    def find() -> list[Any] | None:
        origin = find_resume_point(folder, start)
        return None if origin is None else [origin.path, origin.manifest.content, *origin[2:]]

    found = world.on_root("origin", find)
    return None if found is None else ResumePoint(found[0], Manifest.of(found[1], found[0]), *found[2:])


def refuse_newer_elsewhere(places: Sequence[tuple[str, str, int]]) -> None:
    """Refuse to go on from an older set than there is.

    Args:
        places: of each rank the host, the run's folder there, and the iteration of its newest set, or 0.

    Raises:
        CheckpointError: if another rank has a newer set than rank 0.
    """
    host, folder, newest = places[0]
    rank, (there, other, newer) = max(enumerate(places), key=lambda place: place[1][2])
    if newer > newest:
        raise CheckpointError(
            f"{folder}: rank 0, on {host}, has {f'no set after iteration {newest}' if newest else 'no set'}, but rank "
            f"{rank} has one of iteration {newer} in {other} on {there}; only rank 0's folder counts. Name {there} "
            f"first when the job is started, or copy its folder to {host}; to do without that set, move it aside"
        ).on_all_ranks()


def find_resume_point(folder: RunFolder, start: StartOptions) -> ResumePoint | None:
    """Look for the set to go on from; `None` for a run that begins anew. Nothing is changed but the folder's lock.

    Raises:
        CheckpointError: if there are sets and none is whole, or the path given has none.
        ConfigError: if the folder is in use, or is no run's.
    """
    if start.resume == "never":
        return None
    own = folder.path / "checkpoints"
    if folder.path.parent.is_dir():
        folder.reserve()  # what is found here must still be true when the folder is opened
    if folder.path.exists() and not start.overwrite:
        _refuse_foreign(folder.path)
        folder.lock()
    sets = list_checkpoints(own) if start.resume == "auto" else locate(Path(start.resume))
    if not sets:
        if (folder.path / "final.params").exists():
            raise ConfigError(
                f"{folder.path} holds a finished run without checkpoints; move it aside with --overwrite, or choose "
                "another --set name=..."
            )
        return None
    found = newest_valid(sets)
    reasons = [reason for _, reason in found.rejected]
    if found.newest is None:
        raise CheckpointError(
            "no set is whole:\n  "
            + "\n  ".join(reasons)
            + "\nbegin anew with --overwrite, which moves the folder aside"
        )
    here = found.newest.parent.resolve() == own.resolve()
    later = checkpoints_after(list_checkpoints(own), found.newest) if here else []
    content = read_manifest(found.newest)
    if "config" not in content:
        raise CheckpointError(
            f"{found.newest}: was not written by a run, so there is no plan to go on by; begin a run with its weights: "
            f"--set init.from={found.newest}"
        )
    manifest = Manifest.of(content, found.newest)
    return ResumePoint(str(found.newest), manifest, here, [str(path) for path in later], reasons)


def checkpoints_after(sets: Sequence[Path], place: Path) -> list[Path]:
    """The sets of later iterations, which a run that goes on from `place` gives up."""
    return [path for path in sets if (iteration_of(path) or 0) > (iteration_of(place) or 0)]


def open_folder(folder: RunFolder, start: StartOptions, origin: ResumePoint | None) -> list[str]:
    """Make the folder of a new run, or take up that of one that goes on.

    Returns:
        What the user should know of it, a sentence each.

    Raises:
        ConfigError: if the folder holds a run already, is in use, or cannot be written.
    """
    goes_on = origin is not None and origin.here
    if start.overwrite and folder.path.parent.is_dir():
        folder.reserve()
        _refuse_foreign(folder.path)  # what is moved aside is a run, and not whatever has the run's name
    begins_again = origin is None and start.resume == "auto" and folder.path.exists() and not start.overwrite
    moved_aside = None if goes_on or begins_again else folder.claim(start.overwrite)
    folder.lock()
    if begins_again and list_checkpoints(folder.path / "checkpoints"):
        raise ConfigError(f"{folder.path}: another process has just trained there; start again with --resume auto")
    said = [] if moved_aside is None else [f"the run that was there is now {moved_aside}"]
    said += folder.remarks
    said += [] if origin is None else [f"rejected: {reason}" for reason in origin.reasons]
    try:
        sets = folder.path / "checkpoints"
        make_folder(sets)
        remove_debris(folder.path)
        remove_debris(sets)
        if origin is not None:
            moved = set_aside([Path(path) for path in origin.abandoned])
            said += [
                f"no longer of this run: {old} is now {new}" for old, new in zip(origin.abandoned, moved, strict=True)
            ]
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be written ({error.strerror}); make it writable") from None
    return said


class ResolvedConfig(NamedTuple):
    """A configuration that has met the set that the run goes on from.

    Attributes:
        config: what holds from here on, resolved.
        saved: what held when the set was written.
        conflicts: how they differ where it matters.
        amendments: of the plan, this start's included.
        saved_amendments: of the plan that the set was trained by.
        undecided: whether the user has to choose before anything goes on.
    """

    config: RunConfig
    saved: RunConfig
    conflicts: Conflicts
    amendments: Sequence[Amendment]
    saved_amendments: Sequence[Amendment]
    undecided: bool


def settle(config: RunConfig, origin: ResumePoint, *, workers: int, threads: int, on_conflict: str) -> ResolvedConfig:
    """Compare the run's configuration with the set's, and take one of the two where they differ.

    Raises:
        CheckpointError: for what cannot change in a run, and if the workers cannot share its shards.
    """
    manifest, path = origin.manifest, origin.path
    shards, amendments = manifest.shards, origin.amendments()
    if config.batch.shards in (None, shards) and shards % workers:
        fitting = ", ".join(str(n) for n in range(1, min(shards, 1024) + 1) if shards % n == 0)
        raise CheckpointError(
            f"{path}: its run has {shards} shards of {manifest.batch_size}, which cannot be dealt evenly to "
            f"{workers} workers; go on with a number of workers that divides {shards}: {fitting}"
        )
    if not origin.here:
        refuse_foreign_code(manifest, amendments, config, path)
    saved = saved_config(manifest, path)
    if config.lr.base == "auto" and isinstance(saved.lr.base, float):
        config = with_base(config, saved.lr.base, saved.lr.reference_batch)  # a run that goes on never finds again
    wanted = config.resolved(shards=config.batch.shards or shards, threads=threads)
    conflicts = compare(saved, wanted)
    if on_conflict == "checkpoint":
        wanted = take_saved(conflicts, wanted)
        refuse_fixed(path, conflicts._replace(optimizer=[]), config.source)
    else:
        refuse_fixed(path, conflicts, config.source)
    saved_amendments = amendments
    differs = bool(conflicts.plan or conflicts.optimizer)
    if differs and on_conflict != "error":
        amendments = amend(amendments, origin.iteration, on_conflict, conflicts, saved)
    undecided = differs and on_conflict == "error"
    return ResolvedConfig(wanted, saved, conflicts, amendments, saved_amendments, undecided)


def resolve_plan(settled: ResolvedConfig, origin: ResumePoint, sizes: Sizes) -> tuple[LRPlan, str | None]:
    """The plan of a run that goes on; and, where the user has to choose, what the choice is between.

    Raises:
        CheckpointError: if the run would already be over, or its plan cannot be used or contradicts its manifest.
    """
    source, path, manifest = settled.config.source, origin.path, origin.manifest
    plan, conflict = resumed_plan(settled.config, sizes, settled.amendments, path), None
    by_own_code, before = has_own_code(manifest, settled.saved_amendments), plan
    if settled.undecided or (settled.conflicts.plan and not by_own_code):
        before = saved_plan(settled.saved, sizes, settled.saved_amendments, path)
    if not by_own_code:
        refuse_other_rates(manifest, before, path)
    if settled.undecided:
        conflict = explain_plan(path, settled.conflicts, origin.iteration, before, plan, source)
    if origin.iteration > sizes.num_iterations:
        raise CheckpointError(
            f"{source}: {path} is {origin.iteration} iterations into its run, which would now end after "
            f"{sizes.num_iterations}; make the run longer (train), or go on from an earlier set with --resume PATH"
            + (f"\n{conflict}" if conflict else "")
        )
    return plan, conflict


def warnings_for(origin: ResumePoint, environment: dict[str, Any]) -> Sequence[str]:
    """What may change the last bits of a result: other versions, another number of threads."""
    then = origin.manifest.environment
    differing = [f"{key} {then.get(key)} -> {now}" for key, now in environment.items() if then.get(key) != now]
    return [f"the last bits may differ from an unbroken run's: {', '.join(differing)}"] if differing else []


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file and not the folder of a run; choose another --set name=...")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(("finder", TEMPORARY))}
    if "config.yaml" not in names and names - _OWN:
        raise ConfigError(
            f"{folder} is not the folder of a run (it has no config.yaml, but {', '.join(sorted(names - _OWN)[:3])}); "
            "choose another --set name=..."
        )


def _newest_here(folder: RunFolder) -> int:
    """The iteration of the newest set in a folder; 0 if there is none, or none that this host can read."""
    with suppress(OSError, CheckpointError):
        return max((iteration_of(path) or 0 for path in list_checkpoints(folder.path / "checkpoints")), default=0)
    return 0
