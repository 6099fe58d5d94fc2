"""Why the learning rate is what it is in one iteration: the terms of the plan, from the outermost to the innermost.

Every line ends with the value that its part has there, so that a reader can check each step with a calculator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from harness.plan.lr_plan import Cut, LRPlan
from harness.schedules import (
    CoolDown,
    CyclicalSchedule,
    LinearCoolDown,
    MaximumSchedule,
    MinimumSchedule,
    MultipliedSchedule,
    NoisySchedule,
    OppositeSchedule,
    OverlapWarmUp,
    RaisedSchedule,
    ScaledAfter,
    ScaledSchedule,
    Schedule,
    ScheduleLike,
    SequentialSchedule,
    Spliced,
    WarmUp,
    WithoutBreakpoints,
    length_of,
)
from harness.schedules.catalogue import CATALOGUE
from harness.schedules.custom import OwnSchedule

_INDENT = "  "
_NAMES = {entry.make: name for name, entry in CATALOGUE.items()}
_MOST_CUTS = 10  # in words
_LONGEST = 60  # of a parameter's value


def explain(plan: LRPlan, t: int) -> list[str]:
    """Lines that say how the learning rate of an iteration, and its momentum if it is planned, come about.

    Args:
        plan: of a run.
        t: from 0, the value before training, to the last iteration.
    """
    sizes, unit = plan.sizes, "x" if plan.in_units_of_base else ""
    epoch = f"epoch {t / sizes.iterations_per_epoch:.4g} of {sizes.num_iterations / sizes.iterations_per_epoch:.4g}"
    lines = [f"iteration {t} of {sizes.num_iterations} ({epoch}): learning rate {plan.lr(t):.6g}{unit}"]
    lines.append(f"{_INDENT}1x: {plan.scaling.describe()}")
    if plan.config.stretch != 1:
        lines.append(f"{_INDENT}lengths: x {plan.config.stretch:g} (lr.stretch)")
    lines += [_INDENT + line for line in _terms(plan.schedule, t)]
    momentum = plan.momentum(t)
    if momentum is not None and plan.momentum_schedule is not None:
        lines.append(f"momentum {momentum:.6g}")
        lines += [_INDENT + line for line in _terms(plan.momentum_schedule, t)]
    return lines


def _terms(schedule: ScheduleLike, t: int) -> Iterator[str]:
    """A schedule's own line, then those of what it asked, further in."""
    said, asked = _step(schedule, t)
    yield f"{said}: {schedule(t):.6g}"
    for inner, at in asked:
        yield from (_INDENT + line for line in _terms(inner, at))


def _step(schedule: ScheduleLike, t: int) -> tuple[str, list[tuple[ScheduleLike, int]]]:
    """What a schedule does at its iteration t, in words, and which others it asks for which of their iterations."""
    match schedule:
        case ScaledAfter():
            return _cuts(schedule, t)
        case Spliced():
            is_early = t <= schedule.last
            part = "the plan that held until" if is_early else "the plan that holds since"
            return f"{part} iteration {schedule.last}", [(schedule.before if is_early else schedule.after, t)]
        case WarmUp() | OverlapWarmUp():
            return _warm_up(schedule, t)
        case CoolDown() | LinearCoolDown():
            end = schedule.start_idx + schedule.length
            if t <= schedule.start_idx:
                return f"before its cool-down, which begins after {schedule.start_idx}", [(schedule.schedule, t)]
            where = f"iteration {t - schedule.start_idx} of {schedule.length}" if t < end else "over"
            said = f"cool-down, {where}, to {schedule.end_lr:g} from"
            return said, [(schedule.schedule, schedule.start_idx)]
        case SequentialSchedule():
            starts = (0, *schedule.boundaries)
            index = sum(start <= t for start in schedule.boundaries)
            said = f"sequential, part {index + 1} of {len(starts)}, since {starts[index]}"
            return said, [(schedule.schedules[index], t - starts[index])]
        case ScaledSchedule():
            return f"scaled, {schedule.factor:g} times", [(schedule.schedule, t)]
        case RaisedSchedule():
            return f"raised, {schedule.floor_lr:g} plus", [(schedule.schedule, t)]
        case NoisySchedule():
            inner = float(schedule.schedule(t))
            noise = schedule(t) / inner - 1 if inner else 0.0
            return f"noisy, x (1 {'+' if noise >= 0 else '-'} {abs(noise):.4g})", [(schedule.schedule, t)]
        case OppositeSchedule():
            said = f"opposite, {schedule.high:g} - ({schedule.high:g} - {schedule.low:g}) times the height"
            return said, [(schedule.schedule, t)]
        case MultipliedSchedule() | MaximumSchedule() | MinimumSchedule():
            name = {MultipliedSchedule: "the product of", MaximumSchedule: "the highest of"}.get(
                type(schedule), "the lowest of"
            )
            return name, [(inner, t) for inner in schedule.schedules]
        case CyclicalSchedule():
            cycle, offset, length, repeated, height = schedule.parts(t)
            said = f"cyclical, cycle {cycle + 1}, iteration {offset} of its {length}"
            said += "" if height == 1 else f", {height:.4g} times as high above {schedule.floor:g}"
            return said, [(repeated, offset)]
        case WithoutBreakpoints():
            return _step(schedule.schedule, t)
        case _:
            return _leaf(schedule, t), []


def _cuts(schedule: ScaledAfter, t: int) -> tuple[str, list[tuple[ScheduleLike, int]]]:
    """All cuts around a schedule, of which there may be thousands, in one line."""
    inner: ScheduleLike = schedule
    shown: list[str] = []
    while isinstance(inner, ScaledAfter):
        shown.insert(0, ("" if t > inner.last else "not yet ") + str(Cut(inner.last, inner.factor, inner.floor)))
        inner = inner.schedule
    left = len(shown) - _MOST_CUTS
    return ", ".join(shown[:_MOST_CUTS]) + (f", and {left} more" if left > 0 else ""), [(inner, t)]


def _warm_up(schedule: WarmUp | OverlapWarmUp, t: int) -> tuple[str, list[tuple[ScheduleLike, int]]]:
    shift = schedule.length if isinstance(schedule, WarmUp) else 0
    if t > schedule.length:
        said = f"after the warm-up of {schedule.length}" + (", which postpones the schedule" if shift else "")
        return said, [(schedule.schedule, t - shift)]
    way = "" if schedule.shape == "linear" else f" ({schedule.shape})"
    said = f"warm-up{way}, iteration {t} of {schedule.length}, from {schedule.start_lr:g} to"
    return said, [(schedule.schedule, schedule.length - shift)]


def _leaf(schedule: ScheduleLike, t: int) -> str:
    """A schedule without others in it: its name in YAML, its parameters, and where in it the iteration is."""
    if isinstance(schedule, OwnSchedule):
        return f"{schedule.name} at its iteration {t}"
    if not isinstance(schedule, Schedule):
        return f"{getattr(schedule, '__name__', type(schedule).__name__)} at its iteration {t}"
    fields = [one for one in dataclasses.fields(schedule) if one.init and one.repr]
    values = {one.name: getattr(schedule, one.name) for one in fields}
    shown = ", ".join(f"{name} {_number(value)}" for name, value in values.items() if value is not None)
    length = length_of(schedule)
    of = f" of {length}" if length else ""
    return f"{_NAMES.get(type(schedule), type(schedule).__name__)} ({shown}) at its iteration {t}{of}"


def _number(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
