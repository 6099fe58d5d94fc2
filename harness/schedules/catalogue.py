"""The schedules that YAML can name, and what each of their parameters is.

The defaults are those of the constructors. To add a schedule, add a line.
"""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.named import LONGEST_NAME
from harness.schedules.bounds import FRACTION, NOISE, POSITIVE, RATE, SHRINK, Interval
from harness.schedules.combined import MaximumSchedule, MinimumSchedule, MultipliedSchedule
from harness.schedules.cooldowns import CoolDown, LinearCoolDown
from harness.schedules.cyclical import DECAYING, CyclicalSchedule, exp_range, triangular2
from harness.schedules.modifiers import RaisedSchedule, ScaledSchedule, SequentialSchedule
from harness.schedules.noise import DISTRIBUTIONS, NoisySchedule
from harness.schedules.ramps import PHASES, STARTS, OneCycleSchedule, RampSchedule, RiseAndFallSchedule
from harness.schedules.shapes import (
    CosineAnnealingSchedule,
    ExponentialSchedule,
    InverseSqrtSchedule,
    PolySchedule,
    TriangularSchedule,
)
from harness.schedules.stable import DECAYS, WarmupStableDecaySchedule
from harness.schedules.steps import ConstantSchedule, FactorSchedule, MultiFactorSchedule
from harness.schedules.warmups import RISING, LinearWarmUp, WarmUp
from harness.schedules.ways import RISES, WAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.schedules.base import Schedule


@dataclass(frozen=True)
class Rate:
    """A learning rate: a number, or `Nx`."""

    allowed: Interval = RATE


@dataclass(frozen=True)
class Number:
    """A plain number."""

    allowed: Interval


@dataclass(frozen=True)
class Seed:
    """A whole number of at least 0, with which a generator is seeded."""


@dataclass(frozen=True)
class Length:
    """A duration; it begins where the length before it in the same schedule ends."""


@dataclass(frozen=True)
class Positions:
    """A list of durations, each counted from the beginning of its schedule."""


@dataclass(frozen=True)
class Inner:
    """A schedule; it begins with the one it is in, or where the lengths of that one end."""

    after_lengths: bool = False


@dataclass(frozen=True)
class Inners:
    """A list of schedules; each but the first begins at its position in the list named `boundaries`, or all at once."""

    at_boundaries: bool = True


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]


Kind = Rate | Number | Seed | Length | Positions | Inner | Inners | Choice


@dataclass(frozen=True)
class Entry:
    """A schedule that has a name: how it is made, and its parameters in the order of its constructor's."""

    make: Callable[..., Schedule]
    parameters: dict[str, Kind]

    def default(self, parameter: str) -> object:
        """The constructor's default, or `inspect.Parameter.empty`."""
        return inspect.signature(self.make).parameters[parameter].default

    @property
    def inner(self) -> Inner | Inners | None:
        """The kind of the parameter that holds other schedules, if there is one."""
        return next((kind for kind in self.parameters.values() if isinstance(kind, Inner | Inners)), None)


_RATE, _LENGTH, _POWER, _RISES, _TOGETHER = Rate(), Length(), Number(POSITIVE), Choice(tuple(RISES)), Inners(False)
_TRIANGLE: dict[str, Kind] = {"min_lr": _RATE, "max_lr": _RATE, "cycle_length": _LENGTH}

_SHAPES = {
    "constant": Entry(ConstantSchedule, {"lr": _RATE}),
    "factor": Entry(
        FactorSchedule, {"base_lr": _RATE, "step": _LENGTH, "factor": Number(SHRINK), "stop_factor_lr": _RATE}
    ),
    "multi_factor": Entry(MultiFactorSchedule, {"base_lr": _RATE, "step": Positions(), "factor": Number(SHRINK)}),
    "poly": Entry(PolySchedule, {"base_lr": _RATE, "max_update": _LENGTH, "pwr": Number(POSITIVE), "final_lr": _RATE}),
    "cosine": Entry(CosineAnnealingSchedule, {"min_lr": _RATE, "max_lr": _RATE, "cycle_length": _LENGTH}),
    "triangular": Entry(
        TriangularSchedule,
        {"min_lr": _RATE, "max_lr": _RATE, "cycle_length": _LENGTH, "inc_fraction": Number(FRACTION)},
    ),
    "exponential": Entry(
        ExponentialSchedule, {"start_lr": Rate(POSITIVE), "finish_lr": Rate(POSITIVE), "length": _LENGTH}
    ),
    "inverse_sqrt": Entry(InverseSqrtSchedule, {"base_lr": _RATE, "timescale": _LENGTH}),
    "warmup_stable_decay": Entry(
        WarmupStableDecaySchedule,
        {
            "peak_lr": _RATE,
            "warmup_length": _LENGTH,
            "stable_length": _LENGTH,
            "decay_length": _LENGTH,
            "final_lr": _RATE,
            "decay": Choice(tuple(DECAYS)),
        },
    ),
    "one_cycle": Entry(
        OneCycleSchedule,
        {
            "start_lr": _RATE,
            "max_lr": _RATE,
            "cycle_length": _LENGTH,
            "cooldown_length": _LENGTH,
            "finish_lr": _RATE,
            "shape": _RISES,
        },
    ),
    "ramp": Entry(
        RampSchedule, {"start_lr": _RATE, "end_lr": _RATE, "length": _LENGTH, "shape": Choice(WAYS), "pwr": _POWER}
    ),
    "rise_and_fall": Entry(
        RiseAndFallSchedule,
        {
            "start_lr": _RATE,
            "max_lr": _RATE,
            "end_lr": _RATE,
            "cycle_length": _LENGTH,
            "inc_fraction": Number(FRACTION),
            "shape": _RISES,
            "starts": Choice(STARTS),
            "phases": Choice(PHASES),
        },
    ),
}

