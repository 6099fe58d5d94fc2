"""The content of a run's folder: one typed form for every record, shared by writers and readers."""

from harness.folder.amendments import AmendmentRecord
from harness.folder.attempts import (
    ATTEMPTS,
    EXIT_CODES,
    FAILURES,
    OUTCOME,
    Attempt,
    AttemptStart,
    Outcome,
    RankFailure,
    read_attempts,
    read_failures,
    read_outcome_file,
)
from harness.folder.best import BestCheckpoint
from harness.folder.event_file import EventFile
from harness.folder.files import MB, append_line, is_there, lines_of, open_plain, read_small, write_object
from harness.folder.metrics import EVENTS, METRICS, MetricsLine, iteration_of_line, parse_line, read_metrics_lines
from harness.folder.metrics_file import MetricsFile
from harness.folder.outcome import OutcomeFiles, read_outcome
from harness.folder.plans import (
    CURVE,
    MOST_NAMES,
    MOST_PHASES,
    PLAN,
    FactorGroup,
    Phase,
    PlannedSizes,
    PlanRecord,
    read_curve,
    read_plan,
)
from harness.folder.reading import LARGEST, LATEST_S, Fields, number, parse_json, plain, read_object
from harness.folder.run_folder import SMOKE, RunFolder
from harness.folder.unread import RecordError, Unread, UnreadPart, described, seen
from harness.folder.world_changes import WorldChange

__all__ = [
    "ATTEMPTS",
    "CURVE",
    "EVENTS",
    "EXIT_CODES",
    "FAILURES",
    "LARGEST",
    "LATEST_S",
    "MB",
    "METRICS",
    "MOST_NAMES",
    "MOST_PHASES",
    "OUTCOME",
    "PLAN",
    "SMOKE",
    "AmendmentRecord",
    "Attempt",
    "AttemptStart",
    "BestCheckpoint",
    "EventFile",
    "FactorGroup",
    "Fields",
    "MetricsFile",
    "MetricsLine",
    "Outcome",
    "OutcomeFiles",
    "Phase",
    "PlanRecord",
    "PlannedSizes",
    "RankFailure",
    "RecordError",
    "RunFolder",
    "Unread",
    "UnreadPart",
    "WorldChange",
    "append_line",
    "described",
    "is_there",
    "iteration_of_line",
    "lines_of",
    "number",
    "open_plain",
    "parse_json",
    "parse_line",
    "plain",
    "read_attempts",
    "read_curve",
    "read_failures",
    "read_metrics_lines",
    "read_object",
    "read_outcome",
    "read_outcome_file",
    "read_plan",
    "read_small",
    "seen",
    "write_object",
]
