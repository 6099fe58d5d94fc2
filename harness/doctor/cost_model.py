"""The cost of a reduction on other numbers of ranks, and of a change of that number: pure models of what was measured.

A reduction of n bytes over p ranks takes

    messages(p, n) latency + 2 (p - 1) / p n / bandwidth

where `messages`, sent one after another, is 2 log2(p) for every block of the fold in halves (R. Thakur, R.
Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH, 2005), and 2 (p - 1) for a ring
(P. Patarasuk, X. Yuan: Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations, 2009), which is that of
Horovod's engine, and for every block of the fold in slices, where p is not a power of two. A byte is sent twice and
added once. With `compression: fp16` the fold is always in slices, and sends half of the bytes.

The tree over Horovod's ranks sends slices as well, of everything at once. If all partial sums together are small, it
sends them whole: p - 1 messages of n bytes.

`Changes` says how it counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


def ranks_from(ranks: int) -> list[int]:
    """The numbers of ranks that are told: those that measured, and powers of two up to 1024."""
    return [ranks, *(p for p in (2**power for power in range(2, 11)) if p > ranks)]


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


# The part of a change that hardly depends on the job, in seconds, as docs/elastic.md and docs/doctor.md tell how it was
# measured: three workers on one machine. It contains what the terms of `Changes` make of three.
LOSS_S, JOIN_S, RELAUNCH_S = 0.3, 0.9, 4.0
PAUSE_S = 5.0  # before the first restart, by default, of launch/supervise.py

_ASKED_TO_CONNECT = 10  # questions for each of the others
_MESHES = 4  # two sets of ranks, each with a mesh of all and one of a host (or of one rank a host)
_ASKED_TO_MEET = 3  # by each process of each, in one look: two notices and a pulse


class Lost(NamedTuple):
    """Seconds without new updates.

    Attributes:
        loss_s: a worker is lost.
        leave_s: a worker leaves with notice.
        join_s: a worker joins.
        restart_s: all workers are started again from a checkpoint, without what they repeat.
    """

    loss_s: float
    leave_s: float
    join_s: float
    restart_s: float


@dataclass(frozen=True)
class Changes:
    """The cost of a change of p workers in an elastic job, against that of a restart of all.

    With ask, pair, state and start as below, and the constants above,

        meet(p) = 3 p^2 ask                              each looks at the notices of all, twice, and their pulses
        connect(p) = 10 p (p - 1) ask + 4 (p - 1) pair    for p > 1
        give(p) = ceil(log2 p) / ceil(log2 ranks) state   a broadcast in a binomial tree

        loss(p) = LOSS_S + meet(p - 1) + connect(p - 1) + give(p - 1) + update(p)
        leave(p) = LOSS_S + meet(p - 1) + connect(p - 1)
        join(p) = JOIN_S + meet(p) + connect(p + 1) + give(p + 1)
        restart(p) = RELAUNCH_S + PAUSE_S + start + meet(p) + connect(p)

    The questions of `connect` were counted at the server of a job with 2, 3 and 4 ranks. Those of `meet` are what one
    look at all others costs, so that is a lower bound. The update that was under way is done again by those who are
    left; whether the state has to be given to any of them depends on the moment.

    Attributes:
        ranks: that measured, at least 2.
        ask_s: seconds for each question at a server of small values that all ranks ask at once.
        pair_s: seconds for each connection with another rank.
        state_s: seconds to give the state to all ranks.
        start_s: from the start of a process to the end of its first update, less a usual one.
    """

    ranks: int
    ask_s: float
    pair_s: float
    state_s: float
    start_s: float

    def seconds(self, workers: int, update_s: float) -> Lost:
        """What each change costs.

        Args:
            workers: before the change, at least 2.
            update_s: seconds of an update of that many.
        """
        fewer = workers - 1
        leave_s = LOSS_S + self._meet_s(fewer) + self._connect_s(fewer)
        join_s = JOIN_S + self._meet_s(workers) + self._connect_s(workers + 1) + self._give_s(workers + 1)
        restart_s = RELAUNCH_S + PAUSE_S + self.start_s + self._meet_s(workers) + self._connect_s(workers)
        return Lost(leave_s + self._give_s(fewer) + update_s, leave_s, join_s, restart_s)

    def _meet_s(self, workers: int) -> float:
        return _ASKED_TO_MEET * workers**2 * self.ask_s

    def _connect_s(self, workers: int) -> float:
        others = workers - 1
        return _ASKED_TO_CONNECT * workers * others * self.ask_s + _MESHES * others * self.pair_s

    def _give_s(self, workers: int) -> float:
        return math.ceil(math.log2(workers)) / math.ceil(math.log2(self.ranks)) * self.state_s
