"""The ranks that train together, and their collectives."""

from __future__ import annotations

from harness.comm.launcher import Launch, read_launch, settle_threads
from harness.comm.world import SingleWorld, World
from harness.errors import ConfigError

__all__ = ["Launch", "SingleWorld", "World", "connect", "read_launch", "settle_threads"]


def connect(kind: str = "auto", launch: Launch | None = None) -> World:
    """Join the job that this process belongs to.

    Args:
        kind: `"auto"` follows the launcher; `"single"` and `"horovod"` insist.
        launch: how the process was started; read from the environment when not given.

    Raises:
        ConfigError: if the launcher started several processes that could not talk to each other. Each would train
            alone, and nobody would notice.
    """
    launch = launch or read_launch()
    if kind == "single" or (kind == "auto" and launch.size == 1 and launch.launcher != "horovodrun"):
        if launch.size > 1:
            raise ConfigError(
                f"comm: single, but {launch.launcher} started {launch.size} processes, each of which would "
                "train alone; "
                "set comm: auto, or start one process with plain python"
            )
        return SingleWorld()
    if kind not in ("auto", "horovod"):
        raise ConfigError(f"comm: {kind!r} is unknown; allowed: auto, single, horovod")
    from harness.comm.horovod import HorovodWorld

    world = HorovodWorld()
    if world.size != launch.size:
        raise ConfigError(
            f"{launch.launcher} started {launch.size} processes, but Horovod sees {world.size}: this Horovod was built "
            "without MPI; start the job with `horovodrun -np N python launch/train.py`"
        )
    return world
