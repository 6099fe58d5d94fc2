"""A schedule of the user's own in YAML: `my_module:my_function` with its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.named import call, load_function
from harness.schedules.adapters import as_schedule
from harness.schedules.bounds import RATE
from harness.schedules.scalars import read_rate
from harness.units import Duration

if TYPE_CHECKING:
    from harness.schedules.base import ScheduleLike


def read_argument(value: object, allow_x: bool) -> Any:
    """What a parameter's value means: `"5ep"` is a length, `"0.1x"` a learning rate, anything else itself."""
    if not isinstance(value, str):
        return value
    for read in (Duration.parse, lambda text: read_rate(text, RATE, allow_x)):
        try:
            return read(value)
        except ValueError:
            continue
    return value


def build_custom(name: str, arguments: Mapping[str, Any]) -> ScheduleLike:
    """What the user's function returns: a schedule, a pure callable of the iteration, or a scheduler of MXNet.

    Raises:
        ValueError: if the function cannot be found or called, or returns something else.
    """
    try:
        return as_schedule(call(load_function(name, "schedule"), arguments, "parameters"))
    except (ConfigError, TypeError) as error:
        raise ValueError(str(error)) from error
