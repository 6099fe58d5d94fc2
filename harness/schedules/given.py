"""A schedule that a program gives as an object, where a file has it in words: both are built when sizes are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.named import brief, cut
from harness.schedules.adapters import as_schedule
from harness.schedules.base import ScheduleLike
from harness.schedules.custom import OwnSchedule
from harness.schedules.reading import parse_spec
from harness.schedules.spec import Frame, ScheduleSpec, SpecError


@dataclass(frozen=True)
class GivenSchedule:
    """A schedule that exists already: its rates are final, and its lengths are iterations.

    Attributes:
        schedule: from the iteration to a learning rate.
        called: its name in messages.
    """

    schedule: ScheduleLike
    called: str
    name: ClassVar[str] = "given"
    uses_x: ClassVar[bool] = False

    @property
    def raw(self) -> str:
        """How it shows itself, for people: no file can hold the object."""
        return brief(repr(self.schedule))

    def build(self, frame: Frame) -> ScheduleLike:
        """The schedule as it was given; what it answers is checked, unless it is one of ours."""
        module = type(self.schedule).__module__
        if module.startswith(f"{__package__}.") and module != as_schedule.__module__:  # there they replay MXNet's
            return self.schedule
        return OwnSchedule(self.called, None, self.schedule)


def read_schedule(raw: object) -> ScheduleSpec | GivenSchedule:
    """A schedule as a program may give it.

    Args:
        raw: what `parse_spec` takes; or a schedule, a function of the iteration, or an object of `mx.lr_scheduler`.

    Raises:
        SpecError: with all the problems that can be found without sizes.
    """
    if not callable(raw) or isinstance(raw, type):
        return parse_spec(raw)
    called = str(getattr(raw, "__name__", type(raw).__name__))
    try:
        return GivenSchedule(as_schedule(raw), called)
    except (Exception, SystemExit) as error:  # of a scheduler, which is asked for iteration 0
        reason = f"{type(error).__name__}: {cut(str(error), 200)}"
        raise SpecError((((), f"{called!r} failed at its iteration 0 ({reason}); fix the scheduler"),)) from error
