"""Ranks find rank 0 whoever else comes to its port, and believe of what is said there only what can be."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from contextlib import suppress

import pytest

from harness.guard.heartbeat import open_heartbeat
from harness.guard.link import Link
from harness.guard.listener import HeartbeatListener, proof
from harness.guard.messages import Message
from tests.guard.worlds import Ranks


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def drip(connection):
    """A byte every 20 ms, for as long as somebody listens."""
    try:
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)
    except OSError:
        pass


def say(text):
    def do(connection):
        connection.sendall(text)

    return do


STRANGERS = {
    "rst": reset,
    "silent": lambda connection: None,
    "half": say(b"abc"),
    "nonascii": say(b"\xff\xfe \x80\n"),
    "garbage": say(b"GET / HTTP/1.0\r\n\r\n"),
    "guesses": say(b"1 00000000000000000000000000000000 " + proof("a guess", "rank", 1, "0" * 32) + b"\n"),
    "huge rank": say(b"9" * 200 + b" a b\n"),
    "endless": say(b"x" * 100_000),
    "drip": drip,
}


class Crowd:
    """Strangers who come to the port before any rank does."""

    def __init__(self, do, number):
        self.do, self.number, self.connections, self.threads = do, number, [], []

    def change(self, name, rank, value):
        if name == "heartbeat" and rank == 0:
            (places, _), (address, port) = value, value[0][0]
            assert address == "127.0.0.1", "all ranks are on one host: nobody else needs to reach it"
            assert len(places) == 1
            for _ in range(self.number):
                connection = socket.create_connection((address, port), timeout=10)
                self.connections.append(connection)
                self.threads.append(threading.Thread(target=self._act, args=(connection,)))
                self.threads[-1].start()
            time.sleep(0.05)
        return value

    def _act(self, connection):
        with suppress(OSError):  # hung up on in the middle of it
            self.do(connection)

    def leave(self):
        for thread in self.threads:
            thread.join(timeout=10)
        for connection in self.connections:
            connection.close()


def talk(links):
    """Whether messages come through in both directions."""
    for rank in range(1, len(links)):
        links[rank][0].send(Message(activity=f"from {rank}"))
        links[0][rank].send(Message(activity="from 0"))
    time.sleep(0.05)
    heard = [links[0][rank].receive()[0][0].activity for rank in range(1, len(links))]
    assert heard == [f"from {rank}" for rank in range(1, len(links))]
    assert all(links[rank][0].receive()[0][0].activity == "from 0" for rank in range(1, len(links)))


def hang_up(links):
    for one in links:
        for link in one.values():
            link.close()


@pytest.mark.parametrize(("kind", "number"), [*((kind, 1) for kind in STRANGERS), ("silent", 100), ("drip", 5)])
def test_a_stranger_costs_its_own_connection_and_nothing_else(kind, number):
    crowd = Crowd(STRANGERS[kind], number)
    begun = time.monotonic()
    links = Ranks(3, change=crowd.change).run(open_heartbeat)
    assert time.monotonic() - begun < 4
    assert [sorted(one) for one in links] == [[1, 2], [0], [0]]
    talk(links)
    crowd.leave()
    hang_up(links)


def test_the_port_is_closed_as_soon_as_all_are_there():
    places = []

    def note(name, rank, value):
        if name == "heartbeat" and rank == 0:
            places.append(tuple(value[0][0]))
        return value

    links = Ranks(2, change=note).run(open_heartbeat)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(places[0], timeout=5)
    hang_up(links)


def test_a_rank_that_reaches_somebody_else_is_not_fooled():
    """Another program listens at the port, takes everything and answers as if it were rank 0."""
    other = socket.create_server(("127.0.0.1", 0))
    heard = []

    def answer():
        while True:
            try:
                connection, _ = other.accept()
            except OSError:
                return
            line = connection.recv(1000)
            heard.append(line)
            connection.sendall(line.split()[-1] + b"\n")  # what it heard itself
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()

    def change(name, rank, value):
        if name == "heartbeat" and rank == 0:
            places, token = value
            heard.append(token.encode())
            return [[list(other.getsockname()), places[0]], token]  # first the stranger, then rank 0
        return value

    links = Ranks(2, change=change).run(open_heartbeat)
    assert [sorted(one) for one in links] == [[1], [0]]
    talk(links)
    assert heard[0] not in heard[1], "the secret itself must not be told"
    other.shutdown(socket.SHUT_RDWR)
    other.close()
    thread.join()
    hang_up(links)


def test_what_a_stranger_overheard_lets_nobody_in_under_another_name():
    listener = HeartbeatListener(["127.0.0.1"], "secret", 3)
    hello = b"1 " + b"0" * 32 + b" " + proof("secret", "rank", 1, "0" * 32)
    for line, known in (
        (hello.replace(b"1 ", b"2 ", 1), False),
        (hello, True),
        (hello.replace(b"1 ", b"0 ", 1), False),
    ):
        with socket.create_connection(listener.addresses[0], timeout=5) as connection:
            connection.sendall(line + b"\n")
            assert bool(connection.recv(100)) is known
    ranks = listener.close()
    assert sorted(ranks) == [1]
    ranks[1].close()


def test_ranks_that_cannot_connect_train_all_the_same():
    links = Ranks(
        2, change=lambda name, rank, value: [[["127.0.0.1", 1]], value[1]] if name == "heartbeat" and value else value
    ).run(open_heartbeat)
    assert links == [{}, {}]


def test_hosts_of_several_use_the_address_that_leads_to_the_others():
    places = []

    def change(name, rank, value):
        if name == "heartbeat.addresses":
            return [["10.1.2.3"], ["127.0.0.3"]][rank]  # of this one 127.0.0.1 is the source
        if name == "heartbeat" and rank == 0:
            places.extend(value[0])
        return value

    links = Ranks(2, local_size=1, change=change).run(open_heartbeat)
    assert len(places) <= 1
    assert all(address != "0.0.0.0" for address, _ in places)
    hang_up(links)


def test_who_does_not_introduce_himself_in_time_is_hung_up_on():
    now = [0.0]
    listener = HeartbeatListener(["127.0.0.1"], "secret", 2, clock=lambda: now[0])
    with socket.create_connection(listener.addresses[0], timeout=5) as connection:
        connection.sendall(b"1 ")
        time.sleep(0.1)
        now[0] = 6.0
        assert connection.recv(1) == b""
    assert listener.close() == {}


@pytest.fixture
def wire():
    near, far = socket.socketpair()
    link = Link(near)
    yield link, far
    link.close()
    far.close()


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"\xff\xfe",
        b"5",
        b"null",
        b"[]",
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b"1" * 5000,
        b'{"num_collectives": ' + b"9" * 5000 + b"}",
        b"NaN",
        b"",
    ],
)
def test_what_is_no_message_is_left_out(wire, line):
    link, far = wire
    far.sendall(line + b"\n" + Message(activity="here").encode())
    assert link.receive() == ([Message(activity="here")], False)


@pytest.mark.parametrize("key", Message.__dataclass_fields__)
def test_a_field_of_another_type_is_not_said(wire, key):
    link, far = wire
    values = [None, True, 5, -1, 1.5, "x", [], {}, 1e300]
    for value in values:
        far.sendall(json.dumps({key: value}).encode() + b"\n")
    messages, _ = link.receive()
    said = [getattr(message, key) for message in messages if message != Message()]
    kinds = {type(one) for one in said}
    assert len(messages) == len(values)
    assert kinds in ({str}, {int}, {bool})


def test_a_line_without_an_end_does_not_stay_in_memory(wire):
    link, far = wire
    sender = threading.Thread(target=far.sendall, args=(b"x" * 3_000_000,))
    sender.start()
    deadline = time.monotonic() + 10
    while sender.is_alive() and time.monotonic() < deadline:
        assert link.receive() == ([], False)
    sender.join()
    assert link.receive() == ([], False)
    far.sendall(b"\n" + Message(goodbye=True).encode())
    assert Message(goodbye=True) in link.receive()[0]
    far.close()
    assert link.receive() == ([], True)


def test_long_texts_are_cut_and_codes_are_known_ones():
    message = Message.decode(Message(lost="x" * 1_000_000, exit_code=3, first=True).encode())
    assert 1000 < len(message.lost) < 100_000
    assert message.cause("text").exit_code == 3
    assert Message(left="x", exit_code=300).cause("x").exit_code == 7
    assert Message(left="x", exit_code=0).cause("x").exit_code == 7
