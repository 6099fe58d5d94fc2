"""The world of MPI's ranks: collectives on host memory through mpi4py, sums by our own fold.

`mpirun` and `srun` start them; those of `horovodrun` find each other through `horovodrun.py`.

MPI_Allreduce leaves the order of additions to the library, and is two to three times slower than the fold on large
arrays in shared memory (`benchmarks/fold.py`).
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from typing_extensions import override

from harness.comm.fold import RankFold
from harness.comm.half import HalfPrecision
from harness.comm.launcher import Launch
from harness.comm.tree import Assignment
from harness.comm.world import Array, Buffer, World
from harness.errors import ConfigError, HarnessError, LostRankError
from harness.shipped import install_command

T = TypeVar("T")
# how a rank waits for the others: first without a pause
_BUSY_S, _PAUSE_SHARE, _LONGEST_PAUSE_S = 2e-3, 0.03, 2e-3
_LIBRARIES = {"mpirun (Open MPI)": "libmpi.so.40"}  # mpi4py itself looks for MPICH's first
_REASONS = {  # why a library sees no other rank
    "srun": "srun tells it nothing of the others. Use `srun --mpi=pmi2` for MPICH, `srun --mpi=pmix` for Open MPI; "
    "`srun --mpi=list` says what this Slurm has",
    "horovodrun": "it was built to find ranks in another way than PMI-1",
}


class MpiWorld(World):
    """The ranks of MPI_COMM_WORLD."""

    fails_when_lost = False

    def __init__(self, launch: Launch) -> None:
        """Join the job.

        Raises:
            ConfigError: if mpi4py or an MPI library is missing, or the library is not the launcher's.
            LostRankError: if the ranks cannot be connected.
        """
        mpi = start_mpi(launch)
        self._mpi = mpi
        try:
            self._comm = mpi.COMM_WORLD.Dup()
            self._comm.Barrier()
        except mpi.Exception as error:
            raise LostRankError(f"{library_of(mpi)} could not connect the ranks ({error})") from error
        _unlink_shared_memory()
        host = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
        super().__init__(self._comm.Get_rank(), self._comm.Get_size(), host.Get_rank(), host.Get_size())
        host.Free()
        self.kind = f"mpi, {library_of(mpi)}"
        self._fold = RankFold(self.rank, self.size, self._exchange)

    @override
    def allreduce(self, array: Array, name: str) -> Array:
        total = array.copy(order="C")
        self._named(name, lambda: self._fold.fold(total.reshape(-1)))
        return total

    @override
    def sum_parts(
        self, parts: Sequence[Buffer], assignment: Assignment, name: str, half: HalfPrecision | None = None
    ) -> None:
        """Returns when it is done."""
        arrays = []
        for part in parts:
            part.array.wait_to_read()
            assert part.host is not None  # connect gives this world to CPU arrays alone
            arrays.append(part.host)
        self._named(name, lambda: self._fold.finish(arrays, assignment, half))

    @override
    def broadcast(self, array: Array, name: str, root: int = 0) -> Array:
        received = array.copy(order="C")
        self._named(name, lambda: self._wait([self._comm.Ibcast(_bytes(received), root=root)]))
        return received

    @override
    def allgather_bytes(self, sent: Array, name: str) -> list[Array]:
        return self._named(name, lambda: self._allgather(sent))

    @override
    def close(self) -> None:
        self.barrier("close")
        self._comm.Free()
        _finalise(self._mpi)

    @override
    def abandon(self) -> None:
        atexit.unregister(_finalise)

    @override
    def explain(self, error: Exception) -> HarnessError | None:
        if isinstance(error, self._mpi.Exception):
            return LostRankError(f"another rank left while this one waited in the collective {self.last_collective!r}")
        return None

    def _exchange(self, sent: Array, received: Array, to: int, source: int) -> None:
        requests = []
        if received.size:
            requests.append(self._comm.Irecv(_bytes(received), source))
        if sent.size:
            requests.append(self._comm.Isend(_bytes(sent), to))
        self._wait(requests)

    def _allgather(self, sent: Array) -> list[Array]:
        lengths = np.zeros(self.size, np.int64)
        self._wait([self._comm.Iallgather(np.array([sent.size], np.int64), lengths)])
        joined = np.empty(int(lengths.sum()), np.uint8)
        self._wait([self._comm.Iallgatherv(sent, [joined, lengths])])
        return np.split(joined, np.cumsum(lengths)[:-1])

    def _wait(self, requests: list[Any]) -> None:
        """Wait for messages; after a while with pauses, because MPI's own calls keep a core busy as long as they wait.

        With more ranks than cores another rank needs that core, as does one that evaluates or saves alone. A pause is
        a small part of what was waited before, so it hardly makes a rank late.
        """
        began = time.perf_counter()
        while not self._mpi.Request.Testall(requests):
            waited = time.perf_counter() - began
            if waited < _BUSY_S:
                os.sched_yield()
            else:
                time.sleep(min(waited * _PAUSE_SHARE, _LONGEST_PAUSE_S))

    def _named(self, name: str, call: Callable[[], T]) -> T:
        self.last_collective = name
        self.num_collectives += 1
        try:
            return call()
        except self._mpi.Exception as error:
            lost = self.explain(error)
            assert lost is not None
            raise lost from error


def load_mpi(launch: Launch) -> Any:
    """Import mpi4py's MPI, with the library that belongs to the launcher, and initialise nothing.

    Raises:
        ConfigError: if there is none.
    """
    if launch.launcher in _LIBRARIES and not {"MPI4PY_LIBMPI", "MPI4PY_MPIABI"} & os.environ.keys():
        # several libraries may be installed; ranks find each other only through the launcher's
        name = _LIBRARIES[launch.launcher]
        os.environ["MPI4PY_LIBMPI"] = os.pathsep.join([str(Path(sys.prefix) / "lib" / name), name])
    try:
        import mpi4py

        mpi4py.rc.initialize = False  # `_initialise` does it
        # after a few broadcasts MPICH switches to one that spins: 2 ms instead of 0.01 with more ranks than cores
        os.environ.setdefault("MPIR_CVAR_BCAST_POSIX_INTRA_ALGORITHM", "mpir")
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"started by {launch.launcher}, but mpi4py finds no MPI library for it ({error}); "
            f"`{install_command('mpich')}` installs MPICH, or set MPI4PY_LIBMPI to the library of your mpirun"
        ) from error
    return MPI


def start_mpi(launch: Launch) -> Any:
    """Import and initialise mpi4py's MPI, with the library that belongs to the launcher.

    Raises:
        ConfigError: if there is none, or the processes do not find each other through it.
    """
    mpi = load_mpi(launch)
    if not mpi.Is_initialized():
        _initialise(mpi)
    if mpi.COMM_WORLD.Get_size() != launch.size:
        found = f"{library_of(mpi)} sees {mpi.COMM_WORLD.Get_size()}"
        raise ConfigError(
            f"{launch.launcher} started {launch.size} processes, but {found}: "
            + _REASONS.get(
                str(launch.launcher),
                "it is not the library of this launcher. Use the mpirun that belongs to it, or set MPI4PY_LIBMPI to "
                "the launcher's library",
            )
        )
    return mpi


def _initialise(mpi: Any) -> None:
    """Call `MPI_Init_thread`, which waits for all ranks, without the GIL, so that the thread that watches it can run.

    mpi4py would hold the GIL. The function is found through mpi4py's module, in the library that it has loaded.

    Raises:
        LostRankError: if MPI says that it failed.
    """
    level = mpi.THREAD_FUNNELED  # the main thread alone calls MPI; locks would cost time
    try:
        begin = ctypes.CDLL(mpi.__file__).MPI_Init_thread
    except (OSError, AttributeError):
        mpi.Init_thread(level)
    else:
        code = begin(None, None, ctypes.c_int(level), ctypes.byref(ctypes.c_int()))
        if code != mpi.SUCCESS:
            raise LostRankError(f"{library_of(mpi)} could not connect the ranks (MPI_Init_thread gave {code})")
    for world in (mpi.COMM_WORLD, mpi.COMM_SELF):
        world.Set_errhandler(mpi.ERRORS_RETURN)  # as mpi4py does: errors are raised, and do not end the process
    atexit.register(_finalise, mpi)


def _finalise(mpi: Any) -> None:
    """Call `MPI_Finalize`, which may wait for all ranks, without the GIL, as `_initialise` does."""
    if mpi.Is_finalized():
        return
    try:
        end = ctypes.CDLL(mpi.__file__).MPI_Finalize
    except (OSError, AttributeError):
        mpi.Finalize()
    else:
        end()


def library_of(mpi: Any) -> str:
    """The MPI library in words, such as `MPICH 5.0.2`."""
    return " ".join([mpi.get_vendor()[0], ".".join(map(str, mpi.get_vendor()[1]))])


def _unlink_shared_memory() -> None:
    """Unlink the shared memory of MPICH's ranks on this host, which all of them have opened, so that it ends with them.

    MPICH names it after the job. A job that is restarted under the same name, as Slurm does on a requeue, would take
    what killed ranks have left for its own, and fail or hang in MPI_Init (see pmodels/mpich#7374 and #7750).
    """
    for name in set(re.findall(r"/dev/shm/mpich_shm_\w+", Path("/proc/self/maps").read_text(encoding="utf-8"))):
        Path(name).unlink(missing_ok=True)


def _bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)
