"""Which number of a schedule the finder's suggestion is meant to be, and the YAML that says so. Pure.

L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186, section 3.3: cycles run
between the rate at which the loss begins to fall and the one above which it no longer does.
L. N. Smith, A disciplined approach to neural network hyper-parameters: Part 1, 2018, arXiv 1803.09820: a single cycle
begins a factor of 10 to 20 below its highest rate, and ends several decades below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from harness.config import LRConfig
from harness.finder.suggestion import Suggestion
from harness.schedules import ScheduleSpec

PEAK, CYCLES, ONE_CYCLE = "peak", "cyclical", "one_cycle"
_CYCLICAL = ("cyclical", "triangular", "triangular2", "exp_range")


class Role(NamedTuple):
    """A use of the suggestion.

    Attributes:
        words: what `1x` is in such a schedule.
        source: where the other bounds come from; empty where there are none.
    """

    words: str
    source: str = ""


ROLES = {
    PEAK: Role("the highest rate of the schedule: where a warm-up ends and a decay begins, or a constant rate"),
    CYCLES: Role("the upper bound of cycles; the lower one is where the loss begins to fall", "Smith 2015"),
    ONE_CYCLE: Role("the highest rate of 1cycle, which begins at a tenth of it", "Smith 2018"),
}


def role_of(lr: LRConfig) -> str:
    """What `1x` is in a configuration's schedule, a name in `ROLES`."""
    names = set(_names(lr.schedule) if isinstance(lr.schedule, ScheduleSpec) else ())  # a program may give an object
    if ONE_CYCLE in names:
        return ONE_CYCLE
    return CYCLES if names.intersection(_CYCLICAL) else PEAK


def to_paste(suggestion: Suggestion, role: str, global_batch: int, scaling: str | None) -> str:
    """The section `lr` of a configuration that uses a suggestion, as YAML.

    Args:
        suggestion: with a learning rate.
        role: a name in `ROLES`; of a peak the schedule is the user's own.
        global_batch: that it was found at.
        scaling: of the configuration; with `none` there is no batch to scale from.
    """
    lr = suggestion.lr or 0.0
    lines = ["lr:", f"  base: {lr:g}"]
    if scaling != "none":
        lines.append(f"  reference_batch: {global_batch}")
    if scaling is not None:
        lines.append(f"  scaling: {scaling}")
    if role == CYCLES:
        low = f"{(suggestion.begins or lr / 4) / lr:.2g}x"
        cycles = f"schedule_class: triangular, cycle_length: 25%, min_lr: {low}, max_lr: 1x"
        lines += ["  schedule:", f"    cyclical: {{{cycles}}}"]
    elif role == ONE_CYCLE:
        cycle = "start_lr: 0.1x, max_lr: 1x, cycle_length: 80%, cooldown_length: 20%, finish_lr: 0.001x"
        lines += ["  schedule:", f"    one_cycle: {{{cycle}}}"]
    return "\n".join(lines)


def _names(spec: ScheduleSpec) -> Iterator[str]:
    """The names of a schedule and of all in it."""
    yield spec.name
    for _, value in spec.arguments:
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, ScheduleSpec):
                yield from _names(inner)
