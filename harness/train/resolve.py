"""What a checkpoint makes of the configuration and the plan of the run that resumes from it. Pure.

Every rank decides the same, from the same manifest; what the user has to choose is told once the network fits, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from harness.config import RunConfig
from harness.errors import CheckpointError
from harness.finder import with_base
from harness.plan import Amendment, LRPlan, Sizes, at_most, with_choice
from harness.train.conflicts import (
    Conflicts,
    compare,
    explain_plan,
    refuse_fixed,
    refuse_foreign_code,
    saved_config,
    take_saved,
)
from harness.train.plans import has_own_code, refuse_other_rates, resumed_plan, saved_plan
from harness.train.resume import ResumePoint


class ResolvedConfig(NamedTuple):
    """A configuration that has met the checkpoint that the run resumes from.

    Attributes:
        config: what holds from here on, resolved.
        saved: what held when the checkpoint was written.
        conflicts: how they differ where it matters.
        amendments: of the plan, this start's included.
        saved_amendments: of the plan that the checkpoint was trained by.
        undecided: whether the user has to choose before the run can be resumed.
    """

    config: RunConfig
    saved: RunConfig
    conflicts: Conflicts
    amendments: Sequence[Amendment]
    saved_amendments: Sequence[Amendment]
    undecided: bool


def resolve(
    config: RunConfig, resume_point: ResumePoint, *, workers: int, threads: int, on_conflict: str
) -> ResolvedConfig:
    """Compare the run's configuration with the checkpoint's, and take one of the two where they differ.

    Raises:
        CheckpointError: for what cannot change in a run, and if the workers cannot share its shards.
    """
    manifest, path = resume_point.manifest, resume_point.path
    shards, amendments = manifest.shards, resume_point.amendments()
    if config.batch.shards in (None, shards) and shards < workers:
        raise CheckpointError(
            f"{path}: its run has {shards} shards of {manifest.batch_size}, too few for {workers} workers; resume with "
            f"{at_most(shards)}"
        )
    # Whoever can write a checkpoint must not choose what code runs here; in the run's own folder it is the user's.
    if not resume_point.here:
        refuse_foreign_code(manifest, amendments, config, path)
    saved = saved_config(manifest, path)
    if config.lr.base == "auto" and isinstance(saved.lr.base, float):
        # what was found when the run started holds for all of it; a search now would be for other weights
        config = with_base(config, saved.lr.base, saved.lr.reference_batch)
    wanted = config.resolved(shards=config.batch.shards or shards, threads=threads)

    # Where plans differ the user chooses, and the choice is recorded; what is fixed nobody can choose.
    conflicts = compare(saved, wanted)
    if on_conflict == "checkpoint":
        wanted = take_saved(conflicts, wanted)
        refuse_fixed(path, conflicts._replace(optimizer=[]), config.source)
    else:
        refuse_fixed(path, conflicts, config.source)
    saved_amendments = amendments
    differs = bool(conflicts.plan or conflicts.optimizer)
    if differs and on_conflict != "error":
        amendments = with_choice(amendments, resume_point.iteration, on_conflict, conflicts.changes(), saved)
    undecided = differs and on_conflict == "error"
    return ResolvedConfig(wanted, saved, conflicts, amendments, saved_amendments, undecided)


def resolve_plan(resolved: ResolvedConfig, resume_point: ResumePoint, sizes: Sizes) -> tuple[LRPlan, str | None]:
    """The plan of a run that resumes; and, where the user has to choose, what the choice is between.

    Raises:
        CheckpointError: if the run would already be over, or its plan cannot be used or contradicts its manifest.
    """
    source, path, manifest = resolved.config.source, resume_point.path, resume_point.manifest
    plan, conflict = resumed_plan(resolved.config, sizes, resolved.amendments, path), None
    by_own_code, before = has_own_code(manifest, resolved.saved_amendments), plan
    if resolved.undecided or (resolved.conflicts.plan and not by_own_code):
        before = saved_plan(resolved.saved, sizes, resolved.saved_amendments, path)
    # the user's own code may have changed since; any other plan has to give the rates that the manifest tells
    if not by_own_code:
        refuse_other_rates(manifest, before, path)
    if resolved.undecided:
        conflict = explain_plan(path, resolved.conflicts, resume_point.iteration, before, plan, source)
    if resume_point.iteration > sizes.num_iterations:
        raise CheckpointError(
            f"{source}: {path} is {resume_point.iteration} iterations into its run, which would now end after "
            f"{sizes.num_iterations}; make the run longer (train), or resume from an earlier checkpoint (--resume PATH)"
            + (f"\n{conflict}" if conflict else "")
        )
    return plan, conflict
