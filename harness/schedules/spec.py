"""A schedule as it was written, and the schedule that it becomes once the sizes of a run are known.

`harness.schedules.reading` makes the first of what YAML gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.named import brief
from harness.schedules.bounds import POSITIVE, BoundError, check_counts, keep_numbers
from harness.schedules.catalogue import CATALOGUE, Inner, Inners
from harness.schedules.custom import build_custom
from harness.schedules.scalars import Multiple
from harness.units import Duration, round_position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.schedules.base import ScheduleLike

Path: TypeAlias = tuple[str | int, ...]
Problems: TypeAlias = list[tuple[Path, str]]
Value: TypeAlias = "float | str | Multiple | Duration | ScheduleSpec | tuple[Duration, ...] | tuple[ScheduleSpec, ...]"


class SpecError(ValueError):
    """Everything that is wrong with a schedule in YAML.

    Attributes:
        problems: pairs of a key path, relative to the schedule, and a message.
    """

    def __init__(self, problems: tuple[tuple[Path, str], ...]) -> None:
        """Keep the problems."""
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        """One problem a line, as `one_cycle.max_lr: message`."""
        return "\n".join(f"{'.'.join(map(str, path))}: {message}".lstrip(": ") for path, message in self.problems)


@dataclass(frozen=True)
class Frame:
    """What a spec needs to become a schedule.

    Args:
        iterations_per_epoch: what `1ep` is, at least 1.
        span: the iterations that `%` is a part of, at least 1.
        x: the learning rate that `1x` is, above 0.
        stretch: what every length is multiplied by that is not a part of the span, above 0.
        samples: in an iteration, on the average of an epoch; `None` where lengths in samples mean nothing.
        tokens: likewise.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    iterations_per_epoch: int
    span: int
    x: float
    stretch: Fraction = Fraction(1)
    samples: Fraction | None = None
    tokens: Fraction | None = None

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_counts(self, 1, "iterations_per_epoch", "span")
        keep_numbers(self, POSITIVE, "x")

    def exact(self, duration: Duration) -> Fraction:
        """A duration in iterations, not rounded.

        Raises:
            ValueError: for a length in samples or tokens where their number is not known.
        """
        iterations = duration.iterations(self.iterations_per_epoch, self.span, self.samples, self.tokens)
        return iterations if duration.unit == "%" else iterations * self.stretch


@dataclass(frozen=True)
class ScheduleSpec:
    """A schedule as it was written, checked as far as that goes without sizes. Made by `parse_spec`.

    Attributes:
        name: its name in YAML.
        arguments: its parameters in the order of the constructor's, defaults included.
    """

    name: str
    arguments: tuple[tuple[str, Value], ...]

    @property
    def raw(self) -> dict[str, object]:
        """Plain data that parse to this spec again: the same for every way of writing the same schedule."""
        return {self.name: {parameter: _plain(value) for parameter, value in self.arguments}}

    @property
    def uses_x(self) -> bool:
        """Whether any learning rate in it is written `Nx`."""
        own = any(isinstance(value, Multiple) for _, value in self.arguments)
        return own or any(inner.uses_x for _, inner in self._inner())

    def lengths(self) -> Iterator[tuple[Path, Duration]]:
        """Every length in it, each with the path of its key."""
        for parameter, value in self.arguments:
            for index, item in enumerate(value) if isinstance(value, tuple) else [(None, value)]:
                if isinstance(item, Duration):
                    yield (self.name, parameter) if index is None else (self.name, parameter, index), item
        for place, inner in self._inner():
            yield from (((self.name, *place, *path), length) for path, length in inner.lengths())

    def build(self, frame: Frame) -> ScheduleLike:
        """The schedule. Lengths are rounded so that each phase ends at the iteration nearest to its exact end.

        >>> from harness.schedules import parse_spec
        >>> spec = parse_spec({"cosine": {"min_lr": 0, "max_lr": "2x", "cycle_length": "50%"}})
        >>> spec.build(Frame(iterations_per_epoch=100, span=1000, x=0.1))
        CosineAnnealingSchedule(min_lr=0.0, max_lr=0.2, cycle_length=500)

        Raises:
            SpecError: if, the sizes known, a schedule refuses its arguments: 1% of 30 iterations is a length of 0.
        """
        problems: Problems = []
        schedule = self._build(frame, Fraction(0), (self.name,), problems)
        if schedule is None:
            raise SpecError(tuple(problems))
        return schedule

    def _inner(self) -> Iterator[tuple[Path, ScheduleSpec]]:
        for parameter, value in self.arguments:
            items = enumerate(value) if isinstance(value, tuple) else [(None, value)]
            for index, item in items:
                if isinstance(item, ScheduleSpec):
                    yield (parameter,) if index is None else (parameter, index), item

    def _build(self, frame: Frame, origin: Fraction, path: Path, problems: Problems) -> ScheduleLike | None:
        try:
            arguments, origins = self._resolve(frame, origin)
        except _LengthError as error:
            problems.append(((*path, error.parameter), str(error)))
            return None
        inner: list[ScheduleLike] = []
        for (place, spec), begin in zip(self._inner(), origins, strict=True):
            schedule = spec._build(frame, begin, (*path, *place, spec.name), problems)
            inner += [schedule] if schedule is not None else []
        if len(inner) < len(origins):
            return None
        if ":" in self.name:
            try:
                return build_custom(self.name, arguments)
            except ValueError as error:
                problems.append((path, str(error)))
                return None
        if inner:
            many = isinstance(CATALOGUE[self.name].inner, Inners)
            arguments |= {"schedules": inner} if many else {"schedule": inner[0]}
        try:
            return CATALOGUE[self.name].make(**arguments)
        except BoundError as error:
            written = _plain(dict(self.arguments).get(error.argument))
            note = f" (written {brief(written)})" if isinstance(written, str | list) else ""
            problems.append(((*path, error.argument), error.reason + note))
            return None

    def _resolve(self, frame: Frame, origin: Fraction) -> tuple[dict[str, Any], list[Fraction]]:
        """The constructor's arguments without the inner schedules, and where each of those begins."""
        resolved: dict[str, Any] = {}
        end, positions = origin, [origin]
        for parameter, value in self.arguments:
            if isinstance(value, Duration):
                begin, end = end, end + _exact(frame, value, parameter)
                resolved[parameter] = round_position(end) - round_position(begin)
            elif isinstance(value, tuple):
                ends = [origin + _exact(frame, item, parameter) for item in value if isinstance(item, Duration)]
                resolved[parameter] = [round_position(position) - round_position(origin) for position in ends]
                positions += ends
            elif isinstance(value, Multiple):
                resolved[parameter] = value.count * frame.x
            elif parameter == "schedule_class":
                resolved[parameter] = CATALOGUE[str(value)].make
            else:
                resolved[parameter] = value
        kind = None if ":" in self.name else CATALOGUE[self.name].inner
        if isinstance(kind, Inner):
            return resolved, [end if kind.after_lengths else origin]
        if isinstance(kind, Inners) and not kind.at_boundaries:
            return resolved, [origin for _ in self._inner()]
        return resolved, positions if isinstance(kind, Inners) else []


class _LengthError(ValueError):
    """A length that cannot be had in iterations, and the parameter that it stands in."""

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter


def _exact(frame: Frame, length: Duration, parameter: str) -> Fraction:
    try:
        return frame.exact(length)
    except ValueError as error:
        raise _LengthError(str(error), parameter) from None


def _plain(value: object) -> object:
    """A value as data for YAML."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, ScheduleSpec):
        return value.raw
    return str(value) if isinstance(value, Multiple | Duration) else value
