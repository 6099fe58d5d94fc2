"""Gathers the facts: queries packages, processes, launchers and the disk. Judges nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from harness.comm import Launch, count_threads
from harness.doctor.facts import MXNET_PACKAGES, Disk, Gpu, Gpus, Horovod, Mxnet, Numpy, Sum, Threads
from harness.parsing import version_numbers
from harness.processes import descendants, kill
from harness.versions import package_version

_LIMIT_S = 60.0
_CHUNK = bytes(4_000_000)
CHUNKS, _WRITING_S = 8, 2.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OF_A_RANK = re.compile(r"^\[\d+\]<std(?:out|err)>: ?")  # horovodrun's prefix for a rank's lines
_ERROR = re.compile(
    r"[\w.]*(Error|Exception|Exit): "
)  # the beginning of Python's message, which may have several lines
_QUERY_GPUS = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]


class Ended(NamedTuple):
    """How a process ended: its exit code, `None` if it was killed at the time limit, and what it printed."""

    code: int | None
    out: str = ""
    err: str = ""

    @property
    def cause(self) -> str:
        """The last error of a rank, or of the process, or else the last output."""
        if self.code is None:
            return "did not end within the time limit, and was killed"
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        of_ranks = [text for line in lines if (text := _OF_A_RANK.sub("", line)) and text != line]
        errors = [line for line in of_ranks or lines if _ERROR.match(line)]
        return [f"it ended with {self.code} and printed nothing", *lines, *of_ranks, *errors][-1]


def run(command: list[str], limit_s: float = _LIMIT_S) -> Ended:
    """Run a command; at the time limit, kill it and every process below it."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return Ended(None)
        finally:
            if process.poll() is None:
                kill([*descendants(process.pid), process.pid])
        return Ended(process.returncode, out, err)


class _Answers(NamedTuple):
    """Results of functions, as far as they returned, and the error if one failed."""

    num_gpus: int | None = None
    added: Sequence[str] = ()
    built_with: Sequence[str] = ()
    failure: str = ""


def gather_stack() -> tuple[Numpy, Mxnet, Horovod]:
    """Import MXNet and then Horovod in a separate process, and query what they were built with."""
    numpy = Numpy(package_version("numpy"), at_start=_is_compat_there())
    package = next((name for name in MXNET_PACKAGES if package_version(name)), None)
    horovod, spec = package_version("horovod"), find_spec("horovod")
    folders = spec.submodule_search_locations or () if spec else ()
    has_extension = any(list(Path(folder).glob("mxnet/mpi_lib*.so")) for folder in folders)
    if package is None:
        return numpy, Mxnet(None), Horovod(horovod, has_extension)
    answers = _ask(["horovod.num_gpus", "harness_compat.added", *(["horovod.built_with"] if has_extension else [])])
    numpy = replace(numpy, added=tuple(answers.added))
    mxnet = Mxnet(package, package_version(package) or "", answers.num_gpus or 0)
    if answers.num_gpus is None:
        return numpy, replace(mxnet, failure=answers.failure), Horovod(horovod, has_extension)
    return numpy, mxnet, Horovod(horovod, has_extension, tuple(answers.built_with), answers.failure)


def _is_compat_there() -> bool:
    """Whether a program that imports nothing of the harness has `harness_compat` none the less."""
    return run([sys.executable, "-c", "import sys; print('harness_compat' in sys.modules)"]).out == "True\n"


def _ask(functions: list[str]) -> _Answers:
    """Call functions of `comm/horovod.py` and `harness_compat` in another process."""
    lines = ["import json, harness_compat", "from harness.comm import horovod"]
    lines += [f"print(json.dumps([{name.split('.')[1]!r}, {name}()]), flush=True)" for name in functions]
    ended = run([sys.executable, "-c", "\n".join(lines)])
    answers = dict(json.loads(line) for line in ended.out.splitlines() if line.startswith('["'))
    return _Answers(**answers, failure="" if ended.code == 0 else ended.cause)


def gather_host() -> tuple[str, str]:
    """The name of this host, and why it has no address; empty if it has one."""
    name = socket.gethostname()
    ended = run([sys.executable, "-c", f"import socket; socket.getaddrinfo({name!r}, None)"], limit_s=10)
    return name, "" if ended.code == 0 else ended.cause.partition("] ")[2] or ended.cause


def gather_mpi() -> tuple[str | None, str]:
    """The path of mpirun, and the name of its MPI."""
    path = shutil.which("mpirun")
    if path is None:
        return None, ""
    said = run([path, "--version"], limit_s=10).out
    hydra = re.search(r"Version:\s*(\d\S*)", said)  # MPICH's launcher, which does not mention MPICH
    shown = path.removeprefix(f"{Path.cwd()}{os.sep}")
    return shown, f"MPICH {hydra[1]}" if hydra else next(iter(said.splitlines()), "")


def gather_gpus() -> Gpus:
    """Query nvidia-smi, if there is one."""
    if shutil.which(_QUERY_GPUS[0]) is None:
        return Gpus()
    ended = run(_QUERY_GPUS, limit_s=20)
    if ended.code != 0:
        return Gpus(failure=ended.cause)
    found = []
    for line in ended.out.splitlines():
        name, _, capability = line.rpartition(", ")
        found.append(Gpu(name, version_numbers(capability.strip())))
    return Gpus(tuple(found))


def gather_threads(setting: int | str, ranks: int) -> Threads:
    """The threads of `ranks` ranks on this host.

    Args:
        setting: `threads_per_rank` of the configuration.
        ranks: to start here.
    """
    threads = count_threads(setting, Launch("mpirun", size=ranks, local_size=ranks))
    if setting != "auto":
        origin = f"threads_per_rank: {setting}"
    elif os.environ.get("OMP_NUM_THREADS", "").strip():
        origin = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"
    else:
        origin = "threads_per_rank: auto"
    return Threads(ranks, threads, count_cores(), origin)


def count_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def gather_sum(launcher: str) -> Sum:
    """Start two ranks and let them sum arrays."""
    program = ["-np", "2", sys.executable, "-m", "harness.doctor.two_ranks"]
    path = shutil.which(launcher)
    if path is None:
        return Sum(launcher, is_there=False)
    ended = run([path, *program])
    if ended.code != 0:
        return Sum(launcher, failure=ended.cause)
    said = json.loads(re.findall(r"\{.*\}", ended.out)[-1])
    return Sum(launcher, kind=said["kind"], small_s=said["small_s"], bytes_per_s=said["bytes_per_s"])


def gather_disk(folder: Path, chunks: int = CHUNKS) -> Disk:
    """Write where a run would write, for at most two seconds, and leave nothing behind.

    Args:
        folder: of the run.
        chunks: at most this many, of 4 MB each.
    """
    place = folder.absolute()
    while not os.path.exists(place):
        place = place.parent
    written, began = 0, time.perf_counter()
    failure: OSError | None = None
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            while written < chunks * len(_CHUNK) and time.perf_counter() - began < _WRITING_S:
                written += file.write(_CHUNK) or 0
            os.fsync(file.fileno())
    except OSError as error:
        failure = error
    return Disk(
        str(folder),
        str(place),
        free_bytes=shutil.disk_usage(place).free,
        bytes_per_s=written / (time.perf_counter() - began),
        failure="" if failure is None else failure.strerror or str(failure),
        is_full=failure is not None and failure.errno in _NO_ROOM,
    )
