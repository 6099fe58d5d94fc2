"""Which checkpoint a run resumes from, and the folder that it takes. What follows from it is decided in `resolve`.

Rank 0 looks at its disk and tells the others, so that every rank has the same manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from harness.errors import CheckpointError, ConfigError
from harness.files import TEMPORARY, make_folder
from harness.folder import SMOKE, RunFolder
from harness.plan import Amendment
from harness.train.plans import amendments_of

_OWN = {
    *("config.yaml", "plan.json", "plan.csv", "plan.png", "metrics.jsonl", "tensorboard", "checkpoints"),
    *("attempts.jsonl", "outcome.json", "failures", "report.html", ".lock", "profile", SMOKE),
}


class StartOptions(NamedTuple):
    """How a run starts, as the command line says.

    Attributes:
        resume: `auto` (from the newest valid checkpoint in the run's folder, if there is one), `never`, or the path of
            a checkpoint, a folder of checkpoints or another run's folder.
        overwrite: move an existing folder of the same name aside.
        on_conflict: where checkpoint and configuration differ: `error`, or continue by `config` or `checkpoint`.
    """

    resume: str = "never"
    overwrite: bool = False
    on_conflict: str = "error"


class ResumePoint(NamedTuple):
    """The checkpoint that a run resumes from.

    Attributes:
        path: of the checkpoint.
        manifest: what it says, checked.
        here: whether it is in the run's own folder.
        abandoned: checkpoints in the run's folder that are newer or damaged, and no longer belong to the run.
        reasons: why newer checkpoints were rejected.
    """

    path: str
    manifest: Manifest
    here: bool
    abandoned: list[str]
    reasons: list[str]

    @property
    def iteration(self) -> int:
        """The last update that the checkpoint contains."""
        return self.manifest.iteration

    @property
    def num_ranks(self) -> int:
        """How many ranks have saved it."""
        return int(self.manifest.content["world"]["size"])

    def amendments(self) -> tuple[Amendment, ...]:
        """What was changed in the plan until then.

        Raises:
            CheckpointError: if the manifest holds none that are possible.
        """
        return amendments_of(self.manifest, self.path)


def agree_on_resume_point(world: World, folder: RunFolder, start: StartOptions) -> ResumePoint | None:
    """The checkpoint that every rank resumes from, which is the one that rank 0 finds; a collective.

    Raises:
        CheckpointError: on every rank, if rank 0 finds no valid one, or an older one than another rank sees: without a
            shared disk, a rank 0 on another host than the last time would start over without a word.
        ConfigError: on every rank, if rank 0's folder is in use, or is not the folder of a run.
    """
    # Before rank 0's choice counts: on hosts without a shared disk another rank may hold the newer checkpoints.
    own = (world.hostname, str(folder.path), _newest_here(folder) if start.resume == "auto" else 0)
    refuse_newer_elsewhere(world.allgather_object(own, "checkpoints"))

    def find() -> list[Any] | None:
        point = find_resume_point(folder, start)
        return None if point is None else [point.path, point.manifest.content, *point[2:]]

    found = world.on_root("resume point", find)
    return None if found is None else ResumePoint(found[0], Manifest.of(found[1], found[0]), *found[2:])


def refuse_newer_elsewhere(places: Sequence[tuple[str, str, int]]) -> None:
    """Refuse to resume from an older checkpoint than there is.

    Args:
        places: of each rank the host, the run's folder there, and the iteration of its newest checkpoint, or 0.

    Raises:
        CheckpointError: if another rank has a newer checkpoint than rank 0.
    """
    host, folder, newest = places[0]
    rank, (there, other, newer) = max(enumerate(places), key=lambda place: place[1][2])
    if newer > newest:
        raise CheckpointError(
            f"{folder}: rank 0, on {host}, has no checkpoint{f' after iteration {newest}' if newest else ''}, but rank "
            f"{rank} has one of iteration {newer} in {other} on {there}; only rank 0's folder counts. Name {there} "
            f"first when you start the job, or copy its folder to {host}; to do without that checkpoint, move it aside"
        ).on_all_ranks()


def find_resume_point(folder: RunFolder, start: StartOptions) -> ResumePoint | None:
    """Look for the checkpoint to resume from; `None` for a run that starts over. Only the folder's lock is changed.

    Raises:
        CheckpointError: if there are checkpoints and none is valid, or the path given has none.
        ConfigError: if the folder is in use, or is not the folder of a run.
    """
    if start.resume == "never":
        return None
    own = folder.path / "checkpoints"
    if folder.path.parent.is_dir():
        folder.reserve()  # what is found here must still be true when the folder is opened
    if folder.path.exists() and not start.overwrite:
        _refuse_foreign(folder.path)
        folder.lock()

    # The newest that passes verification; damaged ones are told, and passed over.
    found = list_checkpoints(own) if start.resume == "auto" else locate(Path(start.resume))
    if not found:
        if (folder.path / "final.params").exists():
            raise ConfigError(
                f"{folder.path} holds a finished run without checkpoints; move it aside with --overwrite, or choose "
                "another --set name=..."
            )
        return None
    newest, rejected = newest_valid(found)
    reasons = [reason for _, reason in rejected]
    if newest is None:
        raise CheckpointError(
            "no valid checkpoint:\n  "
            + "\n  ".join(reasons)
            + "\nstart over with --overwrite, which moves the folder aside"
        )

    # Later checkpoints of the run's own are of a future that this start gives up; another run's are left alone.
    here = newest.parent.resolve() == own.resolve()
    later = checkpoints_after(list_checkpoints(own), newest) if here else []
    content = read_manifest(newest)
    if "config" not in content:
        raise CheckpointError(
            f"{newest}: was not written by a run, so there is no plan to resume; start a run with its weights: --set "
            f"init.from={newest}"
        )
    manifest = Manifest.of(content, newest)
    return ResumePoint(str(newest), manifest, here, [str(path) for path in later], reasons)


def checkpoints_after(checkpoints: Sequence[Path], place: Path) -> list[Path]:
    """Those of later iterations, which a run that resumes from `place` gives up."""
    return [path for path in checkpoints if (iteration_of(path) or 0) > (iteration_of(place) or 0)]


def open_folder(folder: RunFolder, start: StartOptions, resume_point: ResumePoint | None) -> list[str]:
    """Make the folder of a new run, or open that of a run that resumes.

    Returns:
        What the user should know of it, a sentence each.

    Raises:
        ConfigError: if the folder holds a run already, is in use, or cannot be written.
    """
    # A run that resumes in its own folder keeps it; with --overwrite, or under a new name, it gets a new one.
    resumes_here = resume_point is not None and resume_point.here
    if start.overwrite and folder.path.parent.is_dir():
        folder.reserve()
        _refuse_foreign(folder.path)  # what is moved aside is a run, and not whatever has the run's name
    starts_over = resume_point is None and start.resume == "auto" and folder.path.exists() and not start.overwrite
    moved_aside = None if resumes_here or starts_over else folder.claim(start.overwrite)
    folder.lock()
    checkpoints = folder.path / "checkpoints"
    # between the search and the lock another process may have begun, trained and ended
    if starts_over and list_checkpoints(checkpoints):
        raise ConfigError(f"{folder.path}: another process has just trained there; start again with --resume auto")
    notes = [] if moved_aside is None else [f"moved the previous run to {moved_aside}"]
    notes += folder.remarks
    notes += [] if resume_point is None else [f"rejected: {reason}" for reason in resume_point.reasons]
    try:
        make_folder(checkpoints)
        remove_debris(folder.path)
        remove_debris(checkpoints)
        # not before everything else has succeeded: a resume that is refused leaves later checkpoints where they are
        abandoned = [] if resume_point is None else resume_point.abandoned
        moved = set_aside([Path(path) for path in abandoned])
        notes += [
            f"no longer part of this run: moved {old} to {new}" for old, new in zip(abandoned, moved, strict=True)
        ]
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be written ({error.strerror}); make it writable") from None
    return notes


def warnings_for(resume_point: ResumePoint, environment: dict[str, Any]) -> Sequence[str]:
    """What may change the last bits of a result: other versions, another number of threads, another order of sums."""
    manifest = resume_point.manifest
    return changes_of_environment({**manifest.environment, "sum": manifest.sum_by}, environment)


def changes_of_environment(then: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """How the environment differs from the one that a checkpoint was saved in; a sentence, or nothing."""
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
    """The iteration of the newest checkpoint in a folder; 0 if this host has none, or none that it can read."""
    with suppress(OSError, CheckpointError):
        return max((iteration_of(path) or 0 for path in list_checkpoints(folder.path / "checkpoints")), default=0)
    return 0