REPEATABLE = tuple(name for name, entry in _SHAPES.items() if "cycle_length" in entry.parameters)
"""The schedules that `cyclical` can repeat."""

CATALOGUE: dict[str, Entry] = _SHAPES | {
    "linear_warm_up": Entry(
        LinearWarmUp, {"schedule": Inner(after_lengths=True), "start_lr": _RATE, "length": _LENGTH}
    ),
    "warm_up": Entry(
        WarmUp,
        {
            "schedule": Inner(after_lengths=True),
            "start_lr": _RATE,
            "length": _LENGTH,
            "shape": Choice(RISING),
            "pwr": _POWER,
        },
    ),
    "linear_cool_down": Entry(
        LinearCoolDown, {"schedule": Inner(), "finish_lr": _RATE, "start_idx": _LENGTH, "length": _LENGTH}
    ),
    "cool_down": Entry(
        CoolDown,
        {
            "schedule": Inner(),
            "start_idx": _LENGTH,
            "length": _LENGTH,
            "finish_lr": _RATE,
            "finish_fraction": Number(SHRINK),
            "shape": Choice(WAYS),
            "pwr": _POWER,
        },
    ),
    "cyclical": Entry(
        CyclicalSchedule,
        {
            "schedule_class": Choice(REPEATABLE),
            "cycle_length": _LENGTH,
            "cycle_length_decay": Number(POSITIVE),
            "cycle_magnitude_decay": Number(SHRINK),
            "floor_lr": _RATE,
            "iteration_magnitude_decay": Number(SHRINK),
            "decay": Choice(DECAYING),
        },
    ),
    "triangular2": Entry(triangular2, _TRIANGLE | {"inc_fraction": Number(FRACTION)}),
    "exp_range": Entry(exp_range, _TRIANGLE | {"gamma": Number(SHRINK), "inc_fraction": Number(FRACTION)}),
    "sequential": Entry(SequentialSchedule, {"schedules": Inners(), "boundaries": Positions()}),
    "scaled": Entry(ScaledSchedule, {"schedule": Inner(), "factor": Number(POSITIVE)}),
    "raised": Entry(RaisedSchedule, {"schedule": Inner(), "floor_lr": _RATE}),
    "multiplied": Entry(MultipliedSchedule, {"schedules": _TOGETHER}),
    "maximum": Entry(MaximumSchedule, {"schedules": _TOGETHER}),
    "minimum": Entry(MinimumSchedule, {"schedules": _TOGETHER}),
    "noisy": Entry(
        NoisySchedule,
        {
            "schedule": Inner(),
            "noise": Number(NOISE),
            "distribution": Choice(DISTRIBUTIONS),
            "seed": Seed(),
            "start_idx": _LENGTH,
            "length": _LENGTH,
        },
    ),
}
"""Every schedule that YAML can name."""


def parameters_of(name: str, inner: str | None) -> dict[str, tuple[Kind, object]]:
    """The parameters of a schedule, each with its kind and default; for `cyclical`, with those of the repeated one."""
    entry = CATALOGUE[name]
    found = {parameter: (kind, entry.default(parameter)) for parameter, kind in entry.parameters.items()}
    if inner is not None:
        repeated = CATALOGUE[inner]
        for parameter, kind in repeated.parameters.items():
            found.setdefault(parameter, (kind, repeated.default(parameter)))
    return found


def did_you_mean(found: object, known: Iterable[str]) -> str:
    """The known names, after the one that was probably meant.

    >>> did_you_mean("linaer", ["cosine", "linear"])
    "did you mean 'linear'? known: cosine, linear"
    """
    return _suggest(found, {name: name for name in known})


def did_you_mean_schedule(found: object) -> str:
    """The known schedules, after the one that was probably meant, by its name in YAML or by its class."""
    return _suggest(found, {entry.make.__name__: name for name, entry in CATALOGUE.items()} | {n: n for n in CATALOGUE})


def _suggest(found: object, spellings: dict[str, str]) -> str:
    plain = {_plain(spelling): name for spelling, name in spellings.items()}
    written = str(found) if isinstance(found, str | int | float | None) else ""
    close = difflib.get_close_matches(_plain(written), plain, n=1) if len(written) <= LONGEST_NAME else []
    hint = f"did you mean {plain[close[0]]!r}? " if close else ""
    return f"{hint}known: {', '.join(dict.fromkeys(spellings.values()))}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")
