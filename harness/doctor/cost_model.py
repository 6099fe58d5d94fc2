"""The cost of a reduction on other numbers of ranks: a model with two numbers, fitted to measurements.

A reduction of n bytes over p ranks takes

    messages(p, n) latency + 2 (p - 1) / p n / bandwidth

where `messages`, sent one after another, is 2 log2(p) for every block of the fold in halves (R. Thakur, R.
Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH, 2005), and 2 (p - 1) for a ring
(P. Patarasuk, X. Yuan: Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations, 2009), which is that of
Horovod's engine, and for every block of the fold in slices, where p is not a power of two. A byte is sent twice and
added once. With `compression: fp16` the fold is always in slices, and sends half of the bytes.

The tree over Horovod's ranks sends slices as well, of everything at once. If all partial sums together are small, it
sends them whole: p - 1 messages of n bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.comm.collective_fold import WHOLE_BYTES as ALL_WHOLE_BYTES
from harness.comm.fold import BLOCK_BYTES, WHOLE_BYTES


def fold_cost(ranks: int, num_bytes: float) -> tuple[float, float]:
    """The messages that a rank sends one after another in the fold, and the bytes in all of them."""
    doublings = math.log2(ranks)
    if not doublings.is_integer():
        return _slices_cost(ranks, num_bytes)
    if num_bytes <= WHOLE_BYTES:
        return doublings, doublings * num_bytes
    return 2 * doublings * math.ceil(num_bytes / BLOCK_BYTES), 2 * (ranks - 1) / ranks * num_bytes


def ring_cost(ranks: int, num_bytes: float) -> tuple[float, float]:
    """The same around a ring."""
    return 2.0 * (ranks - 1), 2 * (ranks - 1) / ranks * num_bytes


def slices_cost(ranks: int, num_bytes: float) -> tuple[float, float]:
    """The same of the tree over Horovod's ranks; for two of them it is the engine's."""
    if ranks > 2 and ranks * num_bytes <= ALL_WHOLE_BYTES:
        return ranks - 1.0, (ranks - 1) * num_bytes
    return ring_cost(ranks, num_bytes)


def half_cost(ranks: int, num_bytes: float) -> tuple[float, float]:
    """The same of the fold with `compression: fp16`, one shard a rank: slices of every block, at half of its bytes."""
    messages, sent = _slices_cost(ranks, num_bytes)
    return messages, sent / 2


def _slices_cost(ranks: int, num_bytes: float) -> tuple[float, float]:
    return 2.0 * (ranks - 1) * math.ceil(num_bytes / BLOCK_BYTES), 2 * (ranks - 1) / ranks * num_bytes


COSTS = {"fold": fold_cost, "ring": ring_cost, "slices": slices_cost, "half": half_cost}


@dataclass(frozen=True)
class Reduction:
    """The cost of summing over ranks.

    Attributes:
        algorithm: `fold`, `ring`, `slices` or `half`.
        latency_s: seconds for even the shortest message.
        seconds_per_byte: for each byte that is sent, including its share of the addition.
        error: median relative error of the model on its measurements.
    """

    algorithm: str
    latency_s: float
    seconds_per_byte: float
    error: float = 0.0

    def seconds(self, ranks: int, num_bytes: float) -> float:
        """The time of a reduction in seconds.

        >>> round(Reduction("fold", latency_s=1e-5, seconds_per_byte=1e-10).seconds(8, 1e6), 9)
        0.000235
        """
        messages, sent = COSTS[self.algorithm](ranks, num_bytes)
        return messages * self.latency_s + sent * self.seconds_per_byte


def fit(algorithm: str, ranks: int, sizes: Sequence[int], seconds: Sequence[float]) -> Reduction:
    """The reduction that fits the measurements best, by the sum of squared relative errors.

    Args:
        algorithm: `fold`, `ring`, `slices` or `half`.
        ranks: number of ranks that measured, at least 2.
        sizes: bytes of each array.
        seconds: measured for each.
    """
    factors = np.array([COSTS[algorithm](ranks, size) for size in sizes])
    measured = np.array(seconds)
    relative = factors / measured[:, None]
    found = np.linalg.lstsq(relative, np.ones(len(sizes)), rcond=None)[0]
    for only in (0, 1):  # neither can be negative: if noise makes one so, the other alone explains most
        if found[1 - only] < 0:
            column = relative[:, only]
            found = np.zeros(2)
            found[only] = column.sum() / (column @ column)
    error = float(np.median(np.abs(factors @ found / measured - 1)))
    return Reduction(algorithm, float(found[0]), float(found[1]), error)
