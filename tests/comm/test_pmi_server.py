"""The sockets of the PMI-1 server: ranks are served as long as they live, and strangers get nothing and harm nobody."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.comm import pmi_server
from harness.comm.pmi import MAX_LINE_BYTES, PmiJob, PmiManager, shared_memory_pattern
from harness.comm.pmi_process import PmiProcess
from harness.comm.pmi_server import PmiServer
from harness.comm.routes import listen
from harness.processes import state

IDS = (41, 7)


class Running:
    """A server in a thread."""

    def __init__(self, peers=("127.0.0.1",)):
        listener = listen("127.0.0.1")
        self.port = listener.getsockname()[1]
        read, self.orders = os.pipe()
        self.server = PmiServer(PmiManager(PmiJob("name", IDS, None)), [listener], peers, MAX_LINE_BYTES)

        def serve():
            self.server.serve(read, os.getppid())
            self.server.close()
            os.close(read)

        self.thread = threading.Thread(target=serve)
        self.thread.start()

    def client(self, number=None):
        """A connection, of a rank if it has a number."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        if number is not None:
            ask(connection, f"cmd=initack pmiid={number}", lines=4)
        return connection

    def end_rank_0(self):
        if self.orders is not None:
            os.close(self.orders)
            self.orders = None

    def has_ended(self):
        self.thread.join(timeout=3)
        return not self.thread.is_alive()


@pytest.fixture
def running():
    found = []

    def begin(**more):
        found.append(Running(**more))
        return found[-1]

    yield begin
    for one in found:
        one.end_rank_0()
        one.thread.join(timeout=40)
        assert not one.thread.is_alive()


def ask(connection, line, lines=1):
    connection.sendall(line.encode() + b"\n")
    return hear(connection, lines)


def hear(connection, lines=1):
    received = b""
    while received.count(b"\n") < lines:
        piece = connection.recv(4096)
        assert piece, f"closed after {received}"
        received += piece
    return received.decode().splitlines()


def is_disconnected(connection):
    try:
        return connection.recv(4096) == b""
    except ConnectionError:
        return True


def test_two_ranks_from_the_first_word_to_the_last(running):
    job = running()
    with job.client() as first, job.client() as second:
        assert ask(first, "cmd=initack pmiid=41", 4)[2] == "cmd=set rank=0"
        first.sendall(b"cmd=in")  # a line may come in pieces, and two in one piece
        time.sleep(0.05)
        assert ask(first, "it pmi_version=1 pmi_subversion=1\ncmd=get_appnum", 2)[1] == "cmd=appnum rc=0 appnum=0"
        assert ask(second, "cmd=initack pmiid=7", 4)[2] == "cmd=set rank=1"
        first.sendall(b"cmd=barrier_in\n")
        assert ask(second, "cmd=barrier_in") == hear(first) == ["cmd=barrier_out rc=0"]
        assert ask(first, "cmd=finalize") == ["cmd=finalize_ack rc=0"]
        assert not job.has_ended(), "the other rank has yet to finish"
        assert ask(second, "cmd=finalize") == ["cmd=finalize_ack rc=0"]
        assert job.has_ended()


def test_nobody_can_connect_any_more_when_all_ranks_have(running):
    job = running()
    with job.client() as waiting, job.client(41) as first:
        with job.client(7) as second:
            assert is_disconnected(waiting)
            for _ in range(100):
                try:
                    job.client().close()
                except ConnectionError:
                    break
                time.sleep(0.02)
            else:
                pytest.fail("it still listens")
            assert ask(second, "cmd=get_appnum") == ["cmd=appnum rc=0 appnum=0"]
        assert ask(first, "cmd=get_appnum") == ["cmd=appnum rc=0 appnum=0"]


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"cmd=initack pmiid=8\n", b"\xff\xfe\n", b"x" * 5000, b"cmd=get_my_kvsname\n"]
)
def test_a_stranger_is_disconnected_without_a_word_and_ranks_are_served(running, sent):
    job = running()
    with job.client() as stranger, job.client(41), job.client() as late:
        stranger.sendall(sent)
        assert is_disconnected(stranger)
        assert ask(late, "cmd=initack pmiid=7", 4)[1] == "cmd=set size=2"


