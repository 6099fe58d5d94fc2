"""From facts to findings: what is fine, what is not, and how to fix it. Pure."""

from __future__ import annotations

from harness.doctor.facts import MACHINE_CODE, Disk, Gpu, Gpus, Horovod, Mxnet, Numpy, Sum, Threads, has_code
from harness.doctor.findings import Finding
from harness.parsing import version_numbers
from harness.shipped import install_command, is_checkout, python_command

_ACTIVATE = "activate the environment (. .venv/bin/activate), or install it"
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))  # for which the pinned packages have wheels
_OLDEST, _NEWEST = ("{}.{}".format(*version) for version in (PYTHONS[0], PYTHONS[-1]))
_SLOW_SUM_S = 0.010
_LITTLE_BYTES = 1_000_000_000
_SLOW_DISK = 10e6  # bytes per second


def judge_python(version: str) -> Finding:
    """Whether it is a version that the packages are tested with."""
    if version_numbers(version) in PYTHONS:
        return Finding("python", "ok", version)
    allowed = f"{_OLDEST} to {_NEWEST}"
    return Finding("python", "fix", f"{version}; the pinned packages need {allowed}", python_command(_OLDEST))


def judge_numpy(numpy: Numpy) -> Finding:
    """Whether MXNet finds all that it needs in it (apache/mxnet#21165)."""
    if numpy.version is None:
        return Finding("numpy", "fix", "not installed", _reinstall("numpy"))
    if not numpy.added:
        return Finding("numpy", "ok", numpy.version)
    found = f"{numpy.version}; harness_compat gives it {_count(len(numpy.added), 'name')} that MXNet needs"
    if not numpy.at_start:
        found += ", but only in programs that import harness first: its .pth file is not installed"
        return Finding("numpy", "warning", found, _reinstall("mxnet-horovod-harness"))
    return Finding("numpy", "ok", found)


def judge_mxnet(mxnet: Mxnet, numpy: Numpy) -> Finding:
    """Whether it can be imported, with the installed version of NumPy."""
    if mxnet.package is None:
        return Finding("mxnet", "fix", "not installed", _reinstall("mxnet"))
    if not mxnet.failure:
        named = "" if mxnet.package == "mxnet" else f" ({mxnet.package})"
        return Finding("mxnet", "ok", mxnet.version + named)
    if numpy.version is None:
        to_do = "fix numpy first"
    elif "shared object" in mxnet.failure:
        to_do = "install the library it names, or put its folder on LD_LIBRARY_PATH"
    else:
        to_do = _reinstall("mxnet")
    return Finding("mxnet", "fix", f"{mxnet.version} cannot be imported: {mxnet.failure}", to_do)


def judge_horovod(horovod: Horovod, mxnet: Mxnet) -> Finding:
    """Whether it was built for MXNet, and with what. On CPUs nothing but horovodrun needs it."""
    if horovod.version is None:
        if mxnet.package in MACHINE_CODE:
            return Finding("horovod", "fix", "not installed, but ranks on GPUs need it", install_command("horovod"))
        found = "not installed; mpirun alone can start ranks, on CPUs"
        return Finding("horovod", "warning", found, install_command("horovod"))
    if not horovod.has_extension:
        return Finding(
            "horovod",
            "fix",
            f"{horovod.version} was built without MXNet",
            f"{_reinstall('horovod')} (it builds for MXNet)",
        )
    if horovod.failure:
        found = f"{horovod.version} cannot be imported: {horovod.failure}"
        return Finding("horovod", "fix", found, _reinstall("horovod"))
    if not mxnet.works:
        return Finding(
            "horovod", "ok", f"{horovod.version} for MXNet; can be checked further once MXNet can be imported"
        )
    found = f"{horovod.version} for MXNet, with {', '.join(horovod.built_with)}"
    missing = [name for name in ("Gloo", "MPI", "NCCL") if name not in horovod.built_with]
    if missing:
        found += f"; without {', '.join(missing)}"
    if mxnet.package in MACHINE_CODE and "NCCL" in missing:
        nccl = install_command(mxnet.package if is_checkout() else "horovod-nccl")
        to_do = f"{nccl}; otherwise gradients travel from GPU to GPU through the host"
        return Finding("horovod", "warning", found, to_do)
    return Finding("horovod", "ok", found)


