"""Whether PyTorch's losses are those of the same run, by the losses of runs of MXNet that add in other orders. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from harness.bridge.layers import Array

ORDERS = 38
"""In which MXNet adds beside its own, by default: with these a right replay is told to be none once in 20 at most.

Suppose PyTorch's order is one more of MXNet's, so that all n runs of MXNet and PyTorch's are drawn alike. Where PyTorch
is farther from the run than any two of the n are apart, it is one of the two of all n + 1 that are farthest apart. By
symmetry a given one is among those two with a chance of 2 / (n + 1), which is 1/20 for n = 39.
"""


class Losses(NamedTuple):
    """One iteration.

    Attributes:
        t: its number.
        lr: its learning rate.
        mxnet: the mean loss of its global batch in MXNet.
        torch: in PyTorch.
        reordered: in MXNet, adding in other orders.
    """

    t: int
    lr: float
    mxnet: float
    torch: float
    reordered: Sequence[float]


@dataclass(frozen=True)
class Replayed:
    """What both have made of the same updates.

    Attributes:
        rows: an iteration each.
        weights: how far an array is apart at the end, as a part of how far it has moved; the largest over arrays.
        weights_rounding: the same of MXNet that adds in other orders.
    """

    rows: Sequence[Losses]
    weights: float
    weights_rounding: float

    @property
    def differences(self) -> Array:
        """How far the loss in PyTorch is from that in MXNet, by iteration."""
        return np.array([abs(one.torch - one.mxnet) for one in self.rows])

    @property
    def rounding(self) -> Array:
        """How far the losses of those two runs of MXNet are apart that differ most, by iteration."""
        runs = [[one.mxnet, *one.reordered] for one in self.rows]
        return np.array([max(losses) - min(losses) for losses in runs])

    @property
    def agrees(self) -> bool:
        """Whether PyTorch is as near to MXNet as two runs of MXNet are that add in other orders."""
        return bool(self.differences.max() <= self.rounding.max())

    @property
    def is_close(self) -> bool:
        """Whether they are apart by less than twice as much: the runs of MXNet are a few of many orders."""
        return bool(self.differences.max() < 2 * self.rounding.max())

    def verdict(self) -> str:
        """One sentence."""
        worst, count = self.rows[int(self.differences.argmax())].t, 1 + len(self.rows[0].reordered)
        told = (
            f"losses differ by {self.differences.max():.3g} at most (iteration {worst}), those of two of "
            f"{count} runs of MXNet that add in other orders by {self.rounding.max():.3g}"
        )
        if self.agrees:
            return f"{told}: the same run"
        if self.is_close:
            chance = f"may be chance, as one in {(count + 1) / 2:.3g} right replays has it at most"
            return f"{told}: NOT SHOWN to be the same run; less than twice as much {chance}; more --orders tell"
        return f"{told}: NOT the same run"