def test_a_second_client_with_the_number_of_a_rank_is_a_stranger(running):
    job = running()
    with job.client(41) as rank, job.client() as stranger:
        stranger.sendall(b"cmd=initack pmiid=41\n")
        assert is_disconnected(stranger)
        assert ask(rank, "cmd=get_appnum") == ["cmd=appnum rc=0 appnum=0"]


def test_other_hosts_are_disconnected(running):
    job = running(peers=["10.1.2.3"])
    with job.client() as stranger:
        stranger.sendall(b"cmd=initack pmiid=41\n")
        assert is_disconnected(stranger)


def test_strangers_who_crowd_in_cost_the_ranks_nothing(running, monkeypatch):
    monkeypatch.setattr(pmi_server, "HELLO_S", 1000.0)
    job = running()
    crowd = [job.client() for _ in range(90)]
    try:
        assert is_disconnected(crowd[0]), "the oldest makes room"
        with job.client(41), job.client(7) as rank:
            assert ask(rank, "cmd=get_appnum") == ["cmd=appnum rc=0 appnum=0"]
    finally:
        for one in crowd:
            one.close()


def test_who_says_nothing_is_disconnected(running, monkeypatch):
    monkeypatch.setattr(pmi_server, "HELLO_S", 0.5)
    job = running()
    with job.client() as silent, job.client(41):
        began = time.monotonic()
        assert is_disconnected(silent)
        assert time.monotonic() - began < 5


def test_it_outlives_rank_0_until_the_others_have_ended(running):
    """MPICH says goodbye in each process's last moments, and rank 0 may be the first to end."""
    job = running()
    with job.client(7) as other:
        with job.client(41):
            job.end_rank_0()
        time.sleep(0.3)
        assert job.thread.is_alive()
        assert ask(other, "cmd=finalize") == ["cmd=finalize_ack rc=0"]
        with pytest.raises(ConnectionError):
            job.client()
    assert job.has_ended()


def test_it_ends_with_rank_0_where_nobody_has_connected(running):
    job = running()
    job.end_rank_0()
    assert job.has_ended()


def test_it_waits_for_the_others_no_longer_than_half_a_minute(running, monkeypatch):
    monkeypatch.setattr(pmi_server, "LINGER_S", 0.2)
    job = running()
    with job.client(7) as other:
        job.end_rank_0()
        assert is_disconnected(other)
        assert job.has_ended()


@pytest.fixture
def process():
    """The server as its own process, with what a job may have left in shared memory."""
    listener = listen("127.0.0.1")
    address = listener.getsockname()
    found = PmiProcess([listener])
    name = f"test_{os.getpid()}_{time.monotonic_ns()}"
    left = Path("/dev/shm") / shared_memory_pattern(name).replace("*", "0")
    left.write_bytes(b"")
    found.serve(PmiJob(name, IDS, None), ["127.0.0.1"])
    yield found, address, left
    if state(found.pid) is not None:
        found.close()
    left.unlink(missing_ok=True)


def test_the_process_serves_and_leaves_nothing(process):
    found, address, left = process
    with socket.create_connection(address, timeout=10) as rank:
        assert ask(rank, "cmd=initack pmiid=7", 4)[2] == "cmd=set rank=1"
        for number in range(3):
            assert os.readlink(f"/proc/{found.pid}/fd/{number}") == "/dev/null", "it holds nothing of the launcher's"
    found.close()
    assert not left.exists()


def test_the_process_ends_when_its_parent_is_killed_though_others_hold_the_pipe():
    """Rank 0 may have forked data workers, which inherit its files."""
    code = (
        "import os, signal, time; from harness.comm.pmi import PmiJob; from harness.comm.pmi_process import PmiProcess;"
        "from harness.comm.routes import listen; server = PmiProcess([listen('127.0.0.1')]);"
        "server.serve(PmiJob('n', (1,), None), ['127.0.0.1']);"
        "worker = os.fork() or os.close(1) or time.sleep(60) or os._exit(0);"
        "print(server.pid, worker, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60)
    server, worker = map(int, done.stdout.split())
    try:
        deadline = time.monotonic() + 10
        while state(server) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert state(server) is None
    finally:
        os.kill(worker, 9)
