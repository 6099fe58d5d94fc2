"""Ranks that are threads of one process, for what needs ranks but no launcher."""

from __future__ import annotations

import json
import threading

from harness.comm import SingleWorld


class ThreadWorld(SingleWorld):
    """One rank of several; objects are gathered, nothing else is."""

    kind = "threads"

    def __init__(self, rank, shared):
        super().__init__()
        self.rank, self.size, self.local_rank, self.local_size = rank, shared.size, rank, shared.local_size
        self.hostname = shared.hostnames[rank]
        self.shared = shared

    def allgather_object(self, value, name):
        shared = self.shared
        shared.values[self.rank] = json.dumps(shared.change(name, self.rank, value))
        shared.barrier.wait()
        found = [json.loads(value) for value in shared.values]
        shared.barrier.wait()
        return found


class Ranks:
    """Starts a function on every rank, and gives what each returned.

    Attributes:
        change: what a test puts into the place of a value that a rank tells.
    """

    def __init__(self, size, local_size=None, change=lambda name, rank, value: value, hostnames=None):
        self.size, self.local_size, self.change = size, local_size or size, change
        self.hostnames = hostnames or ["host"] * size
        self.values = [None] * size
        self.barrier = threading.Barrier(size, timeout=30)

    def run(self, work):
        results = [None] * self.size

        def one(rank):
            results[rank] = work(ThreadWorld(rank, self))

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=40)
        return results
