"""What a process can know about its job before anything slow is imported: the launcher's environment, the cores.

Must not import mxnet, horovod or mpi4py: the number of threads has to be set before MXNet starts its own.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import ConfigError
from harness.named import cut
from harness.parsing import whole_number
from harness.processes import MOST_THREADS

TORCHRUN = "torchrun"
_ONLY_WITH = {  # variables that other programs set as well count where the launcher has set this one
    TORCHRUN: "TORCHELASTIC_RUN_ID",
    "mpirun (MPICH)": "MPI_LOCALNRANKS",
}
# launcher, and the variables in which it tells a process its rank, world size, local rank and local size; torchrun is
# first, because on a cluster it is itself started once a node by one of the others
_LAUNCHERS = (
    (TORCHRUN, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
    (
        "mpirun (Open MPI)",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    ("mpirun (MPICH)", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)
_SLURM = (
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_CPUS_PER_TASK",
)
_MPI = ("mpirun (Open MPI)", "mpirun (MPICH)", "srun")


@dataclass(frozen=True)
class Launch:
    """How this process was started.

    Attributes:
        launcher: what started it, in words; `None` for plain `python`.
        rank: this process among all.
        size: number of processes.
        local_rank: this process among those of its host.
        local_size: number of processes on its host.
        cores: how many of its host's cores it was given, where the launcher says so.
        is_elastic: whether processes may come and go (`horovodrun --host-discovery-script`).
    """

    launcher: str | None = None
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    cores: int | None = None
    is_elastic: bool = False

    @property
    def is_mpi(self) -> bool:
        """Whether the processes find each other through MPI."""
        return self.launcher in _MPI


def read_launch(environ: Mapping[str, str] = os.environ) -> Launch:
    """Read the launcher's variables; plain `python` has none and is a world of one.

    Ranks of torchrun (`harness.bridge`) have no collectives here: `harness.comm.connect` refuses them.

    >>> read_launch({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"})
    Launch(launcher='horovodrun', rank=1, size=2, local_rank=0, local_size=1, cores=None, is_elastic=False)

    Raises:
        ConfigError: if they are not numbers.
    """
    for launcher, rank, size, local_rank, local_size in _LAUNCHERS:
        if rank in environ and size in environ and _ONLY_WITH.get(launcher, rank) in environ:
            texts = [environ[rank], environ[size], environ.get(local_rank, "0"), environ.get(local_size, "1")]
            numbers = [number for text in texts if (number := whole_number(text)) is not None]
            if len(numbers) < len(texts):
                raise ConfigError(
                    f"{launcher}: {rank}={cut(texts[0])!r} and {size}={cut(texts[1])!r} are not a rank and a world size"
                )
            is_elastic = launcher == "horovodrun" and environ.get("HOROVOD_ELASTIC") == "1"
            return Launch(launcher, numbers[0], numbers[1], numbers[2], numbers[3], is_elastic=is_elastic)
    if "SLURM_STEP_ID" in environ and "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        return _read_srun(environ)
    return Launch()


def _read_srun(environ: Mapping[str, str]) -> Launch:
    found = {name: environ[name] for name in _SLURM if name in environ}
    # one number a node, and `2(x3),1` is short for 2,2,2,1
    written = re.findall(r"(\d+)(?:\(x(\d+)\))?", found.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    tasks = [int(number) for number, times in written for _ in range(int(times or 1))]
    try:
        return Launch(
            "srun",
            int(found["SLURM_PROCID"]),
            int(found["SLURM_STEP_NUM_TASKS"]),
            int(found.get("SLURM_LOCALID", 0)),
            tasks[int(found.get("SLURM_NODEID", 0))],
            int(found["SLURM_CPUS_PER_TASK"]) if "SLURM_CPUS_PER_TASK" in found else None,
        )
    except (ValueError, IndexError):
        shown = " ".join(f"{name}={value!r}" for name, value in found.items())
        raise ConfigError(
            f"srun: {shown} do not say which rank this is; srun sets these variables itself, so unset "
            "those that a script has exported"
        ) from None


def count_threads(setting: int | str, launch: Launch, emulate_np: int | None = None) -> int:
    """How many threads a rank computes with.

    `"auto"` is `OMP_NUM_THREADS` if it is set, else this rank's share of the host's cores: cores // local ranks. A rank
    that is bound to fewer cores than the host has was given its share by the launcher; `srun --cpus-per-task` says how
    many even if Slurm binds no ranks. Emulated ranks get as many as real ones would, because the number of threads
    changes the bits of a result.

    Raises:
        ConfigError: if `OMP_NUM_THREADS` is not a number of threads.
    """
    if setting != "auto":
        return int(setting)
    setting_of_openmp = os.environ.get("OMP_NUM_THREADS", "").strip()
    if setting_of_openmp:
        return _read_threads(setting_of_openmp)
    cores, own = os.cpu_count() or 1, len(os.sched_getaffinity(0))
    if launch.cores is not None:
        return min(launch.cores, own)
    bound = launch.size > 1 and own < cores
    return own if bound else max(1, own // (emulate_np or launch.local_size))


def _read_threads(text: str) -> int:
    """The number in `OMP_NUM_THREADS`; of a list, one for each level of nested parallel regions, the first."""
    first = text.split(",")[0].strip()
    number = whole_number(first, low=1, high=MOST_THREADS)
    if number is not None:
        return number
    raise ConfigError(
        f"OMP_NUM_THREADS: {cut(text)!r} in the environment is not a number of threads from 1 to {MOST_THREADS}; unset "
        "it, or set threads_per_rank"
    )


def configure_threads(setting: int | str, launch: Launch, emulate_np: int | None = None) -> int:
    """Set how many threads this rank computes with in OpenMP's variable, before MXNet is imported.

    Raises:
        ConfigError: if MXNet is already imported and started with another number.
    """
    threads = count_threads(setting, launch, emulate_np)
    if "mxnet" in sys.modules and os.environ.get("OMP_NUM_THREADS") != str(threads):
        raise ConfigError(
            f"threads_per_rank: {threads} comes too late, mxnet is already imported with "
            f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; set it before importing mxnet"
        )
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return threads
