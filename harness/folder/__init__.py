"""What a run's folder holds: one typed form of every record, which writers and readers share."""

from harness.folder.endings import (
    ATTEMPTS,
    EXIT_CODES,
    FAILURES,
    OUTCOME,
    Attempt,
    AttemptBegun,
    Outcome,
    RankFailure,
    read_attempts,
    read_failures,
    read_outcome_file,
)
from harness.folder.files import MB, append_line, is_there, read_small, write_object
from harness.folder.reading import LARGEST, LATEST_S, Fields, parse_json, read_object
from harness.folder.unread import RecordError, Unread, UnreadPart, described, seen

__all__ = [
    "ATTEMPTS",
    "EXIT_CODES",
    "FAILURES",
    "LARGEST",
    "LATEST_S",
    "MB",
    "OUTCOME",
    "Attempt",
    "AttemptBegun",
    "Fields",
    "Outcome",
    "RankFailure",
    "RecordError",
    "Unread",
    "UnreadPart",
    "append_line",
    "described",
    "is_there",
    "parse_json",
    "read_attempts",
    "read_failures",
    "read_object",
    "read_outcome_file",
    "read_small",
    "seen",
    "write_object",
]
