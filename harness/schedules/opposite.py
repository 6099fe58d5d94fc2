"""A momentum that falls while the learning rate rises, and rises while it falls, derived from the learning rate's spec.

Knows what YAML gives, and how to ask a schedule's spec for its height; not what is scaled or warmed up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from typing_extensions import override

from harness.named import brief
from harness.schedules.base import Iterations, Rates, mix, mix_many, values_of
from harness.schedules.bounds import BELOW_ONE, Interval, check_order, keep_numbers
from harness.schedules.catalogue import CATALOGUE, Rate, did_you_mean, parameters_of
from harness.schedules.given import GivenSchedule, read_schedule
from harness.schedules.modifiers import Around
from harness.schedules.reading import parse_spec
from harness.schedules.scalars import found, read_number
from harness.schedules.spec import ScheduleSpec, SpecError

MOMENTUM = Interval(high=BELOW_ONE, open_high=True)
NAME = "opposite"
_PEAKS = ("max_lr", "peak_lr")
WITH_HEIGHT = tuple(
    name for name, entry in CATALOGUE.items() if name == "cyclical" or not {*_PEAKS}.isdisjoint(entry.parameters)
)
"""The schedules that say which of their learning rates is the highest."""


@dataclass(frozen=True)
class OppositeSchedule(Around):
    """`high - (high - low) schedule(t)`, for a schedule of heights between 0 and 1.

    >>> [OppositeSchedule(lambda t: t / 4, high=0.75, low=0.25)(t) for t in (0, 2, 4)]
    [0.75, 0.5, 0.25]

    Args:
        schedule: the height of the learning rate: 0 where it is lowest, 1 where it is highest.
        high: the momentum at height 0, below 1.
        low: the momentum at height 1, from 0 to `high`.

    Raises:
        BoundError: if an argument is outside these bounds.
    """

    high: float
    low: float

    def __post_init__(self) -> None:
        """Check the bounds."""
        super().__post_init__()
        keep_numbers(self, MOMENTUM, "high", "low")
        check_order(self, "low", "high")

    def __call__(self, t: int) -> float:
        """The momentum of iteration `t >= 0`."""
        return mix(self.high, self.low, self.schedule(t))

    @override
    def values(self, t: Iterations) -> Rates:
        return mix_many(self.high, self.low, values_of(self.schedule, t))


@dataclass(frozen=True)
class OppositeSpec:
    """`opposite: {high: 0.95, low: 0.85}` as it was written: the momentum follows the learning rate's schedule.

    Smith, "A disciplined approach to neural network hyper-parameters: Part 1", 2018, arXiv 1803.09820, section 4.3;
    PyTorch's `cycle_momentum`.

    Attributes:
        high: the momentum where the learning rate is lowest.
        low: the momentum where it is highest.
    """

    high: float
    low: float
    name: ClassVar[str] = NAME
    uses_x: ClassVar[bool] = False

    @classmethod
    def parse(cls, raw: Mapping[object, object]) -> OppositeSpec:
        """Read the parameters.

        Raises:
            SpecError: with all that is wrong with them.
        """
        problems = []
        known = ("high", "low")
        for key in raw:
            if key not in known:
                problems.append(((NAME, str(key)), f"is not a parameter of {NAME}; {did_you_mean(key, known)}"))
        numbers = {}
        for key in known:
            try:
                if key not in raw:
                    raise ValueError(f"is missing; {NAME} has {', '.join(known)}")
                numbers[key] = read_number(raw[key], MOMENTUM)
            except ValueError as error:
                problems.append(((NAME, key), str(error)))
        if not problems and numbers["low"] > numbers["high"]:
            message = f"must be at most high, which is {numbers['high']:g}, found {numbers['low']:g}"
            problems.append(((NAME, "low"), message))
        if problems:
            raise SpecError(tuple(problems))
        return cls(**numbers)

    @property
    def raw(self) -> dict[str, object]:
        """Plain data that parse to this spec again."""
        return {NAME: {"high": self.high, "low": self.low}}

    def heights(self, spec: ScheduleSpec | GivenSchedule) -> ScheduleSpec:
        """The learning rate's schedule with 1 for its highest learning rate and 0 for all others.

        Raises:
            SpecError: for a schedule that does not say which one is the highest.
        """
        if not isinstance(spec, ScheduleSpec) or spec.name not in WITH_HEIGHT:
            what = brief(spec.raw) if isinstance(spec, GivenSchedule) else spec.name
            message = (
                f"needs to know where the learning rate is highest, which {what} does not say; it goes with "
                f"{', '.join(WITH_HEIGHT)}, so write lr.momentum as a schedule of its own"
            )
            raise SpecError((((NAME,), message),))
        given = dict(spec.arguments)
        repeated = given.get("schedule_class")
        kinds = parameters_of(spec.name, str(repeated) if repeated is not None else None)
        if not any(peak in kinds for peak in _PEAKS):
            raise SpecError((((NAME,), f"needs a max_lr or peak_lr, which {found(repeated)} does not have"),))
        heights = tuple(
            (key, float(key in _PEAKS) if isinstance(kinds[key][0], Rate) else value) for key, value in spec.arguments
        )
        return replace(spec, arguments=heights)


def read_momentum(raw: object) -> ScheduleSpec | GivenSchedule | OppositeSpec:
    """A momentum as a configuration or a program may give it: a schedule, or `{"opposite": {"high": ..., "low": ...}}`.

    Raises:
        ValueError: with what is wrong.
    """
    if not isinstance(raw, Mapping) or list(raw) != [NAME]:
        return read_schedule(raw) if callable(raw) else parse_spec(raw, allow_x=False)
    parameters = raw[NAME]
    if not isinstance(parameters, Mapping):
        raise ValueError("opposite must be a mapping with the keys high, low")
    return OppositeSpec.parse(parameters)
