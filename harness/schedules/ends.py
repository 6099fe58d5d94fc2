"""Where a schedule ends, for those that have an end; a composition ends where its last part does."""

from __future__ import annotations

from harness.schedules.base import ScheduleLike, length_of
from harness.schedules.custom import OwnSchedule
from harness.schedules.modifiers import LinearWarmUp, RaisedSchedule, ScaledSchedule, SequentialSchedule
from harness.schedules.steps import FactorSchedule


def end_of(schedule: ScheduleLike) -> int | None:
    """Where a schedule ends that has an end; a stepwise decay has a floor, which a run need not reach."""
    if isinstance(schedule, FactorSchedule):
        return 0
    if isinstance(schedule, OwnSchedule):
        return end_of(schedule.function)
    if isinstance(schedule, ScaledSchedule | RaisedSchedule):
        return end_of(schedule.schedule)
    if isinstance(schedule, LinearWarmUp):
        start, last = schedule.length, schedule.schedule
    elif isinstance(schedule, SequentialSchedule):
        start, last = (0, *schedule.boundaries)[-1], schedule.schedules[-1]
    else:
        return length_of(schedule)
    end = end_of(last)
    return None if end is None else start + end
