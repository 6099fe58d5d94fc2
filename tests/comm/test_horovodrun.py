"""What horovodrun's ranks agree on before they are connected; ranks are threads, and the launcher a small server."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from harness.comm import Launch, SingleWorld
from harness.comm import horovodrun as module
from harness.comm.horovodrun import Choice, Offer, connect_ranks, find_obstacle
from harness.comm.launcher_store import LauncherStore
from harness.errors import ConfigError, LostRankError

pytestmark = pytest.mark.horovod  # ranks meet through Horovod's own store

MPICH = "MPICH 5.0.2"


@pytest.fixture
def server(monkeypatch):
    """A key-value server as horovodrun's is, named in the environment, and what it holds."""
    kept = {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, code, body=b""):
            self.send_response_only(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self):
            kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(200)

        def do_GET(self):
            self.answer(200 if self.path in kept else 404, kept.get(self.path, b""))

        def do_DELETE(self):
            kept.pop(self.path, None)
            self.answer(200)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", "127.0.0.1")
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_PORT", str(httpd.server_address[1]))
    yield kept
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def library(monkeypatch):
    """Stands in for mpi4py's module, which cannot be initialised in threads."""
    found = SimpleNamespace(get_vendor=lambda: ("MPICH", (5, 0, 2)), Is_initialized=lambda: False)
    monkeypatch.setattr(module, "load_mpi", lambda launch: found)
    return found


def meet(*wishes, is_elastic=False):
    """Connect a rank for each wish; the worlds, or the errors."""
    barrier = threading.Barrier(len(wishes), timeout=30)
    results = [None] * len(wishes)

    def horovod():
        barrier.wait()  # as hvd.init does
        return SingleWorld()

    def one(rank):
        try:
            launch = Launch("horovodrun", rank, len(wishes), rank, len(wishes), is_elastic=is_elastic)
            results[rank] = connect_ranks(launch, wishes[rank], horovod)
        except (ConfigError, LostRankError) as error:
            results[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(wishes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=40)
    return results


def test_all_use_horovod_where_they_were_told_to(server):
    assert [world.remarks for world in meet("horovod", "horovod", "horovod")] == [[]] * 3
    assert not server, "nothing is left for a later world of the same job"


def test_ranks_that_were_told_differently_meet_all_the_same(server, library):
    """Their configurations differ, or one could not read its own; only ranks that are connected can find that out."""
    remark = "gradients are summed by Horovod and not by MPI: rank 1 uses Horovod"
    assert [world.remarks for world in meet("auto", "horovod", "mpi")] == [[remark]] * 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"get_vendor": lambda: ("Open MPI", (4, 1, 4))}, "Open MPI 4.1.4 cannot be told of horovodrun's ranks, as"),
        ({"Is_initialized": lambda: True}, "MPI was already initialised in this process"),
    ],
)
def test_without_a_fitting_library_it_is_horovod_and_the_world_says_why(server, library, change, reason):
    vars(library).update(change)
    worlds = meet("auto", "auto")
    assert worlds[0].remarks == worlds[1].remarks
    assert worlds[0].remarks[0].startswith(f"gradients are summed by Horovod and not by MPI: {reason}")
    errors = meet("mpi", "mpi")
    assert [error.everywhere for error in errors] == [True, True]
    assert f"comm: mpi, but horovodrun's ranks cannot be connected by MPI: {reason}" in str(errors[0])
    assert str(errors[0]).endswith("set comm: auto")


def test_without_any_library(server, monkeypatch):
    def load(launch):
        raise ConfigError("long") from RuntimeError("cannot load\n libmpi.so")

    monkeypatch.setattr(module, "load_mpi", load)
    assert "mpi4py finds no MPI library (cannot load libmpi.so)" in meet("auto", "auto")[1].remarks[0]


def test_mpi_is_begun_with_a_number_for_each_rank_and_the_environment_is_as_before(server, library, monkeypatch):
    monkeypatch.setenv("PMI_RANK", "5")  # horovodrun was started by another launcher
    monkeypatch.delenv("UCX_NET_DEVICES", raising=False)
    seen = {}

    class World(SingleWorld):
        def __init__(self, launch, server):
            super().__init__()
            server.close()
            seen.update({name: os.environ.get(name) for name in ("PMI_PORT", "PMI_ID", "PMI_RANK", "UCX_NET_DEVICES")})

    monkeypatch.setattr(module, "HorovodrunWorld", World)
    (world,) = meet("auto")
    assert (world.remarks, seen["PMI_RANK"], seen["UCX_NET_DEVICES"]) == ([], None, "lo")
    assert seen["PMI_PORT"].startswith("127.0.0.1:")
    assert int(seen["PMI_ID"]) > 0
    assert os.environ["PMI_RANK"] == "5"
    assert not {"PMI_PORT", "PMI_ID", "UCX_NET_DEVICES"} & os.environ.keys()


