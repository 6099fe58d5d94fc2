"""The place where Horovod's ranks find each other: what it holds, for whom, and how it ends."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import suppress

import pytest

from harness.comm.rendezvous import Rendezvous
from harness.comm.routes import choose_route, listen

HERE = "127.0.0.1"


@pytest.fixture
def port():
    listener = listen(HERE)
    number = listener.getsockname()[1]
    rendezvous = Rendezvous([listener], {HERE}, size=2)
    yield number
    rendezvous.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, number), timeout=1)


def ask(port: int, method: str, path: str, body: bytes | None = None, source: str = HERE) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HERE, port, timeout=10, source_address=(source, 0))
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_value_is_given_once_and_read_by_all(port):
    assert ask(port, "GET", "/global/0") == (404, b"")
    assert ask(port, "PUT", "/global/0", b"\x00\xff") == (200, b"")
    assert ask(port, "GET", "/global/0") == (200, b"\x00\xff")
    assert ask(port, "PUT", "/global/0", b"\x00\xff")[0] == 200  # Horovod asks again when an answer got lost
    assert ask(port, "PUT", "/global/0", b"a stranger's")[0] == 409
    assert ask(port, "DELETE", "/global/0")[0] == 200
    assert ask(port, "GET", "/global/0") == (200, b"\x00\xff")


@pytest.mark.parametrize(
    "path",
    [
        *("/local_my-host.example/rank_1", "/cross_0/0", "/global_process_set_hash_7d48533536350577/0"),
        *("/local_vm_process_set_hash_7d48533536350577/rank_0", "/cross_1_process_set_hash_1e9d5/1"),
    ],
)
def test_the_names_that_horovod_uses(port, path):
    assert ask(port, "PUT", path, b"")[0] == 200
    assert ask(port, "GET", path) == (200, b"")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/global/0", bytes(25_000_000), 413),
        ("/global/0", bytes(6000), 413),
        ("/stuff/0", b"", 400),
        ("/global/../etc", b"", 400),
        ("/global", b"", 400),
        ("/", b"", 400),
        ("/global/" + "k" * 101, b"", 400),
    ],
)
def test_what_is_not_horovods_is_refused(port, path, body, code):
    try:
        assert ask(port, "PUT", path, body)[0] == code
    except (BrokenPipeError, ConnectionResetError):
        assert len(body) > 10_000_000  # hung up on while it was still sending
    assert ask(port, "GET", "/global/0")[0] == 404


@pytest.mark.parametrize("length", ["-1", "1e3", "\u0661", "9" * 400, ""])
def test_a_length_that_is_no_number(port, length):
    with socket.create_connection((HERE, port), timeout=5) as connection:
        connection.sendall(f"PUT /global/0 HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        assert b" 400 " in connection.recv(100)


def test_no_more_values_than_ranks_have(port):
    codes = [ask(port, "PUT", f"/global/{k}", b"x")[0] for k in range(70)]
    assert codes == [200] * 64 + [507] * 6


def test_another_host_is_hung_up_on(port):
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        ask(port, "GET", "/global/0", source="127.0.0.2")


def test_slow_strangers_are_hung_up_on_and_keep_nobody_waiting(port):
    """One byte a second would keep a timeout of single reads waiting for ever."""
    slow = [socket.create_connection((HERE, port), timeout=10) for _ in range(5)]
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.5):
            for connection in slow:
                try:
                    connection.sendall(b"P")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        begun = time.monotonic()
        assert ask(port, "PUT", "/global/0", b"x")[0] == 200
        assert time.monotonic() - begun < 2
        for connection in slow:
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert time.monotonic() - begun < 6
    finally:
        stop.set()
        thread.join()
        for connection in slow:
            connection.close()


def test_stopping_does_not_wait_for_a_stranger():
    listener = listen(HERE)
    rendezvous = Rendezvous([listener], {HERE}, size=2)
    with socket.create_connection(listener.getsockname(), timeout=5):
        time.sleep(0.2)
        begun = time.monotonic()
        rendezvous.stop()
        assert time.monotonic() - begun < 2


def test_ranks_meet_at_an_address_that_all_can_reach():
    """Rank 0 itself reaches every address of its own, a bridge of containers among them."""
    addresses = ["172.17.0.1", "10.0.0.1", "10.1.0.1"]
    ways = [{address: address for address in addresses}, {"10.1.0.1": "10.1.0.2", "10.0.0.1": "10.0.0.2"}]
    assert [choose_route(addresses, ways, rank) for rank in (0, 1)] == [("10.0.0.1",) * 2, ("10.0.0.1", "10.0.0.2")]
    ways[0].pop("10.0.0.1"), ways[0].pop("10.1.0.1")
    assert [choose_route(addresses, ways, rank)[0] for rank in (0, 1)] == ["172.17.0.1", "10.0.0.1"]


PROGRAM = """if True:
    import os, socket
    from harness.comm import connect, read_launch
    world = connect("horovod", read_launch(), "cpu")
    place = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    try:
        socket.create_connection(place, timeout=5).close()
        found = "open"
    except ConnectionRefusedError:
        found = "closed"
    print(f"{found} at {place[0]} for {world.allgather_object(world.rank, 'ranks')}")
    world.close()
"""


@pytest.mark.horovod
def test_nothing_listens_once_horovod_has_found_its_ranks(start):
    done = start("-c", PROGRAM, np=2, launcher="mpirun", timeout_s=60)
    assert done.stdout.count("closed at 127.0.0.1 for [0, 1]") == 2, done.stdout
