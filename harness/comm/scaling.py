"""What a reduction costs on other numbers of ranks: a model with two numbers, fitted to what was measured.

A reduction of n bytes over p ranks takes

    messages(p) latency + (p - 1) / p n seconds_per_byte

where `messages` is 2 log2(p) for the fold in halves (R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective
Communication Operations in MPICH, 2005) and 2 (p - 1) for a ring (P. Patarasuk, X. Yuan: Bandwidth Optimal All-reduce
Algorithms for Clusters of Workstations, 2009), which is Horovod's. A byte is sent twice and added once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def fold_messages(ranks: int) -> float:
    """Messages that a rank sends one after another, in the fold in halves."""
    return 2 * math.log2(ranks)


def ring_messages(ranks: int) -> float:
    """Messages that a rank sends one after another, around a ring."""
    return 2.0 * (ranks - 1)


MESSAGES = {"fold": fold_messages, "ring": ring_messages}


@dataclass(frozen=True)
class Reduction:
    """The cost of summing over ranks.

    Attributes:
        algorithm: `fold` or `ring`.
        latency_s: seconds that a message takes however short it is.
        seconds_per_byte: that each byte of the array takes, sending and adding together.
        error: median relative error of the model on what it was fitted to.
    """

    algorithm: str
    latency_s: float
    seconds_per_byte: float
    error: float = 0.0

    def seconds(self, ranks: int, num_bytes: float) -> float:
        """The time of a reduction.

        >>> round(Reduction("fold", latency_s=1e-5, seconds_per_byte=1e-10).seconds(8, 1e6), 9)
        0.0001475
        """
        return (
            MESSAGES[self.algorithm](ranks) * self.latency_s + (ranks - 1) / ranks * num_bytes * self.seconds_per_byte
        )


def fit(algorithm: str, ranks: int, sizes: Sequence[int], seconds: Sequence[float]) -> Reduction:
    """The reduction that comes nearest to what was measured, by the sum of squared relative errors.

    Args:
        algorithm: `fold` or `ring`.
        ranks: that measured, at least 2.
        sizes: bytes of each array.
        seconds: that each took.
    """
    factors = np.array([[MESSAGES[algorithm](ranks), (ranks - 1) / ranks * size] for size in sizes])
    measured = np.array(seconds)
    relative = factors / measured[:, None]
    found = np.linalg.lstsq(relative, np.ones(len(sizes)), rcond=None)[0]
    for only in (0, 1):  # neither is below 0: where noise says so, the other alone explains the most
        if found[1 - only] < 0:
            column = relative[:, only]
            found = np.zeros(2)
            found[only] = column.sum() / (column @ column)
    error = float(np.median(np.abs(factors @ found / measured - 1)))
    return Reduction(algorithm, float(found[0]), float(found[1]), error)
