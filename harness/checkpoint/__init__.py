"""Sets on disk, and what a run may change when it goes on from one."""

from harness.checkpoint.conflicts import (
    Conflicts,
    amend,
    compare,
    explain_plan,
    refuse_fixed,
    refuse_foreign_code,
    refuse_other_data,
    saved_config,
    take_saved,
)
from harness.checkpoint.manifest import Best, Manifest, SavedState, read_manifest, read_numbers
from harness.checkpoint.places import iteration_of, list_sets, locate, set_path
from harness.checkpoint.plans import has_own_code, plan_of, refuse_other_rates, resumed_plan, saved_plan
from harness.checkpoint.sets import newest_whole, read_arrays, remove_debris, set_aside, verify, write_set
from harness.checkpoint.writer import BEST, SetWriter, mark_best

__all__ = [
    "BEST",
    "Best",
    "Conflicts",
    "Manifest",
    "SavedState",
    "SetWriter",
    "amend",
    "compare",
    "explain_plan",
    "has_own_code",
    "iteration_of",
    "list_sets",
    "locate",
    "mark_best",
    "newest_whole",
    "plan_of",
    "read_arrays",
    "read_manifest",
    "read_numbers",
    "refuse_fixed",
    "refuse_foreign_code",
    "refuse_other_data",
    "refuse_other_rates",
    "remove_debris",
    "resumed_plan",
    "saved_config",
    "saved_plan",
    "set_aside",
    "set_path",
    "take_saved",
    "verify",
    "write_set",
]
