"""Where a schedule ends, for those that have an end; a composition ends where its last part does."""

from __future__ import annotations

from harness.schedules.base import ScheduleLike, length_of
from harness.schedules.combined import Combined
from harness.schedules.custom import OwnSchedule
from harness.schedules.modifiers import Around, SequentialSchedule
from harness.schedules.splices import ScaledAfter, Spliced
from harness.schedules.steps import FactorSchedule
from harness.schedules.warmups import OverlapWarmUp, WarmUp


def end_of(schedule: ScheduleLike) -> int | None:
    """Where a schedule ends that has an end; a stepwise decay has a floor, which a run need not reach."""
    if isinstance(schedule, FactorSchedule):
        return 0
    if isinstance(schedule, OwnSchedule):
        return end_of(schedule.function)
    if isinstance(schedule, Around):
        return end_of(schedule.schedule)
    if isinstance(schedule, Combined):
        ends = [end for end in map(end_of, schedule.schedules) if end is not None]
        return max(ends, default=None)
    if isinstance(schedule, WarmUp):
        return _later(schedule.length, end_of(schedule.schedule))
    if isinstance(schedule, SequentialSchedule):
        return _later((0, *schedule.boundaries)[-1], end_of(schedule.schedules[-1]))
    if isinstance(schedule, OverlapWarmUp):
        return _not_before(schedule.length, end_of(schedule.schedule))
    if isinstance(schedule, ScaledAfter):
        return _not_before(schedule.last + 1, end_of(schedule.schedule))
    if isinstance(schedule, Spliced):
        return _not_before(schedule.last + 1, end_of(schedule.after))
    return length_of(schedule)


def _later(start: int, end: int | None) -> int | None:
    return None if end is None else start + end


def _not_before(last: int, end: int | None) -> int | None:
    return None if end is None else max(last, end)