def judge_host(name: str, failure: str) -> Finding:
    """Whether the name of this host has an address, which Horovod's Gloo wants; MPI does without."""
    if not failure:
        return Finding("host", "ok", name)
    to_do = f"give it an address: echo '127.0.1.1 {name}' | sudo tee -a /etc/hosts"
    found = f"the name {name} does not resolve ({failure}); ranks that Horovod connects (comm: horovod) need it"
    return Finding("host", "warning", found, to_do)


def judge_mpi4py(version: str | None) -> Finding:
    """Whether it is installed."""
    if version is None:
        return Finding("mpi4py", "fix", "not installed, but mpirun needs it", _reinstall("mpi4py"))
    return Finding("mpi4py", "ok", version)


def judge_mpi(path: str | None, version: str) -> Finding:
    """Whether there is an MPI launcher, and whose."""
    if path is None:
        return Finding("mpi", "warning", "no mpirun on PATH; only horovodrun can start ranks", _ACTIVATE)
    return Finding("mpi", "ok", f"{version or 'an unknown MPI'}: {path}")


def judge_gpus(gpus: Gpus, mxnet: Mxnet, wanted: str) -> Finding:
    """Whether MXNet can compute on the available GPUs.

    Args:
        gpus: the answer of nvidia-smi.
        mxnet: the installed MXNet.
        wanted: `device` of the configuration: `auto`, `cpu` or `gpu`.
    """
    package = mxnet.package or "mxnet"
    if gpus.failure:
        return Finding("gpu", "warning", f"nvidia-smi fails: {gpus.failure}", "repair the driver, or set device: cpu")
    if not gpus.found:
        if wanted == "gpu":
            return Finding("gpu", "fix", "none, but the configuration asks for device: gpu", "set device: auto")
        if package in MACHINE_CODE:
            return Finding("gpu", "warning", f"none for {package}", "install NVIDIA's driver, or the package mxnet")
        return Finding("gpu", "ok", "none; MXNet computes on the CPU")
    if wanted == "cpu":
        return Finding("gpu", "ok", f"{_names(gpus.found)}; not used, because of device: cpu")
    without = tuple(gpu for gpu in gpus.found if gpu.capability is not None and not has_code(package, gpu.capability))
    if without:
        return _judge_without_code(without, package, wanted)
    if package not in MACHINE_CODE and mxnet.num_gpus == 0:
        found = f"{_names(gpus.found)}; {package} computes on the CPU"
        return Finding("gpu", "warning", found, install_command("mxnet-cu117"))
    if mxnet.works and mxnet.num_gpus < len(gpus.found):
        found = f"{_names(gpus.found)}, of which MXNet sees {mxnet.num_gpus}"
        return Finding("gpu", "warning", found, "check CUDA_VISIBLE_DEVICES, and whether the driver is new enough")
    return Finding("gpu", "ok", _names(gpus.found))


def _judge_without_code(gpus: tuple[Gpu, ...], package: str, wanted: str) -> Finding:
    """The finding for GPUs that this MXNet cannot use."""
    fitting = [name for name in MACHINE_CODE if all(gpu.capability and has_code(name, gpu.capability) for gpu in gpus)]
    if fitting:
        to_do = install_command(fitting[-1])
    else:
        to_do = "no build of MXNet 1.9.1 has code for it: use GPUs of 5.0 to 8.9 (CUDA_VISIBLE_DEVICES), or device: cpu"
    if package not in MACHINE_CODE:
        found = f"{_names(gpus)}: {package} has no code for GPUs and computes on the CPU"
        return Finding("gpu", "fix" if wanted == "gpu" else "warning", found, to_do)
    return Finding("gpu", "fix", f"{_names(gpus)}: {package} has no machine code for it", to_do)


