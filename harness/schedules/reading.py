"""A schedule written in YAML -> a `ScheduleSpec`: every problem that can be found without sizes, each with its key.

Knows what YAML gives (mappings, lists, text, numbers), not YAML itself, nor where in a file it stood.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from harness.named import brief
from harness.parsing import is_count
from harness.schedules.bounds import RATE
from harness.schedules.catalogue import (
    CATALOGUE,
    REPEATABLE,
    Choice,
    Inner,
    Inners,
    Kind,
    Length,
    Number,
    Positions,
    Rate,
    Seed,
    did_you_mean,
    did_you_mean_schedule,
    parameters_of,
)
from harness.schedules.custom import read_argument
from harness.schedules.scalars import Multiple, found, is_rate, read_number, read_rate
from harness.schedules.spec import Path, Problems, ScheduleSpec, SpecError, Value
from harness.units import Duration

if TYPE_CHECKING:
    from collections.abc import Callable

Read = TypeVar("Read")

_MOST_GUESSES = 20  # at misspelt names; comparing thousands would take minutes, and nobody reads them
_WANTED = "a mapping from one schedule's name to its parameters, or for a constant a number"
_PLATEAU = (
    "is not a schedule, which is a function of the iteration: evaluations decide about a plateau; use lr.plateau "
    "beside a schedule, such as a constant one"
)


def parse_spec(raw: object, *, allow_x: bool = True) -> ScheduleSpec:
    """Read a schedule from what YAML gives.

    Args:
        raw: `{name: {parameter: value, ...}}`, or a number or `"Nx"` for a constant.
        allow_x: whether a learning rate may be written `Nx`; a momentum may not.

    Raises:
        SpecError: with all the problems that can be found without sizes.
    """
    parser = _Parser(allow_x)
    spec = parser.schedule(raw, ())
    if spec is None or parser.problems:
        raise SpecError(tuple(parser.problems))
    return spec


class _Parser:
    """Reads one spec and collects the problems; a method that returns None has added at least one."""

    def __init__(self, allow_x: bool) -> None:
        self.allow_x = allow_x
        self.problems: Problems = []

    def schedule(self, raw: object, path: Path) -> ScheduleSpec | None:
        if not isinstance(raw, Mapping):
            rate = self._read(path, _read_constant, raw, self.allow_x)
            return None if rate is None else ScheduleSpec("constant", (("lr", rate),))
        if len(raw) != 1:
            names = ", ".join(map(brief, islice(raw, 5))) or "an empty mapping"
            self.problems.append((path, f"must be {_WANTED}, found {names}"))
            return None
        ((name, parameters),) = raw.items()
        path = (*path, _key(name))
        if self._read(path, _check_name, name, parameters) is None:
            return None
        if ":" in name:
            given = tuple((str(key), read_argument(value, self.allow_x)) for key, value in parameters.items())
            return ScheduleSpec(name, given)
        return self._parameters(name, parameters, path)

    def _parameters(self, name: str, given: Mapping[object, object], path: Path) -> ScheduleSpec | None:
        repeated = next((word for word in REPEATABLE if word == given.get("schedule_class")), None)
        known = parameters_of(name, repeated if name == "cyclical" else None)
        before = len(self.problems)
        # without a known schedule_class its parameters are unknown
        for key in given if name != "cyclical" or repeated else ():
            if key not in known:
                guess = did_you_mean(key, known) if len(self.problems) < _MOST_GUESSES else "known: see above"
                message = f"is not a parameter of {name}; {guess}"
                self.problems.append(((*path, _key(key)), message))
        arguments: list[tuple[str, Value]] = []
        for parameter, (kind, default) in known.items():
            raw = given.get(parameter, default)
            if raw is inspect.Parameter.empty:
                self.problems.append(((*path, parameter), f"is missing; {name} has {', '.join(known)}"))
            elif raw is not None or default is not None:
                value = self._value(kind, raw, (*path, parameter))
                arguments += [(parameter, value)] if value is not None else []
        if len(self.problems) == before:
            self._read((*path, "boundaries"), _check_boundaries, dict(arguments))
            self._read((*path, "schedules"), _check_together, name, dict(arguments))
        return ScheduleSpec(name, tuple(arguments)) if len(self.problems) == before else None

    def _value(self, kind: Kind, raw: object, path: Path) -> Value | None:
        match kind:
            case Rate(allowed):
                return self._read(path, read_rate, raw, allowed, self.allow_x)
            case Number(allowed):
                return self._read(path, read_number, raw, allowed)
            case Seed():
                return self._read(path, _read_seed, raw)
            case Length():
                return self._read(path, Duration.parse, raw)
            case Inner():
                return self.schedule(raw, path)
            case Choice(words):
                return self._read(path, _read_choice, raw, words)
            case Positions():
                items = self._read(path, _read_list, raw, "a list of lengths") or ()
                lengths = [self._read((*path, i), Duration.parse, item) for i, item in enumerate(items)]
                return tuple(length for length in lengths if length is not None)
            case Inners():
                items = self._read(path, _read_list, raw, "a list of schedules") or ()
                specs = [self.schedule(item, (*path, i)) for i, item in enumerate(items)]
                return tuple(spec for spec in specs if spec is not None)

    def _read(self, path: Path, reader: Callable[..., Read], *arguments: object) -> Read | None:
        try:
            return reader(*arguments)
        except ValueError as error:
            self.problems.append((path, str(error)))
            return None


def _read_constant(raw: object, allow_x: bool) -> float | Multiple:
    if is_rate(raw):
        return read_rate(raw, RATE, allow_x)
    if isinstance(raw, str) and "plateau" in raw.lower():
        raise ValueError(f"{brief(raw)} {_PLATEAU}")
    if isinstance(raw, str) and ":" in raw:
        raise ValueError(f"{brief(raw)} must be the key of a mapping of its parameters: {{{brief(raw)}: {{}}}}")
    if isinstance(raw, str) and raw in CATALOGUE:
        known = ", ".join(CATALOGUE[raw].parameters)
        raise ValueError(f"{raw!r} alone is not enough: it must be the key of a mapping of its parameters ({known})")
    raise ValueError(f"must be {_WANTED}{' or text like 1x' if allow_x else ''}, found {found(raw)}")


def _check_name(name: object, parameters: object) -> bool:
    own = isinstance(name, str) and ":" in name
    if not isinstance(name, str) or (name not in CATALOGUE and not own):
        plateau = "plateau" in str(name).lower()
        raise ValueError(_PLATEAU if plateau else f"is not a schedule; {did_you_mean_schedule(name)}")
    if not isinstance(parameters, Mapping):
        known = "{} if it has none" if own else ", ".join(CATALOGUE[name].parameters)
        raise ValueError(f"must be a mapping of its parameters ({known}), found {found(parameters)}")
    return True


def _check_boundaries(arguments: dict[str, Value]) -> None:
    schedules, boundaries = arguments.get("schedules"), arguments.get("boundaries")
    if isinstance(schedules, tuple) and isinstance(boundaries, tuple) and len(boundaries) != len(schedules) - 1:
        raise ValueError(f"must be {len(schedules) - 1} long, one fewer than the schedules, found {len(boundaries)}")


def _check_together(name: str, arguments: dict[str, Value]) -> None:
    schedules, kind = arguments.get("schedules"), CATALOGUE[name].inner
    if not isinstance(schedules, tuple) or not isinstance(kind, Inners) or kind.at_boundaries:
        return
    if len(schedules) < 2:
        raise ValueError(f"must be a list of at least two schedules, found {len(schedules)}")
    scaled = [one.name for one in schedules if isinstance(one, ScheduleSpec) and one.uses_x]
    if name == "multiplied" and len(scaled) > 1:
        raise ValueError(
            f"{' and '.join(scaled)} are both multiples of the base, so the base would be squared; write one of them "
            "with Nx, and the others as plain factors (0.5)"
        )


def _read_seed(raw: object) -> int:
    if not isinstance(raw, int) or not is_count(raw, 0) or raw >= 2**31:
        raise ValueError(f"must be a whole number from 0 to 2^31 - 1, found {found(raw)}")
    return raw


def _read_choice(raw: object, words: tuple[str, ...]) -> str:
    if not isinstance(raw, str) or raw not in words:
        raise ValueError(f"{found(raw)} is not allowed; {did_you_mean(raw, words)}")
    return raw


def _read_list(raw: object, wanted: str) -> list[object]:
    if not isinstance(raw, list | tuple) or not raw:
        raise ValueError(f"must be {wanted}, found {found(raw)}")
    return list(raw)


def _key(key: object) -> str | int:
    return key if isinstance(key, str | int) else str(key)
