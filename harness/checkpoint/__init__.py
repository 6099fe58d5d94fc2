"""Sets on disk, and what a run may change when it goes on from one."""

from harness.checkpoint.conflicts import (
    Conflicts,
    amend,
    compare,
    explain_plan,
    plan_of,
    refuse_fixed,
    saved_config,
    take_saved,
)
from harness.checkpoint.sets import (
    iteration_of,
    list_sets,
    locate,
    newest_whole,
    read_arrays,
    read_manifest,
    remove_debris,
    set_aside,
    set_path,
    verify,
    write_set,
)
from harness.checkpoint.writer import BEST, SetWriter, mark_best

__all__ = [
    "BEST",
    "Conflicts",
    "SetWriter",
    "amend",
    "compare",
    "explain_plan",
    "iteration_of",
    "list_sets",
    "locate",
    "mark_best",
    "newest_whole",
    "plan_of",
    "read_arrays",
    "read_manifest",
    "refuse_fixed",
    "remove_debris",
    "saved_config",
    "set_aside",
    "set_path",
    "take_saved",
    "verify",
    "write_set",
]
