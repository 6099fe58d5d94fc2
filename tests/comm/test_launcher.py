"""What launchers say in their environment, and how many threads a rank gets."""

from __future__ import annotations

import os
import sys

import pytest

from harness.comm import Launch, configure_threads, read_launch
from harness.comm.launcher import count_threads
from harness.errors import ConfigError


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        ({}, Launch()),
        (
            {"HOROVOD_RANK": "3", "HOROVOD_SIZE": "8", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "2"},
            Launch("horovodrun", 3, 8, 1, 2),
        ),
        (
            {
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
            },
            Launch("mpirun (Open MPI)", 1, 4, 1, 4),
        ),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
            Launch("mpirun (MPICH)", 1, 2, 1, 2),
        ),
        (
            {
                "SLURM_STEP_ID": "0",
                "SLURM_PROCID": "5",
                "SLURM_STEP_NUM_TASKS": "8",
                "SLURM_LOCALID": "1",
                "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
            },
            Launch("srun", 5, 8, 1, 4),
        ),
        *[
            (
                {
                    "SLURM_STEP_ID": "0",
                    "SLURM_PROCID": "6",
                    "SLURM_STEP_NUM_TASKS": "8",
                    "SLURM_LOCALID": "0",
                    "SLURM_NODEID": node,
                    "SLURM_STEP_TASKS_PER_NODE": "2(x2),3,1",
                    "SLURM_CPUS_PER_TASK": "4",
                },
                Launch("srun", 6, 8, 0, here, 4),
            )
            for node, here in (("0", 2), ("1", 2), ("2", 3), ("3", 1))
        ],
        (  # what srun --mpi=pmi2 says to an MPI library besides
            {
                "PMI_RANK": "1",
                "PMI_SIZE": "2",
                "SLURM_STEP_ID": "0",
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_LOCALID": "1",
                "SLURM_NODEID": "0",
                "SLURM_STEP_TASKS_PER_NODE": "2",
            },
            Launch("srun", 1, 2, 1, 2),
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}, Launch()),  # a plain python inside an allocation
        (  # srun starts torchrun once a node
            {
                "TORCHELASTIC_RUN_ID": "none",
                "RANK": "3",
                "WORLD_SIZE": "4",
                "LOCAL_RANK": "1",
                "LOCAL_WORLD_SIZE": "2",
                "SLURM_STEP_ID": "0",
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "2",
            },
            Launch("torchrun", 3, 4, 1, 2),
        ),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, Launch()),  # names that others use as well
    ],
)
def test_each_launcher_is_read(environ, launch):
    assert read_launch(environ) == launch


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_PROCID", "first"),
        ("SLURM_NODEID", "2"),
        ("SLURM_STEP_TASKS_PER_NODE", ""),
        ("SLURM_CPUS_PER_TASK", "two"),
    ],
)
def test_what_srun_would_not_say_is_refused(name, value):
    environ = {
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_NODEID": "1",
        "SLURM_CPUS_PER_TASK": "2",
    }
    assert read_launch(environ).rank == 1
    with pytest.raises(ConfigError, match=f"{name}={value!r}.*do not say which rank"):
        read_launch(environ | {name: value})


@pytest.fixture
def machine(monkeypatch):
    """A machine with as many cores as asked for, where MXNet is not imported yet."""

    def make(cores, own=None):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(own or cores)))
        monkeypatch.setenv("OMP_NUM_THREADS", "")
        monkeypatch.delitem(sys.modules, "mxnet", raising=False)

    return make


@pytest.mark.parametrize(
    ("cores", "own", "launch", "emulate_np", "threads"),
    [
        (8, 8, Launch(), None, 8),
        (8, 8, Launch("horovodrun", 0, 2, 0, 2), None, 4),
        (8, 8, Launch(), 2, 4),
        (2, 2, Launch("horovodrun", 0, 8, 0, 8), None, 1),
        (2, 2, Launch(), 8, 1),
        (8, 2, Launch("mpirun (Open MPI)", 0, 4, 0, 4), None, 2),  # bound by the launcher: its share already
        (8, 4, Launch(), None, 4),
        (8, 8, Launch("srun", 0, 2, 0, 2, cores=1), None, 1),  # Slurm binds nobody, but says what was asked for
        (8, 1, Launch("srun", 0, 2, 0, 2, cores=4), None, 1),  # asked of the allocation, and not of this step
    ],
)
def test_auto_is_the_share_of_the_cores(machine, cores, own, launch, emulate_np, threads):
    machine(cores, own)
    assert configure_threads("auto", launch, emulate_np) == threads
    assert os.environ["OMP_NUM_THREADS"] == str(threads)


def test_what_the_user_exported_is_kept_and_a_number_in_the_configuration_is_stronger(machine, monkeypatch):
    machine(8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert configure_threads("auto", Launch()) == 3
    assert configure_threads(5, Launch()) == 5


def test_too_late_is_said(machine, monkeypatch):
    machine(8)
    monkeypatch.setitem(sys.modules, "mxnet", object())
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert configure_threads(2, Launch()) == 2
    with pytest.raises(ConfigError, match="comes too late, mxnet is already imported with OMP_NUM_THREADS=2"):
        configure_threads(1, Launch())


@pytest.mark.parametrize("told", ["5000", "0", "-1", "abc", "²", "1e3", "99999999999999999999999"])
def test_a_number_of_threads_in_the_environment_that_cannot_be_used_is_refused(monkeypatch, told):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    with pytest.raises(ConfigError, match=r"OMP_NUM_THREADS: '.*' in the environment is not a number of threads"):
        count_threads("auto", Launch())
    assert count_threads(3, Launch()) == 3


@pytest.mark.parametrize(("told", "threads"), [("3", 3), (" 2 ", 2), ("4,2", 4)])
def test_a_number_of_threads_in_the_environment_is_taken(monkeypatch, told, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert count_threads("auto", Launch()) == threads


@pytest.mark.parametrize("rank", ["²", "-1", "1e3", "9" * 5000, ""])
def test_a_rank_that_is_no_number_is_refused(rank):
    with pytest.raises(ConfigError, match="are not a rank and a world size") as caught:
        read_launch({"HOROVOD_RANK": rank, "HOROVOD_SIZE": "2"})
    assert len(str(caught.value)) < 200
