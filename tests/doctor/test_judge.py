"""From facts to findings, for machines that are not at hand."""

from __future__ import annotations

import json

import pytest

from harness.doctor import Finding, as_json, as_text, exit_code, summary
from harness.doctor.facts import Disk, Gpu, Gpus, Horovod, Mxnet, Numpy, Sum, Threads, has_code
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

OLD, NEW = Numpy("1.23.5"), Numpy("2.5.5", added=("NaN", "trapz"))
CPU, CUDA = Mxnet("mxnet", "1.9.1"), Mxnet("mxnet-cu117", "1.9.1", num_gpus=1)
BROKEN = Mxnet("mxnet", "1.9.1", failure="AttributeError: module 'numpy' has no attribute 'bool'")
K80, V100, A100, RTX4090, H100 = (
    Gpu(name, capability)
    for name, capability in [("K80", (3, 7)), ("V100", (7, 0)), ("A100", (8, 0)), ("4090", (8, 9)), ("H100", (9, 0))]
)
AGAIN = "rm -f .venv/installed && make setup"


@pytest.mark.parametrize(
    ("package", "runs"),
    [
        ("mxnet-cu117", "5.0 5.2 6.1 7.0 7.5 8.0 8.6 8.9"),
        ("mxnet-cu112", "5.0 5.2 6.1 7.0 7.5 8.0 8.6 8.9"),
        ("mxnet-cu110", "5.0 5.2 6.1 7.0 7.5 8.0 8.6 8.9"),
        ("mxnet-cu102", "3.0 3.7 5.0 5.2 6.1 7.0 7.5"),
        ("mxnet", ""),
    ],
)
def test_which_build_runs_where(package, runs):
    known = ["2.1", "3.0", "3.7", "5.0", "5.2", "6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]
    found = [text for text in known if has_code(package, tuple(map(int, text.split("."))))]
    assert found == runs.split()


@pytest.mark.parametrize(
    ("finding", "level", "found", "to_do"),
    [
        *((judge_python(f"3.{minor}.9"), "ok", f"3.{minor}.9", "") for minor in (11, 12, 13, 14)),
        (judge_python("3.10.2"), "fix", "3.10.2; the pinned packages need 3.11 to 3.14", "PYTHON=python3.11 make"),
        (judge_python("3.15.0a1"), "fix", "need 3.11 to 3.14", "PYTHON=python3.11"),
        (judge_numpy(OLD), "ok", "1.23.5", ""),
        (judge_numpy(NEW), "ok", "2.5.5; harness_compat gives it 2 names that MXNet needs", ""),
        (
            judge_numpy(Numpy("1.26.4", ("bool",), at_start=False)),
            "warning",
            "1 name that MXNet needs, but only",
            AGAIN,
        ),
        (judge_numpy(Numpy("1.23.5", at_start=False)), "ok", "1.23.5", ""),
        (judge_numpy(Numpy(None)), "fix", "not installed", AGAIN),
        (judge_mxnet(CPU, OLD), "ok", "1.9.1", ""),
        (judge_mxnet(CUDA, NEW), "ok", "1.9.1 (mxnet-cu117)", ""),
        (judge_mxnet(Mxnet(None), OLD), "fix", "not installed", AGAIN),
        (judge_mxnet(BROKEN, NEW), "fix", "cannot be imported: AttributeError", AGAIN),
        (judge_mxnet(BROKEN, Numpy(None)), "fix", "cannot be imported: AttributeError", "fix numpy first"),
        (
            judge_mxnet(Mxnet("mxnet-cu117", "1.9.1", failure="libcudnn.so.8: cannot open shared object file"), OLD),
            "fix",
            "libcudnn.so.8",
            "LD_LIBRARY_PATH",
        ),
        (
            judge_mxnet(Mxnet("mxnet", "1.9.1", failure="Segmentation fault: 11"), OLD),
            "fix",
            "Segmentation",
            AGAIN,
        ),
        (judge_horovod(Horovod("0.28.1", True, ("Gloo",)), CPU), "ok", "with Gloo; without MPI, NCCL", ""),
        (judge_horovod(Horovod("0.28.1", True, ("Gloo", "MPI", "NCCL")), CUDA), "ok", "Gloo, MPI, NCCL", ""),
        (judge_horovod(Horovod("0.28.1", True, ("Gloo",)), CUDA), "warning", "NCCL", "WITH_CUDA=cu117 make setup"),
        (judge_horovod(Horovod(None), CPU), "warning", "mpirun alone can start ranks", "WITH_HOROVOD=1 make setup"),
        (judge_horovod(Horovod(None), CUDA), "fix", "ranks on GPUs need it", "WITH_HOROVOD=1 make setup"),
        (judge_horovod(Horovod("0.28.1", False), CPU), "fix", "without MXNet", "it builds for MXNet"),
        (judge_horovod(Horovod("0.28.1", False), BROKEN), "fix", "without MXNet", "it builds for MXNet"),
        (judge_horovod(Horovod("0.28.1", True), BROKEN), "ok", "once MXNet can be imported", ""),
        (judge_horovod(Horovod("0.28.1", True, failure="undefined symbol"), CPU), "fix", "undefined symbol", AGAIN),
        (judge_host("vm", ""), "ok", "vm", ""),
        (judge_host("vm", "Name or service not known"), "warning", "name vm does not resolve (Name", "127.0.1.1 vm"),
        (judge_mpi4py(None), "fix", "mpirun needs it", AGAIN),
        (judge_mpi4py("4.1.2"), "ok", "4.1.2", ""),
        (judge_mpi(None, ""), "warning", "no mpirun on PATH", ".venv/bin/activate"),
        (judge_mpi("/usr/bin/mpirun", "mpirun (Open MPI) 4.1.4"), "ok", "Open MPI) 4.1.4: /usr/bin/mpirun", ""),
        (judge_threads(Threads(2, 1, 2, "auto")), "ok", "2 ranks x 1 thread on 2 cores (auto)", ""),
        (judge_threads(Threads(1, 3, 4, "auto")), "ok", "1 rank x 3 threads on 4 cores", ""),
        (
            judge_threads(Threads(4, 4, 8, "OMP_NUM_THREADS=4")),
            "fix",
            "4 ranks x 4 threads on 8 cores (OMP_NUM_THREADS=4)",
            "set threads_per_rank: 2, or start at most 2 ranks here",
        ),
        (judge_threads(Threads(3, 1, 2, "auto")), "warning", "3 ranks", "start at most 2 ranks here"),
        (judge_sum(Sum("mpirun", kind="mpi, X", small_s=2e-5, bytes_per_s=2.5e9)), "ok", "0.020 ms, 16 MB at 2.5", ""),
        (judge_sum(Sum("mpirun", kind="mpi, X", small_s=2e-2, bytes_per_s=2.5e9)), "warning", "20.000 ms", "top"),
        (judge_sum(Sum("mpirun", is_there=False)), "warning", "not on PATH", ".venv/bin/activate"),
        (judge_sum(Sum("horovodrun", failure="boom")), "fix", "boom", "horovodrun -np 2 python -m harness.doctor"),
        (judge_untried("mpirun", "mxnet"), "warning", "not tested", "fix mxnet first"),
        (judge_disk(Disk("runs/x", "/r", 5_000_000_000, 2e8)), "ok", "5.0 GB free, written at 200 MB/s", ""),
        (judge_disk(Disk("runs/x", "/r", 900_000_000, 2e8)), "warning", "0.9 GB free", "checkpoint.keep"),
        (judge_disk(Disk("runs/x", "/r", 5_000_000_000, 9e6)), "warning", "9 MB/s", "checkpoint.every"),
        (judge_disk(Disk("runs/x", "/r", failure="Read-only file system")), "fix", "Read-only", "make /r writable"),
        (judge_disk(Disk("runs/x", "/r", failure="No space left", is_full=True)), "fix", "No space", "free some space"),
    ],
)
def test_each_line(finding, level, found, to_do):
    assert finding.level == level
    assert found in finding.found
    assert to_do in finding.to_do
    assert bool(finding.to_do) == (level != "ok"), "a problem comes with what to do, and nothing else does"


@pytest.mark.parametrize(
    ("gpus", "mxnet", "wanted", "level", "found", "to_do"),
    [
        (Gpus(), CPU, "auto", "ok", "none; MXNet computes on the CPU", ""),
        (Gpus(), CUDA, "auto", "warning", "none for mxnet-cu117", "driver"),
        (Gpus(), CPU, "gpu", "fix", "asks for device: gpu", "device: auto"),
        (Gpus(failure="no driver"), CPU, "auto", "warning", "nvidia-smi fails: no driver", "repair the driver"),
        (Gpus((RTX4090,)), CUDA, "auto", "ok", "4090 (compute capability 8.9)", ""),
        (
            Gpus((A100, A100)),
            CUDA,
            "auto",
            "warning",
            "2 x A100 (compute capability 8.0), of which MXNet sees 1",
            "VIS",
        ),
        (Gpus((H100,)), CUDA, "auto", "fix", "H100 (compute capability 9.0): mxnet-cu117 has no machine", "5.0 to 8.9"),
        (Gpus((A100, H100)), CUDA, "gpu", "fix", "H100 (compute capability 9.0): mxnet", "CUDA_VISIBLE_DEVICES"),
        (Gpus((K80,)), CUDA, "auto", "fix", "K80", "WITH_CUDA=cu102 make setup"),
        (Gpus((V100,)), CPU, "auto", "warning", "computes on the CPU", "WITH_CUDA=cu117 make setup"),
        (Gpus((V100,)), CPU, "gpu", "fix", "no code for GPUs", "WITH_CUDA=cu117 make setup"),
        (Gpus((H100,)), CPU, "auto", "warning", "H100", "no build of MXNet 1.9.1 has code for it"),
        (Gpus((H100,)), CUDA, "cpu", "ok", "not used, because of device: cpu", ""),
        (Gpus((Gpu("Old", None),)), CUDA, "auto", "ok", "Old (compute capability unknown)", ""),
        (Gpus((Gpu("Old", None),)), CPU, "auto", "warning", "mxnet computes on the CPU", "WITH_CUDA"),
    ],
)
def test_gpus(gpus, mxnet, wanted, level, found, to_do):
    finding = judge_gpus(gpus, mxnet, wanted)
    assert finding.level == level
    assert found in finding.found
    assert to_do in finding.to_do
    assert bool(finding.to_do) == (level != "ok")


def test_findings_as_they_are_shown():
    well = Finding("numpy", "ok", "1.23.5")
    slow = Finding("disk", "warning", f"runs/digits: {'words ' * 20}", "do this " * 12)
    bad = Finding("horovodrun", "fix", "/a/long/path/without/blanks" * 6, "do that")
    for finding in (well, slow, bad):
        first, *more = as_text(finding).splitlines()
        assert first.startswith(f"{finding.level:<8} {finding.check:<11} ")
        assert all(line.startswith(" " * 21) for line in more)
        assert max(map(len, [first, *more])) <= 80
        assert sum(line.strip().startswith("-> ") for line in more) == bool(finding.to_do)
    assert (exit_code([well, slow]), exit_code([well, bad, slow])) == (0, 1)
    assert [summary(found) for found in ([well], [slow], [bad, slow, bad])] == [
        "everything is ok",
        "nothing to fix, 1 warning",
        "2 to fix, 1 warning",
    ]
    told = json.loads(as_json([well, bad]))
    assert told["exit_code"] == 1
    assert [Finding(**finding) for finding in told["findings"]] == [well, bad]
