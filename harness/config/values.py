"""The single values of a configuration: what each may be, in the terms of the person who wrote it.

Each reader takes a value from YAML and raises `ValueError` with what is allowed, or `RefusedError` if a part is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from harness.named import brief
from harness.parsing import as_number, is_count
from harness.processes import MOST_THREADS
from harness.schedules import GivenSchedule, OppositeSpec, ScheduleSpec, read_schedule
from harness.schedules.bounds import LARGEST, SMALLEST
from harness.schedules.opposite import read_momentum
from harness.schedules.scalars import MULTIPLE
from harness.schedules.schema import OPPOSITE
from harness.units import CLOCK_PATTERN, LENGTH_PATTERN, MOST_SECONDS, ClockTime, Duration

_DEVICE = re.compile(r"(cpu|gpu)\((?:0|[1-9][0-9]{0,2})\)")
_MULTIPLE = re.compile(MULTIPLE)
LAYER_NUMBER = "#"  # in a pattern of layers: the number of each


class Problem(NamedTuple):
    """One mistake: its path in the configuration, and a message."""

    path: tuple[str | int, ...]
    message: str


class RefusedError(ValueError):
    """Several mistakes in one section, each with its path inside the section.

    Attributes:
        problems: the mistakes.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems."""
        super().__init__(problems)
        self.problems = tuple(problems)


def _read_number(value: object) -> float | None:
    """A finite number as a float; None for anything else, including a bool."""
    number = as_number(value)
    return number if number is not None and math.isfinite(number) else None


def _read_threads(value: object) -> int | str:
    if value == "auto":
        return "auto"
    if not isinstance(value, int) or not is_count(value):
        raise ValueError("must be auto, or a whole number of at least 1")
    if value > MOST_THREADS:
        raise ValueError(
            f"must be auto, or at most {MOST_THREADS}: no host has more cores, and OpenMP ends the process if it "
            "cannot start that many"
        )
    return value


def _read_workers(value: object) -> int | str:
    if value == "auto" or (value == 0 and value.__class__ is int):
        return value
    if not isinstance(value, int) or not is_count(value) or value > MOST_THREADS:
        raise ValueError(f"must be auto, or a whole number from 0 to {MOST_THREADS}")
    return value


def read_float32(value: float) -> float:
    """A number that float32 holds."""
    if value == 0 or SMALLEST <= abs(value) <= LARGEST:
        return value
    raise ValueError(f"must be a number that float32 can hold: 0, or {SMALLEST:.2g} to {LARGEST:.2g}")


def _read_devices(value: object) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a list of devices, such as [gpu(0), gpu(1)]")
    found = [_DEVICE.fullmatch(name) for name in value]
    if None in found:
        raise ValueError("each must be gpu(N), or cpu(N) to test without GPUs")
    if len({match[1] for match in found if match}) > 1:
        raise ValueError("all devices must be of the same kind")
    if len(set(value)) < len(value):
        raise ValueError("each device may appear once")
    return value


def read_name(value: str) -> str:
    """A name, or `module:function` with both of its parts."""
    module, colon, function = value.partition(":")
    if not module.strip() or (colon and not function.strip()):
        raise ValueError("must be a name, or package.module:function")
    return value


def _read_own(value: str) -> str:
    if not all(part.strip() for part in value.partition(":")):
        raise ValueError("must be package.module:function")
    return value


def read_path(value: str) -> str:
    """A path as text."""
    if not value.strip():
        raise ValueError("must be a path, not empty text")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("must be a path in UTF-8 without NUL characters")
    return value


def _read_base(value: object) -> float | str | None:
    if value is None:
        return None
    if value == "auto" or (isinstance(value, str) and value.endswith(".json")):
        return value
    number = _read_number(value)
    if number is not None and number > 0:
        return read_float32(number)
    raise ValueError(
        "must be a finite number above 0, auto (to run the learning-rate finder), or the path of a finder's result.json"
    )


def _read_rate(value: object) -> float | str | None:
    """A learning rate, or a multiple of the scaled base; None for anything else."""
    number = _read_number(value)
    if number is not None and number >= 0:
        return read_float32(number)
    match = _MULTIPLE.fullmatch(value) if isinstance(value, str) else None
    if match and math.isfinite(float(match[1] + (match[2] or ""))):
        return f"{match[1]}{match[2] or ''}x"
    return None


def _read_start(value: object) -> float | str:
    rate = "unscaled" if value == "unscaled" else _read_rate(value)
    if rate is not None:
        return rate
    raise ValueError(
        "must be a finite number of at least 0, Nx (N times the scaled base, such as 0.1x), or unscaled (the base "
        "itself)"
    )


def _read_floor(value: object) -> float | str:
    rate = _read_rate(value)
    if rate is None:
        raise ValueError("must be a finite number of at least 0, or Nx (N times the scaled base, such as 0.01x)")
    return rate


def _read_validation(value: object) -> int | float:
    if isinstance(value, int) and is_count(value, 0):
        return value
    if isinstance(value, float) and 0 <= value < 1:
        return value or 0
    raise ValueError("must be a whole number of samples, a fraction below 1 (0.1), or 0 for none")


def _read_scale(value: object) -> float | str | None:
    if value is None or value == "keep":
        return value
    number = _read_number(value)
    if number is not None and number > 0:
        return read_float32(number)
    raise ValueError("must be a finite number above 0, keep (which leaves integers unchanged), or null")


def _read_layers(value: object) -> list[str | list[str]]:
    """Patterns of layers, from the input to the output; several of one layer are a list."""
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of patterns from the input to the output, such as [embed.*, cells.#.*]")
    problems = []
    for index, item in enumerate(value):
        patterns = item if isinstance(item, list) else [item]
        if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
            message = f"found {brief(item)}; must be a pattern (cells.#.*), or a list of those of one layer"
        elif len({pattern.count(LAYER_NUMBER) for pattern in patterns}) > 1:
            message = f"found {brief(item)}; patterns of one layer must have equally many {LAYER_NUMBER}"
        else:
            continue
        problems.append(Problem((index,), message))
    if problems:
        raise RefusedError(problems)
    return value


def _read_period(value: object) -> Duration:
    period = Duration.parse(value)
    if period.value == 0:
        raise ValueError("must be longer than 0, such as 1ep or 10it")
    return period


def _read_interval(value: object) -> Duration | ClockTime:
    clock = ClockTime.parse(value)
    if clock is not None:
        return clock
    try:
        return _read_period(value)
    except ValueError as error:
        raise ValueError(f"{error}; by the clock: '10min', '90s' or '2h'") from None


def _read_warmup_length(value: object) -> Duration:
    length = Duration.parse(value)
    if length.value == 0:
        raise ValueError("a warm-up of length 0 has no effect: remove lr.warmup (or --set lr.warmup=null)")
    return length


def read_parameters(value: dict[str, Any], where: tuple[str | int, ...] = ()) -> dict[str, Any]:
    """Free parameters: anything that both YAML and JSON can hold, so that it can be written, compared and read back."""
    problems = list(_unwritable(value, where))
    if problems:
        raise RefusedError(problems)
    return value


def _unwritable(value: object, path: tuple[str | int, ...]) -> list[Problem]:
    if isinstance(value, dict):
        found = [Problem((*path, str(key)), "keys must be text; quote it") for key in value if not isinstance(key, str)]
        return found + [p for key, item in value.items() for p in _unwritable(item, (*path, str(key)))]
    if isinstance(value, list):
        return [p for index, item in enumerate(value) for p in _unwritable(item, (*path, index))]
    if value is None or isinstance(value, str | bool):
        return []
    if _read_number(value) is None:
        return [
            Problem(
                path, f"found {brief(value)}; must be a finite number, text, true, false, null, a list or a mapping"
            )
        ]
    return []


MOST = 10**9  # of anything that is counted; more is a typo


def either(*options: dict[str, Any]) -> WithJsonSchema:
    """The JSON Schema of a value with several forms."""
    return WithJsonSchema({"anyOf": list(options)})


def _text(pattern: re.Pattern[str]) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern.pattern}$"}


# patterns for editors, which check during typing; the readers above are stricter
_LENGTH = WithJsonSchema({"type": "string", "pattern": LENGTH_PATTERN})
_INTERVAL = WithJsonSchema({"type": "string", "pattern": f"{LENGTH_PATTERN}|{CLOCK_PATTERN}"})
_SCHEDULE = WithJsonSchema({"$comment": "schedule"})

Length = Annotated[Duration, PlainValidator(Duration.parse), PlainSerializer(str), _LENGTH]
WarmupLength = Annotated[Duration, PlainValidator(_read_warmup_length), PlainSerializer(str), _LENGTH]
Period = Annotated[Duration, PlainValidator(_read_period), PlainSerializer(str), _LENGTH]
Interval = Annotated[Duration | ClockTime, PlainValidator(_read_interval), PlainSerializer(str), _INTERVAL]
Spec = Annotated[
    ScheduleSpec | GivenSchedule, PlainValidator(read_schedule), PlainSerializer(lambda spec: spec.raw), _SCHEDULE
]
MomentumSpec = Annotated[
    ScheduleSpec | GivenSchedule | OppositeSpec,
    PlainValidator(read_momentum),
    PlainSerializer(lambda spec: spec.raw),
    either({"$comment": "schedule"}, OPPOSITE),
]
Count = Annotated[int, Field(ge=1, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0), AfterValidator(read_float32)]
Factor = Annotated[float, Field(ge=0), AfterValidator(read_float32)]
Float32 = Annotated[float, AfterValidator(read_float32)]
NotNegative = Annotated[int, Field(ge=0, le=MOST)]
Seconds = Annotated[float, Field(gt=0, le=MOST_SECONDS)]
Parameters = Annotated[dict[str, Any], AfterValidator(read_parameters)]
Name = Annotated[str, AfterValidator(read_name)]
Own = Annotated[str, AfterValidator(_read_own)]
PathText = Annotated[str, AfterValidator(read_path)]
Threads = Annotated[
    int | str,
    PlainValidator(_read_threads),
    either({"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MOST_THREADS}),
]
Workers = Annotated[
    int | str,
    PlainValidator(_read_workers),
    either({"const": "auto"}, {"type": "integer", "minimum": 0, "maximum": MOST_THREADS}),
]
Devices = Annotated[
    list[str],
    PlainValidator(_read_devices),
    WithJsonSchema({"type": "array", "minItems": 1, "items": _text(_DEVICE)}),
]
Base = Annotated[
    float | str | None,
    PlainValidator(_read_base),
    either(
        {"type": "number", "exclusiveMinimum": 0},
        {"const": "auto"},
        {"type": "string", "pattern": r"\.json$"},
        {"type": "null"},
    ),
]
WarmupStart = Annotated[
    float | str,
    PlainValidator(_read_start),
    either({"type": "number", "minimum": 0}, {"const": "unscaled"}, _text(_MULTIPLE)),
]
Floor = Annotated[float | str, PlainValidator(_read_floor), either({"type": "number", "minimum": 0}, _text(_MULTIPLE))]
Scale = Annotated[
    float | str | None,
    PlainValidator(_read_scale),
    either({"type": "number", "exclusiveMinimum": 0}, {"const": "keep"}, {"type": "null"}),
]
Validation = Annotated[int | float, PlainValidator(_read_validation), WithJsonSchema({"type": "number", "minimum": 0})]
Layers = Annotated[
    list[str | list[str]],
    PlainValidator(_read_layers),
    WithJsonSchema({"type": "array", "minItems": 1, "items": {"type": ["string", "array"]}}),
]
