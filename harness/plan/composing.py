"""The section `lr` of a configuration, its sizes known, to one schedule of the learning rate and one of the momentum.

What does not fit the run becomes a `Problem` in a list, so that all of them can be told at once. Knows no amendments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.config import LRConfig, Problem
from harness.errors import ConfigError
from harness.plan.scaling import Scaling
from harness.plan.sizes import Sizes
from harness.schedules import (
    BoundError,
    OppositeSchedule,
    OverlapWarmUp,
    ScheduleLike,
    SpecError,
    WarmUp,
    WithoutBreakpoints,
)
from harness.schedules.base import has_few_breakpoints
from harness.schedules.bounds import LARGEST, SMALLEST
from harness.schedules.ends import end_of
from harness.schedules.opposite import OppositeSpec

MAX_BREAKPOINTS = 100_000
WARM_UPS: dict[str, type[WarmUp] | type[OverlapWarmUp]] = {
    "prefix": WarmUp,
    "overlap": OverlapWarmUp,
}


@dataclass(frozen=True)
class Composition:
    """What a plan is made of before it is amended.

    Attributes:
        written: the schedule of the learning rate as it was written.
        lr: the same with its warm-up, counted in the run's iterations.
        momentum: of the momentum; `None` where the optimizer's own number holds.
    """

    written: ScheduleLike
    lr: ScheduleLike
    momentum: ScheduleLike | None


def compose(scaling: Scaling, problems: list[Problem]) -> Composition | None:
    """Build the schedules.

    Args:
        scaling: with the section `lr` and the run's sizes.
        problems: what does not fit the run is added.

    Returns:
        `None` if there are problems.
    """
    config, sizes, total = scaling.config, scaling.sizes, scaling.sizes.num_iterations
    _check_peak(scaling, problems)
    if problems:
        return None
    length = _warmup_length(config, sizes, problems)
    prefix = length if config.warmup is not None and config.warmup.mode == "prefix" else 0
    unit = "x" if scaling.in_units_of_base else ""
    written = momentum = None
    with problems_of("schedule", scaling.peak, problems):
        # a prefix postpones the schedule, so that `100%` is what then remains of the run
        written = config.schedule.build(sizes.frame(total - prefix, scaling.peak, config.exact_stretch))
        told = _overlong(written, total - prefix, prefix, "LR", unit)
        problems += [Problem(("lr", "schedule", config.schedule.name), one) for one in told]
    if isinstance(config.momentum, OppositeSpec):
        with problems_of("momentum", scaling.peak, problems):
            momentum = None if written is None else _opposite(config, config.momentum, sizes, length)
    elif config.momentum is not None:
        with problems_of("momentum", scaling.peak, problems):
            momentum = config.momentum.build(sizes.frame(total, 1.0, config.exact_stretch))
            told = _overlong(momentum, total, 0, "momentum", "")
            problems += [Problem(("lr", "momentum", config.momentum.name), one) for one in told]
    if problems or written is None:
        return None
    lr = written
    with problems_of("schedule", scaling.peak, problems):
        lr = _marked(written, total - prefix)
        if config.warmup is not None:
            warmup = config.warmup
            lr = WARM_UPS[warmup.mode](lr, _warmup_start(scaling), length, warmup.shape, warmup.pwr)
    with problems_of("momentum", scaling.peak, problems):
        momentum = None if momentum is None else _marked(momentum, total)
    return None if problems else Composition(written, lr, momentum)


def _opposite(config: LRConfig, opposite: OppositeSpec, sizes: Sizes, length: int) -> ScheduleLike:
    """The momentum that falls while the learning rate rises; a warm-up begins at height 0."""
    warmup, total = config.warmup, sizes.num_iterations
    prefix = length if warmup is not None and warmup.mode == "prefix" else 0
    height = opposite.heights(config.schedule).build(sizes.frame(total - prefix, 1.0, config.exact_stretch))
    if warmup is not None and length:  # nothing grows by equal factors from 0
        shape = "linear" if warmup.shape == "exponential" else warmup.shape
        height = WARM_UPS[warmup.mode](height, 0.0, length, shape, warmup.pwr)
    return OppositeSchedule(height, opposite.high, opposite.low)


@contextmanager
def problems_of(key: str, peak: float, problems: list[Problem]) -> Iterator[None]:
    """Make problems of `lr.key` of whatever a schedule raises while it is built or asked."""
    try:
        yield
    except SpecError as error:
        problems += [Problem(("lr", key, *path), message) for path, message in error.problems]
    except BoundError as error:  # of the warm-up, all of whose other arguments are known to be good
        where = "start" if error.argument == "start_lr" else "shape"
        problems.append(Problem(("lr", "warmup", where), error.reason))
    except ConfigError as error:  # from a schedule of the user's own
        problems.append(Problem(("lr", key), str(error)))
    except OverflowError:
        problems.append(Problem(("lr", key), f"is not a number everywhere at 1x = {peak:g}"))


def _check_peak(scaling: Scaling, problems: list[Problem]) -> None:
    """Refuse a `1x` that no float32 holds."""
    if not SMALLEST <= scaling.peak <= LARGEST:
        remedy = "lower" if scaling.peak > LARGEST else "raise"
        message = (
            f"{scaling.base:g} x factor {scaling.factor:g} = {scaling.peak:g} is not a valid learning rate: float32 "
            f"holds {SMALLEST:.2g} to {LARGEST:.2g}; {remedy} it"
        )
        problems.append(Problem(("lr", "base"), message))


def _warmup_length(config: LRConfig, sizes: Sizes, problems: list[Problem]) -> int:
    """The iterations of the warm-up; 0 if there is none, or a problem with it."""
    warmup, total = config.warmup, sizes.num_iterations
    if warmup is None:
        return 0
    try:
        length = sizes.iterations(warmup.length, config.exact_stretch)
    except ValueError as error:
        problems.append(Problem(("lr", "warmup", "length"), str(error)))
        return 0
    if 1 <= length < total:
        return length
    relation = "longer than" if length > total else "as long as"
    message = (
        f"'{warmup.length}' ({length} iterations) is {relation} the run ({total} iterations); shorten the warm-up "
        "or make the run longer (train)"
        if length
        else f"'{warmup.length}' is less than half an iteration here ({total} in the run); lengthen the warm-up or "
        "remove lr.warmup"
    )
    problems.append(Problem(("lr", "warmup", "length"), message))
    return 0


def _warmup_start(scaling: Scaling) -> float:
    """The learning rate at iteration 0: a number, the base before it is scaled, or a multiple of `1x`."""
    start = 0.0 if scaling.config.warmup is None else scaling.config.warmup.start
    if isinstance(start, str):
        return scaling.base if start == "unscaled" else float(start[:-1]) * scaling.peak
    return start


def _marked(schedule: ScheduleLike, until: int) -> ScheduleLike:
    """The schedule, without its breakpoints where there are more than can be held."""
    return schedule if has_few_breakpoints(schedule, until, MAX_BREAKPOINTS) else WithoutBreakpoints(schedule)


def _overlong(schedule: ScheduleLike, span: int, warmup: int, what: str, unit: str) -> list[str]:
    """Say so of a schedule that would end after the run; one without an end fits every run."""
    length = end_of(schedule)
    if length is None or length <= span:
        return []
    of_run = f"the run has {span}" + (f" after its warm-up of {warmup}" if warmup else "")
    return [
        f"takes {length} iterations but {of_run}; it would end at {what} {schedule(span):g}{unit} instead of "
        f"{schedule(length):g}{unit}; shorten the schedule or make the run longer (train)"
    ]
