"""The learning-rate finder: sweep, restore, compare digests, suggest. It returns data and draws nothing."""

from harness.finder.result import (
    FinderResult,
    SweepRecord,
    provenance_of,
    read_result,
    result_of,
    settings_of,
    take_result,
    with_base,
)
from harness.finder.runner import FinderSettings, Finding, SweepResult, find_lr
from harness.finder.suggestion import RULES, Curve, Point, Refusal, Suggestion, fit, suggest
from harness.finder.sweep import Stop, StopRule, Sweep

__all__ = [
    "RULES",
    "Curve",
    "FinderResult",
    "FinderSettings",
    "Finding",
    "Point",
    "Refusal",
    "Stop",
    "StopRule",
    "Suggestion",
    "Sweep",
    "SweepRecord",
    "SweepResult",
    "find_lr",
    "fit",
    "provenance_of",
    "read_result",
    "result_of",
    "settings_of",
    "suggest",
    "take_result",
    "with_base",
]
