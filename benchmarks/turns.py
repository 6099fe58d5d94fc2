"""Learners of one job, timed in turns, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

from contenders import batches

from harness.comm import shards_of_rank
from harness.data import Batch, GlobalBatch

ROUNDS, UPDATES = 60, 10


def lower_quartiles(world: Any, network: str, learners: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of an update of each learner, the lower quartile of the rounds; every rank calls it."""
    stream, times, t = batches(network), {name: [] for name in learners}, 0
    for number in range(ROUNDS):
        taken = [next(stream) for _ in range(UPDATES)]
        for name in list(learners)[:: 1 if number % 2 else -1]:
            world.barrier("start")
            begun = time.perf_counter()
            for step, (data, label) in enumerate(taken, start=t + 1):
                own = tuple(Batch(shard, data, label) for shard in shards_of_rank(world.size, world))
                learners[name].update(GlobalBatch(step, own, len(data) * world.size), 0.01)
            learners[name].check_pending()
            times[name].append((time.perf_counter() - begun) / UPDATES)
        t += UPDATES
    return {name: 1e3 * statistics.quantiles(found[5:], n=4)[0] for name, found in times.items()}
