"""The world of Horovod: collectives through `horovod.mxnet`.

What to know about Horovod 0.28.1 to understand this file: unnamed collectives are numbered per process, so one extra
call on a rank would shift all later ones; `broadcast_object` unpickles, hangs if types differ, and returns on the root
before anything is sent; a rank that leaves first takes the others down (horovod/horovod#642).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from typing_extensions import override

from harness.comm.bootstrap import Bootstrap, check_host_name, not_installed
from harness.comm.collective_fold import CollectiveFold, Collectives
from harness.comm.half import HalfPrecision, HalfRounder
from harness.comm.launcher import Launch
from harness.comm.mpi import MpiWorld
from harness.comm.tree import Assignment
from harness.comm.world import Array, Buffer, SumBy, World
from harness.errors import HarnessError, LostRankError

T = TypeVar("T")
# in MXNet's error when another rank, or the network, is gone
_LOST = ("Horovod has been shut down", "onnection", "gloo/transport")


class HorovodWorld(World):
    """The ranks that `horovodrun` started, or `mpirun`."""

    def __init__(self, launch: Launch, sum_by: SumBy = "tree", *, connected: bool = False) -> None:
        """Join the job.

        Args:
            launch: how this process was started.
            sum_by: `"tree"` adds partial sums in the order of the tree over the shards, `"engine"` leaves the order to
                Horovod, which changes it with the number of ranks.
            connected: whether Horovod has connected its ranks already.

        Raises:
            ConfigError: if Horovod for MXNet is not installed, or the host's name has no address.
            LostRankError: if the ranks cannot be connected.
        """
        self._bootstrap = Bootstrap(MpiWorld(launch)) if launch.is_mpi else None
        # a parameter-server variable would turn `import mxnet` into a server process
        for variable in [key for key in os.environ if key.startswith("DMLC_")]:
            del os.environ[variable]
        try:
            import horovod.mxnet as hvd
            import mxnet as mx
            from horovod.mxnet.mpi_ops import MPI_MXNET_LIB_CTYPES
        except ImportError as error:
            raise not_installed(error) from error
        self._hvd = hvd
        self._round = HalfRounder()
        self._mx = mx
        if os.environ.get("HOROVOD_CONTROLLER") == "gloo":
            check_host_name()
        if not connected:
            try:
                hvd.init()
            except ValueError as error:
                raise LostRankError(f"Horovod could not connect the ranks ({error})") from error
        if self._bootstrap is not None:
            self._bootstrap.close_rendezvous()
        self.kind = "horovod over " + ("NCCL" if hvd.nccl_built() else "Gloo" if hvd.gloo_enabled() else "MPI")
        self.sum_by = sum_by
        super().__init__(hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size())
        self._collectives = _Collectives(mx, hvd, MPI_MXNET_LIB_CTYPES)
        self._fold = CollectiveFold(self.rank, self._collectives)

    @override
    def allreduce(self, array: Array, name: str) -> Array:
        if array.size == 0:
            return array.copy()
        return self._on_array(array, name, lambda sent: self._hvd.allreduce(sent, name=name, op=self._hvd.Sum))

    @override
    def sum_parts(
        self, parts: Sequence[Buffer], assignment: Assignment, name: str, half: HalfPrecision | None = None
    ) -> None:
        """What is rounded travels as float32."""
        *others, total = [part.array for part in parts]
        if self.sum_by == "tree":
            self._named(name, lambda: self._fold.finish(parts, assignment, name))
        else:
            for part in others:
                total += part
            self._named(name, lambda: self._collectives.allreduce(total, name))
        if half is not None:
            self._round(total, half, parts[-1].host)

    @override
    def broadcast(self, array: Array, name: str, root: int = 0) -> Array:
        if array.size == 0:
            return array.copy()
        return self._on_array(array, name, lambda sent: self._hvd.broadcast(sent, root_rank=root, name=name))

    @override
    def allgather_bytes(self, sent: Array, name: str) -> list[Array]:
        lengths = self._lengths(sent.size, f"{name}.lengths")
        array = self._mx.nd.array(sent, dtype=np.uint8)
        joined = self._named(name, lambda: self._hvd.allgather(array, name=name).asnumpy())
        return np.split(joined, np.cumsum(lengths)[:-1])

    def _lengths(self, own: int, name: str) -> Array:
        """Every rank's number."""
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = own
        return self.allreduce(lengths, name)

    @override
    def close(self) -> None:
        # one rank's shutdown request ends all ranks, so every rank must have finished everything first
        self._mx.nd.waitall()
        self.barrier("close")
        self._hvd.shutdown()
        if self._bootstrap is not None:
            self._bootstrap.close()

    def _on_array(self, array: Array, name: str, collective: Callable[[Any], Any]) -> Array:
        sent = self._mx.nd.array(array.reshape(-1), dtype=array.dtype)
        received: Array = self._named(name, lambda: collective(sent).asnumpy())
        return received.reshape(array.shape)

    @override
    def explain(self, error: Exception) -> HarnessError | None:
        """Names the last collective; an asynchronous one may fail long after its call."""
        if isinstance(error, self._mx.base.MXNetError) and any(sign in str(error) for sign in _LOST):
            return LostRankError(f"another rank left while this one waited in the collective {self.last_collective!r}")
        return None

    def _named(self, name: str, call: Callable[[], T]) -> T:
        self.last_collective = name
        self.num_collectives += 1
        try:
            return call()
        except self._mx.base.MXNetError as error:
            lost = self.explain(error)
            if lost is None:
                raise
            raise lost from error


