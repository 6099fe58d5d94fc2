"""Facts of processes and disks."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.doctor.facts import Gpu, Gpus
from harness.doctor.gather import (
    Ended,
    gather_disk,
    gather_gpus,
    gather_host,
    gather_stack,
    gather_threads,
    package_version,
    run,
)
from harness.parsing import version_numbers
from harness_compat.names import NAMES


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_at_the_time_limit_all_of_it_is_killed(tmp_path):
    script = f"setsid sleep 1000 & echo $! > {tmp_path}/pid; echo waiting; wait"
    ended = run(["sh", "-c", script], limit_s=1.0)
    assert ended == Ended(None)
    assert "time limit" in ended.cause
    deadline = time.monotonic() + 10
    while is_alive(pid := int((tmp_path / "pid").read_text())):  # a signal takes a moment to arrive
        assert time.monotonic() < deadline, f"{pid} is still there"


@pytest.mark.parametrize(
    ("ended", "cause"),
    [
        (Ended(1, "", "Traceback\nImportError: no x\n"), "ImportError: no x"),
        (
            Ended(1, "", "AttributeError: no bool.\nIt was removed; see\n    https://numpy.org\n"),
            "AttributeError: no bool.",
        ),
        (
            Ended(1, "", "[1]<stderr>:ValueError: y\n[1]<stderr>:\nTraceback\nRuntimeError: a rank failed\n"),
            "ValueError: y",
        ),
        (Ended(9, "said on stdout\n", ""), "said on stdout"),
        (Ended(-11), "it ended with -11 and printed nothing"),
    ],
)
def test_the_cause_is_what_was_said_last_by_a_rank(ended, cause):
    assert ended.cause == cause


def test_a_process_is_asked():
    assert run([sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]) == Ended(0, "1\n", "")
    assert package_version("numpy") == np.__version__
    assert package_version("no-such-package") is None


def test_numpy_is_told_with_what_mxnet_finds_in_it():
    numpy, mxnet, _ = gather_stack()
    assert (numpy.version, mxnet.failure) == (np.__version__, "")
    expected = {one.name for one in NAMES if one.gone_since <= version_numbers(np.__version__)}
    assert set(numpy.added) == expected - ({"bool"} if version_numbers(np.__version__) >= (2, 0) else set())


def test_the_name_of_this_host_has_an_address_and_another_has_none(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "localhost")
    assert gather_host() == ("localhost", "")
    monkeypatch.setattr("socket.gethostname", lambda: "no-such-host.invalid")
    name, failure = gather_host()
    assert name == "no-such-host.invalid"
    assert failure
    assert "Traceback" not in failure


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        (
            "echo 'NVIDIA A100-SXM4-40GB, 8.0'; echo 'NVIDIA H100 80GB HBM3, 9.0'",
            Gpus((Gpu("NVIDIA A100-SXM4-40GB", (8, 0)), Gpu("NVIDIA H100 80GB HBM3", (9, 0)))),
        ),
        ("echo 'Tesla K80, [N/A]'", Gpus((Gpu("Tesla K80", None),))),
        ("echo 'NVIDIA-SMI has failed'; exit 9", Gpus(failure="NVIDIA-SMI has failed")),
    ],
)
def test_gpus_are_what_nvidia_smi_says(tmp_path, monkeypatch, script, gpus):
    stub = tmp_path / "nvidia-smi"
    stub.write_text(f"#!/bin/sh\n{script}\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gather_gpus() == gpus


def test_threads_are_what_a_run_would_take(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = [gather_threads("auto", 2), gather_threads(5, 2)]
    monkeypatch.delenv("OMP_NUM_THREADS")
    found.append(gather_threads("auto", 1))
    cores = len(os.sched_getaffinity(0))
    assert [(one.ranks, one.threads, one.cores) for one in found] == [(2, 3, cores), (2, 5, cores), (1, cores, cores)]
    assert [one.setting for one in found] == ["OMP_NUM_THREADS=3", "threads_per_rank: 5", "threads_per_rank: auto"]
    assert "OMP_NUM_THREADS" not in os.environ, "looking changes nothing"


def test_a_disk_that_can_be_written(tmp_path):
    disk = gather_disk(tmp_path / "runs" / "digits")
    assert (disk.failure, disk.is_full, disk.place) == ("", False, str(tmp_path))
    assert disk.free_bytes > 0
    assert disk.bytes_per_s > 0
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # writing more fails, as on a full disk
    try:
        disk = gather_disk(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (disk.failure, disk.is_full) == ("File too large", True)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    disk = gather_disk(tmp_path / "runs" / "digits")
    assert (disk.failure, disk.is_full, disk.place) == ("Not a directory", False, str(tmp_path / "runs"))
