"""Facts about a machine: plain values, which `gather` fills and `judge` reads."""

from __future__ import annotations

from dataclasses import dataclass

# compute capabilities with machine code in each wheel of MXNet 1.9.1; none contains PTX, so newer GPUs cannot run it
# (config/distribution/linux_cu*.cmake in apache/mxnet)
_NEWEST = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))
MACHINE_CODE = {
    "mxnet-cu102": ((3, 0), (5, 0), (6, 0), (7, 0), (7, 5)),
    "mxnet-cu110": ((5, 0), (6, 0), (7, 0), (8, 0)),
    **{f"mxnet-cu{version}": _NEWEST for version in (112, 113, 114, 115, 116, 117)},
}
MXNET_PACKAGES = (*MACHINE_CODE, "mxnet")


def has_code(package: str, capability: tuple[int, int]) -> bool:
    """Whether a wheel can run on a GPU: machine code runs on the same major version from its own minor version on.

    >>> has_code("mxnet-cu117", (8, 9)), has_code("mxnet-cu117", (9, 0))
    (True, False)
    """
    return any(major == capability[0] and minor <= capability[1] for major, minor in MACHINE_CODE.get(package, ()))


@dataclass(frozen=True)
class Numpy:
    """The installed NumPy.

    Attributes:
        version: `None` if not installed.
        added: names that `harness_compat` gives it while MXNet is imported; empty also if MXNet cannot be imported.
        at_start: whether an interpreter here has `harness_compat` from its start, and so before MXNet.
    """

    version: str | None
    added: tuple[str, ...] = ()
    at_start: bool = True


@dataclass(frozen=True)
class Mxnet:
    """The installed MXNet.

    Attributes:
        package: the distribution, such as `mxnet` or `mxnet-cu117`; `None` if not installed.
        version: of the distribution.
        num_gpus: number of GPUs that it sees.
        failure: why it cannot be imported; empty if it can.
    """

    package: str | None
    version: str = ""
    num_gpus: int = 0
    failure: str = ""

    @property
    def works(self) -> bool:
        """Whether it is installed and can be imported."""
        return self.package is not None and not self.failure


@dataclass(frozen=True)
class Horovod:
    """The installed Horovod.

    Attributes:
        version: `None` if not installed.
        has_extension: whether its MXNet extension was built.
        built_with: some of Gloo, MPI and NCCL; empty if not queried.
        failure: why it cannot be imported; empty if it can, or if not queried.
    """

    version: str | None
    has_extension: bool = False
    built_with: tuple[str, ...] = ()
    failure: str = ""

    @property
    def works(self) -> bool:
        """Whether it is installed for MXNet and can be imported."""
        return self.version is not None and self.has_extension and not self.failure


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: such as `NVIDIA A100-SXM4-40GB`.
        capability: its compute capability, such as `(8, 0)`; `None` if the driver does not say.
    """

    name: str
    capability: tuple[int, int] | None


@dataclass(frozen=True)
class Gpus:
    """The answer of nvidia-smi.

    Attributes:
        found: the GPUs.
        failure: why nvidia-smi fails; empty if it works.
    """

    found: tuple[Gpu, ...] = ()
    failure: str = ""


@dataclass(frozen=True)
class Threads:
    """The threads that compute at the same time.

    Attributes:
        ranks: on this host.
        threads: per rank.
        cores: available to this process.
        setting: the origin of the number of threads, in words.
    """

    ranks: int
    threads: int
    cores: int
    setting: str


@dataclass(frozen=True)
class Sum:
    """A sum over two ranks.

    Attributes:
        launcher: `horovodrun` or `mpirun`.
        is_there: whether the launcher is on PATH.
        kind: the backend, in words.
        small_s: seconds for the small array.
        bytes_per_s: for the large array.
        failure: why it failed; empty if it worked.
    """

    launcher: str
    is_there: bool = True
    kind: str = ""
    small_s: float = 0.0
    bytes_per_s: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class Disk:
    """The disk that a run writes to.

    Attributes:
        folder: of the run.
        place: the folder that was tested: the run's, or its nearest existing parent.
        free_bytes: on that disk.
        bytes_per_s: write speed, including the flush to disk.
        failure: why it cannot be written; empty if it can.
        is_full: whether lack of space is the only problem.
    """

    folder: str
    place: str
    free_bytes: int = 0
    bytes_per_s: float = 0.0
    failure: str = ""
    is_full: bool = False