class _Collectives(Collectives):
    """Horovod's collectives, with memory of the caller's for what they return.

    `hvd.alltoall` and `hvd.allgather` allocate that in every call, and wait for it: for 44 MB that takes as long again.
    The functions below them, in C, fill the array that they are given if it has the right size. They keep a pointer to
    it, so its owner must hold on to it until it is filled.
    """

    def __init__(self, mx: Any, hvd: Any, library: Any) -> None:
        self._mx = mx
        self._hvd = hvd
        self._library = library
        # By the numbers themselves, and by the collective's name: Horovod reads and writes these as well.
        self._counts: dict[tuple[int, ...], Any] = {}
        self._received_counts: dict[str, Any] = {}

    @override
    def alltoall(self, sent: Any, counts: Sequence[int], received: Any, name: str) -> None:
        key = tuple(counts)
        if key not in self._counts:
            self._counts[key] = self._mx.nd.array(counts, dtype=np.int32)
        if name not in self._received_counts:
            self._received_counts[name] = self._mx.nd.array(counts, dtype=np.int32)
        self._mx.base.check_call(
            self._library.horovod_mxnet_alltoall_async(
                sent.handle,
                received.handle,
                name.encode(),
                self._counts[key].handle,
                self._received_counts[name].handle,
                ctypes.c_int(0),  # priority
                ctypes.c_int(0),  # process set: all ranks
            )
        )

    @override
    def allgather(self, sent: Any, received: Any, name: str) -> None:
        self._mx.base.check_call(
            self._library.horovod_mxnet_allgather_async(
                ctypes.byref(sent.handle),
                ctypes.byref(received.handle),
                name.encode(),
                ctypes.c_int(0),  # priority
                ctypes.c_int(0),  # process set: all ranks
                ctypes.c_int(1),  # one array
            )
        )

    @override
    def allreduce(self, array: Any, name: str) -> None:
        self._hvd.allreduce_(array, name=name, op=self._hvd.Sum)


def num_gpus() -> int:
    """How many GPUs this MXNet sees."""
    import mxnet as mx

    return int(mx.context.num_gpus())


def built_with() -> list[str]:
    """What this Horovod was built with, of Gloo, MPI and NCCL."""
    import horovod.mxnet as hvd

    answers = {"Gloo": hvd.gloo_built(), "MPI": hvd.mpi_built(), "NCCL": hvd.nccl_built()}
    return [name for name, answer in answers.items() if answer]
