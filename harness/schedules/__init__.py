"""Learning-rate schedules: pure functions of the iteration, and the way to them from YAML and from MXNet.

A schedule is any callable `t -> float`. The classes here are immutable, compared by value and picklable, and hashable
where what they are given is; asking one for iteration 1000 and then for 10 gives what a fresh one gives. (What
`from_mx` makes is equal only to itself.) NumPy evaluates many iterations at once; nothing here imports MXNet.

>>> from harness.schedules import LinearWarmUp, PolySchedule
>>> schedule = LinearWarmUp(PolySchedule(base_lr=0.8, max_update=90, pwr=1), start_lr=0.0, length=10)
>>> [round(schedule(t), 3) for t in (0, 5, 10, 55, 100)]
[0.0, 0.4, 0.8, 0.4, 0.0]
"""

from harness.schedules.adapters import as_mx, as_schedule, from_mx
from harness.schedules.base import Schedule, ScheduleLike, breakpoints_of, length_of
from harness.schedules.bounds import BoundError
from harness.schedules.combined import MaximumSchedule, MinimumSchedule, MultipliedSchedule
from harness.schedules.cooldowns import CoolDown, LinearCoolDown
from harness.schedules.cyclical import CyclicalSchedule, exp_range, triangular2
from harness.schedules.given import GivenSchedule, read_schedule
from harness.schedules.modifiers import (
    RaisedSchedule,
    ScaledSchedule,
    SequentialSchedule,
    WithoutBreakpoints,
)
from harness.schedules.noise import NoisySchedule
from harness.schedules.opposite import OppositeSchedule, OppositeSpec
from harness.schedules.ramps import OneCycleSchedule, RampSchedule, RiseAndFallSchedule
from harness.schedules.reading import parse_spec
from harness.schedules.shapes import (
    CosineAnnealingSchedule,
    ExponentialSchedule,
    InverseSqrtSchedule,
    PolySchedule,
    TriangularSchedule,
)
from harness.schedules.spec import Frame, ScheduleSpec, SpecError
from harness.schedules.splices import ScaledAfter, Spliced
from harness.schedules.stable import WarmupStableDecaySchedule
from harness.schedules.steps import ConstantSchedule, FactorSchedule, MultiFactorSchedule
from harness.schedules.warmups import LinearWarmUp, OverlapWarmUp, WarmUp

__all__ = [
    "BoundError",
    "ConstantSchedule",
    "CoolDown",
    "CosineAnnealingSchedule",
    "CyclicalSchedule",
    "ExponentialSchedule",
    "FactorSchedule",
    "Frame",
    "GivenSchedule",
    "InverseSqrtSchedule",
    "LinearCoolDown",
    "LinearWarmUp",
    "MaximumSchedule",
    "MinimumSchedule",
    "MultiFactorSchedule",
    "MultipliedSchedule",
    "NoisySchedule",
    "OneCycleSchedule",
    "OppositeSchedule",
    "OppositeSpec",
    "OverlapWarmUp",
    "PolySchedule",
    "RaisedSchedule",
    "RampSchedule",
    "RiseAndFallSchedule",
    "ScaledAfter",
    "ScaledSchedule",
    "Schedule",
    "ScheduleLike",
    "ScheduleSpec",
    "SequentialSchedule",
    "SpecError",
    "Spliced",
    "TriangularSchedule",
    "WarmUp",
    "WarmupStableDecaySchedule",
    "WithoutBreakpoints",
    "as_mx",
    "as_schedule",
    "breakpoints_of",
    "exp_range",
    "from_mx",
    "length_of",
    "parse_spec",
    "read_schedule",
    "triangular2",
]
