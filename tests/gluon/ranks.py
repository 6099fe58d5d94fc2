"""Evaluation of given predictions on ranks that are threads: the sums over batches without a network."""

from __future__ import annotations

import json
import threading

import numpy as np

from harness.comm import SingleWorld
from harness.gluon.totals import Seen, Totals


class ThreadWorld(SingleWorld):
    """One rank of several; arrays are summed in the order of the ranks, objects gathered as JSON."""

    kind = "threads"

    def __init__(self, rank, shared):
        super().__init__()
        self.rank, self.size, self.shared = rank, len(shared.values), shared
        self.calls = []

    def exchanged(self, value, name):
        self.calls.append(name)
        self.shared.values[self.rank] = value
        self.shared.barrier.wait()
        found = list(self.shared.values)
        self.shared.barrier.wait()
        return found

    def allreduce(self, array, name):
        return np.sum(np.stack(self.exchanged(array.copy(), name)), axis=0, dtype=array.dtype)

    def allgather_object(self, value, name):
        return [json.loads(text) for text in self.exchanged(json.dumps(value), name)]


class Shared:
    """What the ranks of one job have in common."""

    def __init__(self, size):
        self.values = [None] * size
        self.barrier = threading.Barrier(size, timeout=30)


def on_ranks(size, work):
    """What `work(world)` returned on every rank, or raised: an exception of one rank breaks the others' collectives."""
    shared, found = Shared(size), [None] * size

    def one(rank):
        try:
            found[rank] = work(ThreadWorld(rank, shared))
        except BaseException as error:
            found[rank] = error
            shared.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def rows_of(value, rows):
    """These samples of an array, or of arrays in a tuple or mapping."""
    if isinstance(value, dict):
        return {name: rows_of(one, rows) for name, one in value.items()}
    if isinstance(value, tuple):
        return tuple(rows_of(one, rows) for one in value)
    return value[rows]


def evaluated_on(world, metrics, prediction, label, batch, num_samples=None):
    """The results of one rank, which looks at its batches of the samples."""
    total = len(label) if num_samples is None else num_samples
    num_batches = -(-total // batch)
    totals = Totals(world, metrics, num_batches)
    for first in range(0, num_batches, world.size):
        index = first + world.rank
        if index >= num_batches:
            totals.add(None)
            continue
        rows = slice(index * batch, (index + 1) * batch)
        losses = (np.arange(total, dtype=np.float32)[rows] / 7).astype(np.float64)
        totals.add(Seen(index, rows_of(prediction, rows), rows_of(label, rows), (losses.sum(), len(losses))))
    return totals.results(total)


def evaluated(metrics, prediction, label, batch=7, size=1, num_samples=None):
    """The results, which are the same on every rank.

    Args:
        metrics: by name; a function where each rank needs its own, because they have a state.
        prediction: of all samples.
        label: of all samples.
        batch: samples in a batch.
        size: the number of ranks.
        num_samples: where labels do not tell it.
    """

    def work(world):
        own = metrics() if callable(metrics) else metrics
        return evaluated_on(world, own, prediction, label, batch, num_samples)

    found = on_ranks(size, work)
    raised = [one for one in found if isinstance(one, Exception) and not isinstance(one, threading.BrokenBarrierError)]
    if raised:
        raise raised[0]
    assert all(one == found[0] for one in found)
    return found[0]
