"""The learning-rate finder: sweep, restore, compare digests, suggest. It returns data and draws nothing."""

from harness.finder.records import SweepRecord
from harness.finder.result import (
    FinderResult,
    provenance_of,
    read_result,
    result_of,
    settings_of,
    take_result,
    with_base,
)
from harness.finder.roles import ROLES, to_paste
from harness.finder.runner import FinderSettings, Finding, Progress, SweepResult, UnderWay, find_lr
from harness.finder.suggestion import RULES, Curve, Point, Refusal, Suggestion, fit, suggest
from harness.finder.sweep import Stop, StopRule, Sweep

__all__ = [
    "ROLES",
    "RULES",
    "Curve",
    "FinderResult",
    "FinderSettings",
    "Finding",
    "Point",
    "Progress",
    "Refusal",
    "Stop",
    "StopRule",
    "Suggestion",
    "Sweep",
    "SweepRecord",
    "SweepResult",
    "UnderWay",
    "find_lr",
    "fit",
    "provenance_of",
    "read_result",
    "result_of",
    "settings_of",
    "suggest",
    "take_result",
    "to_paste",
    "with_base",
]