def test_a_library_that_finds_nobody_leaves_horovod(server, library, monkeypatch):
    def refuse(launch, server):
        raise ConfigError("horovodrun started 1 processes, but MPICH sees 2")

    monkeypatch.setattr(module, "HorovodrunWorld", refuse)
    (world,) = meet("auto")
    assert "MPICH sees 2" in world.remarks[0]
    (error,) = meet("mpi")
    assert error.everywhere


def test_elastic_jobs_use_horovod(server):
    remarks = meet("auto", is_elastic=True)[0].remarks
    assert remarks == ["gradients are summed by Horovod and not by MPI: the job is elastic"]
    assert meet("horovod", is_elastic=True)[0].remarks == []
    assert "the job is elastic" in str(meet("mpi", is_elastic=True)[0])


def test_without_horovodruns_server(monkeypatch):
    monkeypatch.delenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", raising=False)
    assert "does not name horovodrun's server" in meet("auto")[0].remarks[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("root", b"["),
        ("root", b'{"127.0.0.1": "22"}'),
        ("root", b'{"127.0.0.1": 70000}'),
        ("rank-1", b'{"wish": "everything"}'),
        ("rank-1", b'{"wish": "auto", "routes": {"127.0.0.1": 1}}'),
        ("rank-1", b'{"wish": "auto", "routes": 3}'),
        ("choice", b'{"ids": [1], "ports": ["127.0.0.1:1"]}'),
        ("choice", b'{"ids": ["x", 1], "ports": ["127.0.0.1:1", "127.0.0.1:1"]}'),
        ("choice", b'{"ids": 5}'),
        ("choice", b"[" * 100_000),
    ],
)
def test_what_a_stranger_writes_to_the_launchers_server_is_no_traceback(server, library, key, value):
    """One rank of two, so that the other's place is the stranger's."""
    server[f"/harness-mpi/{key}"] = value
    rank = 0 if key == "rank-1" else 1
    server.setdefault("/harness-mpi/root", b"{}")
    with pytest.raises(LostRankError, match="holds what no rank has stored there"):
        connect_ranks(Launch("horovodrun", rank, 2, rank, 2), "horovod", SingleWorld)


def test_offers_and_choices_are_read_as_they_were_written():
    offer = Offer("auto", MPICH, "", "host 1", {"10.0.0.1": "10.0.0.2"})
    assert Offer.decode(json.dumps(vars(offer)).encode()) == offer
    choice = Choice(ids=[5, 6], ports=["10.0.0.1:7", "10.0.0.1:7"])
    assert Choice.decode(json.dumps(vars(choice)).encode(), 2) == choice


@pytest.mark.parametrize(
    ("offers", "obstacle"),
    [
        ([Offer("auto", MPICH), Offer("mpi", MPICH)], ""),
        ([Offer("horovod"), Offer("auto", MPICH), Offer("horovod")], "ranks 0, 2 use Horovod"),
        ([Offer("auto", MPICH, "none"), Offer("auto", MPICH, "none")], "none"),
        ([Offer("auto", MPICH), Offer("auto", "", "none"), Offer("auto", "", "else")], "rank 1: none; rank 2: else"),
        ([Offer("auto", MPICH), Offer("auto", "MPICH 4.1")], "the ranks have different MPI libraries: MPICH 4.1, MPI"),
    ],
)
def test_what_keeps_ranks_from_mpi(offers, obstacle):
    assert find_obstacle(offers).startswith(obstacle)
    assert bool(find_obstacle(offers)) == bool(obstacle)


def test_the_store_waits_for_a_value_and_takes_no_more_than_it_was_told(server):
    store = LauncherStore("127.0.0.1", int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]), "scope")
    timer = threading.Timer(0.1, store.put, ("key", b"value"))
    timer.start()
    assert store.wait("key", 3) == b"val"
    timer.join()
    assert server == {"/scope/key": b"value"}
    store.delete("key")
    assert store.get("key", 10) == b""
    assert LauncherStore("127.0.0.1", 1, "scope").get("key", 10) is None