def _names(gpus: tuple[Gpu, ...]) -> str:
    counted: dict[Gpu, int] = {}
    for gpu in gpus:
        counted[gpu] = counted.get(gpu, 0) + 1
    words = []
    for gpu, count in counted.items():
        capability = "unknown" if gpu.capability is None else "{}.{}".format(*gpu.capability)
        words.append(f"{f'{count} x ' if count > 1 else ''}{gpu.name} (compute capability {capability})")
    return ", ".join(words)


def judge_threads(threads: Threads) -> Finding:
    """Whether each thread has a core."""
    ranks, each = threads.ranks, threads.threads
    found = f"{_count(ranks, 'rank')} x {_count(each, 'thread')} on {_count(threads.cores, 'core')} ({threads.setting})"
    if ranks * each <= threads.cores:
        return Finding("threads", "ok", found)
    if each == 1:
        to_do = f"start at most {_count(threads.cores, 'rank')} here; use more only for tests"
        return Finding("threads", "warning", f"{found}: ranks will wait for each other", to_do)
    share = max(1, threads.cores // ranks)
    fewer = max(1, threads.cores // each)
    to_do = f"set threads_per_rank: {share}, or start at most {_count(fewer, 'rank')} here"
    return Finding("threads", "fix", f"{found}: several times slower than {share} each", to_do)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def judge_sum(found: Sum) -> Finding:
    """Whether two ranks can start and sum arrays, and how fast."""
    if not found.is_there:
        return Finding(found.launcher, "warning", "not on PATH", _ACTIVATE)
    if found.failure:
        to_do = f"to see everything: {found.launcher} -np 2 python -m harness.doctor.two_ranks"
        return Finding(found.launcher, "fix", f"two ranks: {found.failure}", to_do)
    took = f"{found.kind}: 1 KB in {1e3 * found.small_s:.3f} ms, 16 MB at {found.bytes_per_s / 1e9:.1f} GB/s"
    if found.small_s > _SLOW_SUM_S:
        return Finding(found.launcher, "warning", took, "slow: check what else uses the CPU (top), and try again")
    return Finding(found.launcher, "ok", took)


def judge_untried(launcher: str, first: str) -> Finding:
    """The finding for a launcher that cannot be tested until something else is fixed."""
    return Finding(launcher, "warning", f"not tested, because of {first}", f"fix {first} first")


def judge_disk(disk: Disk) -> Finding:
    """Whether a run can write to its folder."""
    free = f"{disk.free_bytes / 1e9:.1f} GB free"
    if disk.is_full:
        to_do = "free some space (disk, quota, ulimit -f), or set output to a folder on another disk"
        return Finding("disk", "fix", f"{disk.folder}: {disk.failure}, {free}", to_do)
    if disk.failure:
        to_do = f"make {disk.place} writable, or set output to a folder that is"
        return Finding("disk", "fix", f"{disk.folder} cannot be written: {disk.failure} ({disk.place})", to_do)
    found = f"{disk.folder}: {free}, written at {disk.bytes_per_s / 1e6:.0f} MB/s"
    if disk.free_bytes < _LITTLE_BYTES:
        return Finding("disk", "warning", found, "make sure that checkpoint.keep checkpoints fit, and one more")
    if disk.bytes_per_s < _SLOW_DISK:
        return Finding("disk", "warning", found, "save less often (checkpoint.every), or set output to a faster disk")
    return Finding("disk", "ok", found)


def _reinstall(package: str) -> str:
    return "reinstall: " + ("rm -f .venv/installed && make setup" if is_checkout() else install_command(package))
