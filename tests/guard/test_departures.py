"""The protocol by which ranks agree on why a job ends, step by step, without a network."""

from __future__ import annotations

import socket

import pytest

from harness.causes import Cause
from harness.comm import SingleWorld
from harness.folder import AttemptStart
from harness.folder.outcome import OutcomeFiles, read_outcome
from harness.guard.departures import Departures
from harness.guard.link import Link
from harness.guard.messages import Message
from harness.guard.peers import Peer
from harness.guard.this_rank import ThisRank


class FakePeers(dict):
    """Peers whose other ends the test holds; what `Departures` uses of `Peers`."""

    def send(self, message):
        for peer in self.values():
            peer.link.send(message)

    def have_acknowledged(self, but=None):
        return all(peer.has_acknowledged or peer.has_left for rank, peer in self.items() if rank != but)


class Rank:
    """One rank with links to some others, and the files that it writes."""

    def __init__(self, rank, others, folder):
        world = SingleWorld()
        world.rank, world.size = rank, 3
        self.files = OutcomeFiles(rank, "a", environ={})
        self.files.use_folder(folder, AttemptStart())
        self.ends, self.peers = {}, FakePeers()
        for other in others:
            near, far = socket.socketpair()
            self.peers[other], self.ends[other] = Peer(Link(near)), Link(far)
        self.this_rank = ThisRank(world, 60.0)
        self.this_rank.begin("iteration 4", 60.0)
        self.departures = Departures(world, self.this_rank, self.peers, self.files)

    def heard(self, other):
        return self.ends[other].receive()[0]

    def close(self):
        for end in (*self.ends.values(), *(peer.link for peer in self.peers.values())):
            end.close()


@pytest.fixture
def rank_of(tmp_path):
    made = []

    def make(rank, others):
        made.append(Rank(rank, others, tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.close()


DATA = Cause("rank 2 left in iteration 4: DataError: item 7", 3)


def test_rank_0_writes_relays_and_acknowledges_only_when_the_others_have(rank_of, tmp_path):
    root = rank_of(0, [1, 2])
    root.departures.hear_of(DATA, source=2)
    assert read_outcome(tmp_path).exit_code == 3
    assert [message.lost for message in root.heard(1)] == [DATA.text]
    root.heard(2)
    root.departures.confirm()
    assert not root.departures.is_acknowledged.is_set()
    assert root.heard(2) == []
    root.peers[1].has_acknowledged = True
    root.departures.confirm()
    assert root.departures.is_acknowledged.is_set()
    assert root.heard(2) == [Message(acknowledged=True)]
    root.departures.confirm()
    assert root.heard(2) == [], "it is acknowledged once"


def test_a_rank_that_was_lost_need_not_acknowledge(rank_of):
    root = rank_of(0, [1, 2])
    root.peers[1].has_left = True
    root.departures.hear_of(DATA, source=2)
    root.departures.confirm()
    assert root.departures.is_acknowledged.is_set()


def test_another_rank_writes_and_acknowledges_to_rank_0(rank_of, tmp_path):
    other = rank_of(1, [0])
    other.departures.hear_of(DATA, source=0)
    assert other.heard(0) == [Message(acknowledged=True)]
    assert other.departures.is_known.is_set()
    assert (tmp_path / "failures" / "rank-1.json").exists()


def test_a_consequence_is_known_but_neither_written_nor_announced_as_a_loss(rank_of, tmp_path):
    other = rank_of(1, [0])
    other.departures.hear_of(Cause("rank 2 follows", 7, first=False), source=0)
    assert not other.departures.is_known.is_set()
    assert not (tmp_path / "failures").exists()


def test_a_weightier_cause_is_relayed_and_a_lighter_one_only_acknowledged(rank_of):
    root = rank_of(0, [1, 2])
    root.departures.hear_of(Cause("rank 1 was killed"), source=1)
    root.departures.hear_of(DATA, source=2)
    root.departures.hear_of(Cause("rank 1 was killed, again"), source=1)
    assert [message.lost for message in root.heard(2)] == ["rank 1 was killed", DATA.text]
    assert root.heard(1)[-1] == Message(acknowledged=True)
    assert root.departures.known.cause == DATA


def test_rank_0_announces_to_all_what_others_announce_to_rank_0(rank_of):
    root, other = rank_of(0, [1, 2]), rank_of(1, [0])
    root.departures.announce(Cause("DataError: x", 3))
    (message,) = root.heard(1)
    assert (message.lost, message.goodbye) == ("rank 0 left in iteration 4: DataError: x", True)
    other.departures.announce(Cause("DataError: x", 3))
    (message,) = other.heard(0)
    assert (message.left, message.activity, message.exit_code) == ("DataError: x", "iteration 4", 3)


def test_an_immediate_stop_and_the_first_change_exclude_each_other():
    world = SingleWorld()
    early, late = ThisRank(world, 1.0), ThisRank(world, 1.0)
    assert early.stop_at_once_if_allowed()
    assert early.forbid_immediate_stop(), "the main thread must not change anything any more"
    assert not late.forbid_immediate_stop()
    assert not late.stop_at_once_if_allowed(), "the next update carries the request to all ranks"
