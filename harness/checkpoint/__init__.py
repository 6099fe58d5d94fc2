"""Checkpoints on disk: written completely or not at all, verified, listed, pruned. Knows no ranks and no plan."""

from harness.checkpoint.manifest import Best, Manifest, SavedState, read_manifest, read_numbers
from harness.checkpoint.places import checkpoint_path, iteration_of, list_checkpoints, locate
from harness.checkpoint.replaced import MOST_TOLD, NONE_REPLACED, Replaced
from harness.checkpoint.store import newest_valid, read_arrays, remove_debris, set_aside, verify, write_checkpoint
from harness.checkpoint.writer import BEST, CheckpointWriter, mark_best

__all__ = [
    "BEST",
    "MOST_TOLD",
    "NONE_REPLACED",
    "Best",
    "CheckpointWriter",
    "Manifest",
    "Replaced",
    "SavedState",
    "checkpoint_path",
    "iteration_of",
    "list_checkpoints",
    "locate",
    "mark_best",
    "newest_valid",
    "read_arrays",
    "read_manifest",
    "read_numbers",
    "remove_debris",
    "set_aside",
    "verify",
    "write_checkpoint",
]
