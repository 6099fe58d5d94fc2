"""What Horovod is built with a change of Gloo for: a lost rank is noticed in the middle of a message."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest

from tests.conftest import job_of

SOON_S = 10.0  # Gloo's own time limit is 30


@pytest.fixture
def two_ranks(fork_server):
    """Starts a program on two ranks, as horovodrun would, but that nothing ends one when the other has ended."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.gloo_run import create_slot_env_vars
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    server, ranks = RendezvousHTTPServer(("127.0.0.1", 0), RendezvousHandler, 0), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    port = str(server.server_address[1])
    place = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": port}
    place |= {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo", "HOROVOD_GLOO_IFACE": "lo"}
    slots = get_host_assignments(parse_hosts("localhost:2"), 2)
    server.init(slots)

    def start(*arguments):
        for slot in slots:
            environ = {**fork_server.environ, **create_slot_env_vars(slot), **place}
            ranks.append(
                subprocess.Popen(job_of(arguments, None), env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            )
        return ranks

    yield start
    for rank in ranks:
        rank.kill()
        rank.communicate()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.horovod
@pytest.mark.parametrize("root", [0, 1], ids=["while it receives", "while it sends"])
def test_a_rank_that_is_lost_in_the_middle_of_a_message_is_noticed_at_once(two_ranks, root):
    survivor, lost = two_ranks("tests/programs/lost_in_a_message.py", root)
    lost.wait(60)
    lost_s = time.monotonic()
    said, _ = survivor.communicate(timeout=60)
    assert time.monotonic() - lost_s < SOON_S, said
    assert survivor.returncode == 0, said
    assert b"onnection" in said or b"shut down" in said
