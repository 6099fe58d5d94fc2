"""A schedule that a program gives as an object, where a file has it in words: both are built when sizes are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.named import brief
from harness.schedules.adapters import as_schedule
from harness.schedules.base import ScheduleLike
from harness.schedules.reading import parse_spec
from harness.schedules.spec import Frame, ScheduleSpec


@dataclass(frozen=True)
class GivenSchedule:
    """A schedule that exists already: its rates are final, and its lengths are iterations.

    Attributes:
        schedule: from the iteration to a learning rate.
    """

    schedule: ScheduleLike
    name: ClassVar[str] = "given"
    uses_x: ClassVar[bool] = False

    @property
    def raw(self) -> str:
        """How it shows itself, for people: no file can hold the object."""
        return brief(repr(self.schedule))

    def build(self, frame: Frame) -> ScheduleLike:
        """The schedule as it was given."""
        return self.schedule


def read_schedule(raw: object) -> ScheduleSpec | GivenSchedule:
    """A schedule as a program may give it.

    Args:
        raw: what `parse_spec` takes; or a schedule, a function of the iteration, or an object of `mx.lr_scheduler`.

    Raises:
        SpecError: with all the problems that can be found without sizes.
    """
    return GivenSchedule(as_schedule(raw)) if callable(raw) and not isinstance(raw, type) else parse_spec(raw)
