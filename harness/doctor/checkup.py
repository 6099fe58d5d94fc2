"""The check of the machine: gathers and judges, one fact after another."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from harness.config import RunConfig
from harness.doctor.findings import Finding
from harness.doctor.gather import (
    CHUNKS,
    count_cores,
    gather_disk,
    gather_gpus,
    gather_host,
    gather_mpi,
    gather_stack,
    gather_sum,
    gather_threads,
)
from harness.doctor.judge import (
    judge_disk,
    judge_gpus,
    judge_horovod,
    judge_host,
    judge_mpi,
    judge_mpi4py,
    judge_mxnet,
    judge_numpy,
    judge_python,
    judge_sum,
    judge_threads,
    judge_untried,
)
from harness.versions import package_version


def check_up(config: RunConfig, ranks: int | None = None, *, quick: bool = False) -> Iterator[Finding]:
    """Check this machine as a run of a configuration would use it; yields each finding as soon as it is known.

    Args:
        config: gives the run's folder, device and number of threads.
        ranks: to start on this host; `None` means one per core.
        quick: check only what can break during training, and leave cores and disk to the training.
    """
    yield judge_python(platform.python_version())
    numpy, mxnet, horovod = gather_stack()
    yield judge_numpy(numpy)
    yield judge_mxnet(mxnet, numpy)
    yield judge_horovod(horovod, mxnet)
    yield judge_host(*gather_host())
    yield judge_mpi4py(package_version("mpi4py"))
    yield judge_mpi(*gather_mpi())
    wanted = "gpu" if any(name.startswith("gpu") for name in config.devices or ()) else config.device
    yield judge_gpus(gather_gpus(), mxnet, wanted)
    if not quick:
        yield judge_threads(gather_threads(config.threads_per_rank, ranks or count_cores()))
        for launcher, works in (("horovodrun", horovod.works), ("mpirun", True)):
            if works and mxnet.works:
                yield judge_sum(gather_sum(launcher))
            else:
                yield judge_untried(launcher, "horovod" if mxnet.works else "mxnet")
    folder = Path(config.output) / config.run_name
    yield judge_disk(gather_disk(folder, chunks=1 if quick else CHUNKS))
