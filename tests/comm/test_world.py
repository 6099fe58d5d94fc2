"""Collectives on real ranks, and in a world of one."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

from harness.comm import SingleWorld, connect, read_launch
from harness.comm.bootstrap import slots
from harness.comm.horovod import HorovodWorld
from harness.errors import ConfigError, DataError

MPICH = f"mpi, MPICH {version('mpich')}"
KINDS = {
    ("horovodrun", "auto"): f"{MPICH}, started by horovodrun",
    ("horovodrun", "horovod"): "horovod over Gloo",
    ("mpirun", "mpi"): MPICH,
    ("mpirun", "horovod"): "horovod over Gloo",
}


@pytest.mark.parametrize(
    ("np_", "launcher", "comm"),
    [
        *((3, "horovodrun", "auto"), (2, "horovodrun", "horovod"), (1, "mpirun", "mpi"), (4, "mpirun", "mpi")),
        pytest.param(3, "mpirun", "horovod", marks=pytest.mark.horovod),
        *(
            pytest.param(*one, marks=[pytest.mark.thorough, pytest.mark.horovod])
            for one in (
                *((2, "horovodrun", "auto"), (1, "horovodrun", "horovod"), (2, "mpirun", "mpi"), (3, "mpirun", "mpi")),
                (1, "mpirun", "horovod"),
            )
        ),
    ],
)
def test_every_collective_on_real_ranks(start, tmp_path, np_, launcher, comm):
    start("tests/programs/collectives.py", tmp_path, comm, np=np_, launcher=launcher)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(np_)]
    for rank, report in enumerate(found):
        assert (report["rank"], report["size"], report["local"]) == (rank, np_, [rank, np_])
        assert report["kind"] == KINDS[launcher, comm]
        alone = "the file is not here" if np_ == 1 else f"rank {np_ - 1}: the file is not here"
        assert report["errors"] == [
            ["DataError", alone],
            ["ConfigError", "the file is not here"],
            [True, "the file is not here"],
        ]


def test_a_world_of_one():
    world = connect("auto", read_launch({}))
    assert isinstance(world, SingleWorld)
    array = np.ones(3)
    assert world.allreduce(array, "a") is not array
    np.testing.assert_array_equal(world.broadcast(array, "b"), array)
    assert world.allgather_object({"a": 1}, "c") == [{"a": 1}]
    assert world.broadcast_object("x", "d") == "x"

    def work():
        raise DataError("gone")

    with pytest.raises(DataError, match=r"^gone$"):
        world.agreed("e", work, "what to do where only some have failed")
    world.barrier("f")
    world.close()


def test_processes_that_would_each_train_alone_are_refused():
    launch = read_launch({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"})
    with pytest.raises(ConfigError, match="horovodrun started 2 processes, each of which would train alone"):
        connect("single", launch)


@pytest.mark.parametrize("kind", ["auto", "mpi", "horovod"])
def test_ranks_of_torchrun_are_sent_to_pytorch(kind):
    environ = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2"}
    with pytest.raises(ConfigError, match=r"torchrun started 2 processes.*mpirun -np 2 .*leaving"):
        connect(kind, read_launch(environ), device="cpu")
    assert connect(kind="auto", launch=read_launch(environ | {"RANK": "0", "WORLD_SIZE": "1"})).kind == "single"


@pytest.mark.horovod
def test_a_host_name_without_an_address_is_told_before_gloo_aborts(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "nowhere.invalid")
    monkeypatch.setenv("HOROVOD_CONTROLLER", "gloo")  # as horovodrun does
    with pytest.raises(ConfigError, match=r"the host name nowhere.invalid does not resolve .*: add '127.0.1.1 nowhere"):
        HorovodWorld(read_launch({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"}))


@pytest.mark.parametrize("environ", [{}, {"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"}])
def test_without_horovod_it_is_told_what_adds_it_and_what_needs_none(monkeypatch, environ):
    monkeypatch.setitem(sys.modules, "horovod.mxnet", None)
    with pytest.raises(
        ConfigError, match=r"WITH_HOROVOD=1 make setup`, or leave `comm: auto` and start ranks .* mpirun"
    ):
        connect("horovod", read_launch(environ))


def test_an_unknown_world_lists_the_known_ones():
    with pytest.raises(ConfigError, match="comm: 'nccl' is unknown; allowed: auto, single, horovod, mpi"):
        connect("nccl", read_launch({}))


def test_mpi_is_refused_where_it_could_not_work():
    with pytest.raises(ConfigError, match="sums arrays on the CPU, but device: gpu computes on GPUs"):
        connect("mpi", read_launch({}), device="gpu")


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
            "it is not the library of this launcher. Use the mpirun that belongs to it",
        ),
        (
            {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"},
            "srun tells it nothing of the others. Use `srun --mpi=pmi2` for MPICH",
        ),
    ],
)
def test_a_library_that_sees_no_other_rank_is_named(start, environ, reason):
    """The launcher's variables, and an MPICH that it does not tell: each process would be a world of its own."""
    environ["MPI4PY_LIBMPI"] = str(Path(sys.prefix) / "lib" / "libmpi.so.12")
    found = start("-c", "from harness.comm import connect; connect('mpi')", exit_code=1, **environ)
    assert "started 2 processes, but MPICH" in found.stderr
    assert f"sees 1: {reason}" in found.stderr


def test_killed_ranks_leave_no_shared_memory(start):
    """MPICH's would be in the way of the next job of that name."""
    code = (
        "import os, re; from harness.comm import connect; connect('mpi').barrier('met');"
        "names = set(re.findall(r'/dev/shm/mpich\\w+', open('/proc/self/maps').read()));"
        "print(len(names), 'left' if any(map(os.path.exists, names)) else 'gone', flush=True); os.kill(os.getpid(), 9)"
    )
    assert "1 gone" in start("-c", code, np=2, launcher="mpirun", exit_code=None).stdout


def test_a_missing_mpi_library_says_what_to_do(start):
    environ = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "MPI4PY_LIBMPI": "/nowhere/libmpi.so"}
    found = start("-c", "from harness.comm import connect; connect('mpi')", exit_code=1, **environ)
    assert "mpi4py finds no MPI library for it" in found.stderr
    assert "`make setup` installs MPICH, or set MPI4PY_LIBMPI" in found.stderr


def test_the_numbers_that_horovod_gives_ranks_dealt_to_two_hosts_in_turn():
    places = [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]
    assert slots(places) == [
        ("a", 0, 0, 0, 5, 3, 2),
        ("b", 1, 0, 1, 5, 2, 2),
        ("a", 2, 1, 0, 5, 3, 2),
        ("b", 3, 1, 1, 5, 2, 2),
        ("a", 4, 2, 0, 5, 3, 1),
    ]


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("Horovod has been shut down. This was caused by an exception on one of the ranks", True),
        ("[/b/gloo/transport/tcp/pair.cc:589] Read error [10.0.0.1]:1024: Connection reset by peer", True),
        ("[/b/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 30000ms for recv operation to complete", True),
        ("Mismatched allreduce tensor shapes", False),
    ],
)
def test_what_horovod_says_of_a_lost_rank(text, lost):
    world = SimpleNamespace(_mx=mx, last_collective="update")
    assert (HorovodWorld.explain(world, mx.base.MXNetError(text)) is not None) is lost
