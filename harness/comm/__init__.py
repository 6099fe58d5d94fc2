"""The ranks that train together, and their collectives. The only folder that imports horovod and mpi4py.

`launcher.py` says how this process was started, without importing anything slow; `world.py` is what every world can do;
`mpi.py` and `horovod.py` are the two engines. `fold.py` (by pairs of ranks) and `collective_fold.py` (by collectives of
all) add the arrays of ranks in the order of `tree.py`. `bootstrap.py` and `rendezvous.py` connect Horovod's ranks under
mpirun, `horovodrun.py` and `pmi*.py` MPI's ranks under horovodrun.
"""

from __future__ import annotations

from harness.comm.launcher import TORCHRUN, Launch, configure_threads, count_threads, read_launch
from harness.comm.tree import assign, take_turns
from harness.comm.world import JobOverError, Membership, SingleWorld, SumBy, World
from harness.errors import ConfigError
from harness.shipped import name_command

__all__ = [
    "JobOverError",
    "Launch",
    "Membership",
    "SingleWorld",
    "SumBy",
    "World",
    "configure_threads",
    "connect",
    "count_threads",
    "read_launch",
    "shards_of_rank",
]

KINDS = ("auto", "single", "horovod", "mpi")


def connect(kind: str = "auto", launch: Launch | None = None, device: str = "auto", sum_by: SumBy = "tree") -> World:
    """Join the job that this process belongs to.

    Args:
        kind: `"auto"` is MPI for arrays on the CPU and Horovod for arrays on GPUs, whatever the launcher. Under
            horovodrun it is Horovod as well where ranks cannot be connected by MPI (the world remarks why), and for
            `sum_by="engine"`. `"single"`, `"horovod"` and `"mpi"` force one.
        launch: how the process was started; read from the environment when not given.
        device: `"cpu"`, `"gpu"`, or `"auto"` for GPUs where MXNet sees any.
        sum_by: what adds up gradients where Horovod carries them: `"tree"` in the one order that gives the same bits on
            any number of ranks, `"engine"` in Horovod's own. Every other world adds by the tree.

    Raises:
        ConfigError: if the launcher started several processes that cannot communicate. Each would train alone, and
            nobody would notice.
    """
    launch = launch or read_launch()
    if kind not in KINDS:
        raise ConfigError(f"comm: {kind!r} is unknown; allowed: {', '.join(KINDS)}")
    if kind == "auto" and launch.size == 1 and not launch.is_elastic:  # to one that is alone others may come
        kind = "horovod" if launch.launcher == "horovodrun" and _on_gpu(device) else "single"
    if kind == "single":
        if launch.size > 1:
            raise ConfigError(
                f"comm: single, but {launch.launcher} started {launch.size} processes, each of which would "
                "train alone; "
                "set comm: auto, or start one process with plain python"
            )
        return SingleWorld()
    if launch.launcher == TORCHRUN:
        raise ConfigError(
            f"{TORCHRUN} started {launch.size} processes, which find each other through torch.distributed alone; start "
            f"the job with `mpirun -np {launch.size} {name_command('train')}`, or train in PyTorch (docs/leaving.md)"
        ).on_all_ranks()
    if kind == "mpi" and _on_gpu(device):
        raise ConfigError(
            f"comm: mpi sums arrays on the CPU, but device: {device} computes on GPUs; set comm: horovod, or "
            "device: cpu"
        )
    wish = "horovod" if kind == "auto" and _on_gpu(device) else kind
    if launch.launcher == "horovodrun":
        from harness.comm.horovodrun import connect_ranks

        wish = "horovod" if kind == "auto" and sum_by == "engine" else wish
        return connect_ranks(launch, wish, lambda: _connect_horovodrun(launch, sum_by))
    if wish == "horovod":
        return _connect_horovod(launch, sum_by)
    from harness.comm.mpi import MpiWorld

    return MpiWorld(launch)


def shards_of_rank(shards: int, world: World, num_devices: int = 1) -> list[int]:
    """The shards that a rank processes, in the order in which it processes them: its devices take turns.

    Args:
        shards: S, at least the number of workers.
        world: the ranks, seen from this one.
        num_devices: the devices of each rank.

    >>> shards_of_rank(8, SingleWorld())
    [0, 4, 2, 6, 1, 5, 3, 7]
    >>> shards_of_rank(8, SingleWorld(), num_devices=3)  # the first has 0, 4, 2; the second 6, 1, 5; the third 3, 7
    [0, 6, 3, 4, 1, 7, 2, 5]
    """
    own = assign(shards, world.size * num_devices).shards[world.rank * num_devices :][:num_devices]
    return [shard for _, shard in take_turns(own)]


def _connect_horovodrun(launch: Launch, sum_by: SumBy) -> World:
    if not launch.is_elastic:
        return _connect_horovod(launch, sum_by)
    from harness.comm.elastic import join_elastic

    return join_elastic(launch, sum_by)


def _connect_horovod(launch: Launch, sum_by: SumBy) -> World:
    from harness.comm.horovod import HorovodWorld

    world = HorovodWorld(launch, sum_by)
    if world.size != launch.size:
        raise ConfigError(
            f"{launch.launcher} started {launch.size} processes, but Horovod sees {world.size}; start the job with "
            f"`horovodrun -np N {name_command('train')}` or `mpirun -np N {name_command('train')}`"
        )
    return world


def _on_gpu(device: str) -> bool:
    if device == "auto":
        from harness.comm.horovod import num_gpus

        return num_gpus() > 0
    return device != "cpu"
