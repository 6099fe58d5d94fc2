"""Several plans side by side: a table for the terminal, and where two of them first differ."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from harness.plan import LRPlan

_PIECE = 1 << 20  # iterations that are compared at a time: little memory, and an early difference is found early
_WIDTH = 80
_MOST_PHASES = 8


@dataclass(frozen=True)
class NamedPlan:
    """A plan, and its name in tables and pictures.

    Attributes:
        name: short, such as `8` for the plan of eight workers.
        plan: the plan.
        own_momentum: the optimizer's own number, for a plan without a momentum schedule.
    """

    name: str
    plan: LRPlan
    own_momentum: float | None = None

    @property
    def num_iterations(self) -> int:
        """The run's length."""
        return self.plan.sizes.num_iterations

    @property
    def has_momentum_schedule(self) -> bool:
        """Whether the momentum changes with the iteration."""
        return self.plan.momentum(1) is not None

    def momenta(self, t: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The momentum of each iteration, scheduled or the optimizer's own; NaN for an optimizer without."""
        if self.has_momentum_schedule or self.own_momentum is None:
            return self.plan.momenta(t)
        return np.full(t.shape, self.own_momentum)

    @cached_property
    def peak(self) -> str:
        """The highest learning rate of the run, with an `x` if the finder has yet to find the base."""
        highest = max(float(self.plan.lrs(t).max()) for t in _pieces(self.num_iterations))
        return f"{highest:.6g}{'x' if self.plan.in_units_of_base else ''}"

    def describe(self, t: int) -> str:
        """Learning rate and momentum of iteration `t` with all digits, or that the run has ended."""
        if t > self.num_iterations:
            return f"ended at iteration {self.num_iterations}"
        momentum = float(self.momenta(np.array([t]))[0])
        return f"lr {self.plan.lr(t)!r}" + ("" if np.isnan(momentum) else f"  momentum {momentum!r}")


def first_difference(one: NamedPlan, other: NamedPlan) -> int | None:
    """The first iteration at which learning rate or momentum differ, or that only one run has; None if there is none.

    Numbers are equal if their bits are.
    """
    shortest, longest = sorted((one.num_iterations, other.num_iterations))
    for t in _pieces(shortest):
        momenta, others = one.momenta(t), other.momenta(t)
        same_momentum = (momenta == others) | (np.isnan(momenta) & np.isnan(others))
        differs = (one.plan.lrs(t) != other.plan.lrs(t)) | ~same_momentum
        if differs.any():
            return int(t[differs.argmax()])
    return shortest + 1 if longest > shortest else None


def table_of_plans(plans: Sequence[NamedPlan], heading: str) -> list[str]:
    """The lines of a table, at most 80 columns wide: sizes, highest learning rate, and where each phase starts.

    Args:
        plans: one per row.
        heading: of the column of names, at most 7 letters long.
    """
    lines = [f"{heading:<7}{'shards':>8}{'iterations':>12}{'per epoch':>10}{'peak':>12}  phases start at iteration"]
    for named in plans:
        sizes = named.plan.sizes
        row = (
            f"{named.name:<7}{sizes.shards:>8}{sizes.num_iterations:>12}{sizes.iterations_per_epoch:>10}"
            f"{named.peak:>12}  "
        )
        wrapped = textwrap.wrap(_phases(named.plan), _WIDTH - len(row))
        lines += [row + wrapped[0], *(" " * len(row) + more for more in wrapped[1:])]
    return lines


def _phases(plan: LRPlan) -> str:
    begins = plan.breakpoints()
    if begins[-1] > 1:  # the last iteration ends a phase
        begins.pop()
    shown = ", ".join(map(str, begins[:_MOST_PHASES]))
    return shown if len(begins) <= _MOST_PHASES else f"{shown}, ... ({len(begins)} in all)"


def _pieces(total: int) -> Iterator[npt.NDArray[np.int64]]:
    for begin in range(1, total + 1, _PIECE):
        yield np.arange(begin, min(begin + _PIECE, total + 1))
