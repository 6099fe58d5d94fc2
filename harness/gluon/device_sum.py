"""The sum over the devices of one process."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx

from harness.comm.tree import Assignment
from harness.gluon.replica import DeviceReplica


class DeviceAllreduce:
    """Sums over the devices of one process in the order of `harness.comm.tree`; every device then has the sum.

    A Gluon kvstore adds more than two devices in orders of its own, so it only says where the sum is taken.
    """

    def __init__(self, kind: str, replicas: Sequence[DeviceReplica], assignment: Assignment) -> None:
        """Make room for a copy of each partial sum.

        Args:
            kind: `"local"` adds on the CPU, `"device"` on the first device, as a kvstore of that kind does.
            replicas: at least two.
            assignment: whose workers they are.
        """
        self._replicas = replicas
        memory = replicas[0].buffer.memory.array
        place = mx.cpu() if kind == "local" else memory.context
        self._terms = [mx.nd.empty(memory.shape, ctx=place) for _ in range(sum(assignment.held))]
        self._additions = assignment.additions

    def __call__(self) -> None:
        """Sum; may return before it is done."""
        parts = [part.array for replica in self._replicas for part in replica.parts]
        for part, term in zip(parts, self._terms, strict=True):
            part.copyto(term)
        for into, what in self._additions:
            self._terms[into] += self._terms[what]
        for replica in self._replicas:
            self._terms[0].copyto(replica.buffer.memory.array)
