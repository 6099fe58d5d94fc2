"""A schedule of the user's own in YAML: `my_module:my_function` with its parameters.

Each value is checked when it is asked for; `purity` finds out whether it is a function of the iteration alone.
"""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import ConfigError
from harness.named import brief, call, cut, load_function
from harness.schedules.adapters import as_schedule
from harness.schedules.base import Iterations, Rates, Schedule, breakpoints_of, iter_breakpoints_of, length_of
from harness.schedules.bounds import RATE
from harness.schedules.scalars import read_rate
from harness.units import Duration

if TYPE_CHECKING:
    from harness.schedules.base import ScheduleLike

_MOST_S = 60.0  # for the values of a whole plan; every update asks once more


def read_argument(value: object, allow_x: bool) -> Any:
    """The meaning of a parameter's value: `"5ep"` is a length, `"0.1x"` a learning rate, anything else itself."""
    if not isinstance(value, str):
        return value
    for read in (Duration.parse, lambda text: read_rate(text, RATE, allow_x)):
        try:
            return read(value)
        except ValueError:
            continue
    return value


@dataclass(frozen=True, eq=False)
class OwnSchedule(Schedule):
    """A user's function as a schedule: it gives finite numbers of at least 0, or an error with its name.

    Attributes:
        name: `module:function` of the function that returned it; of one that a program gave itself its own name.
        arguments: what that function was called with; `None` for one that a program gave, which cannot be built again.
        function: from the iteration to a number.
        asked: the values that it gave, recorded until `stop_recording`.
    """

    name: str
    arguments: Mapping[str, Any] | None
    function: ScheduleLike
    asked: dict[int, float] = field(default_factory=dict, repr=False)
    _spent_s: list[float] = field(default_factory=lambda: [0.0], repr=False)

    def __call__(self, t: int) -> float:
        """The learning rate of iteration `t >= 0`.

        Raises:
            ConfigError: if the function fails, or gives anything but a finite number of at least 0.
        """
        if not self._spent_s:
            return self._checked(t)
        begin_s = time.perf_counter()
        value = self.asked.setdefault(t, self._checked(t))
        self._spent_s[0] += time.perf_counter() - begin_s
        if self._spent_s[0] > _MOST_S:
            raise ConfigError(
                f"{self.name!r} took {self._spent_s[0]:.0f} s for {len(self.asked)} iterations, and every update calls "
                "it; compute a table once in the function and return a lookup"
            )
        return value

    def values(self, t: Iterations) -> Rates:
        """Learning rates of many iterations, one by one, so that each is checked."""
        return np.fromiter(map(self, t.tolist()), np.float64, t.size)

    @property
    def total_length(self) -> int | None:
        """The returned schedule's own."""
        return length_of(self.function)

    def breakpoints(self, until: int) -> tuple[int, ...]:
        """The returned schedule's own."""
        return breakpoints_of(self.function, until)

    def iter_breakpoints(self, until: int) -> Iterator[int]:
        """The returned schedule's own."""
        return iter_breakpoints_of(self.function, until)

    @property
    def seconds_an_iteration(self) -> float:
        """Seconds for one of the recorded iterations."""
        return sum(self._spent_s) / max(1, len(self.asked))

    def stop_recording(self) -> None:
        """Keep the recorded values, and record no more."""
        self._spent_s.clear()

    def _checked(self, t: int) -> float:
        try:
            value = self.function(t)
        except (Exception, SystemExit) as error:  # a user's function may do anything
            reason = f"{type(error).__name__}: {cut(str(error), 200)}"
            raise ConfigError(f"{self.name!r} failed at its iteration {t} ({reason}); fix the function") from error
        number = _as_number(value)
        if number is None or not math.isfinite(number) or number < 0:
            shown = type(value).__name__ if number is None else repr(number)
            shown = f"{shown} {' '.join(brief(value).split())}" if number is None and value is not None else shown
            raise ConfigError(
                f"{self.name!r} gave {shown} at its iteration {t}; it must give a finite number of at least 0"
            )
        return number


def _as_number(value: Any) -> float | None:
    """A value from the user's code as a number: NumPy scalars and arrays of one element count."""
    if type(value) is float:
        return value
    is_complex = isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real)
    if isinstance(value, bool | np.bool_) or is_complex or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def build_custom(name: str, arguments: Mapping[str, Any]) -> OwnSchedule:
    """What the user's function returns: a schedule, a pure callable of the iteration, or a scheduler of MXNet.

    Raises:
        ValueError: if the function cannot be found or called, or returns something else.
    """
    try:
        return OwnSchedule(name, arguments, as_schedule(call(load_function(name, "schedule"), arguments, "parameters")))
    except (ConfigError, TypeError) as error:
        raise ValueError(str(error)) from error
