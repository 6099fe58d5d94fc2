"""What Horovod is built with changes of Gloo for: a lost rank is noticed at once, and takes no other along."""

from __future__ import annotations

import random
import subprocess
import threading
import time

import pytest

from tests.conftest import job_of

SOON_S = 10.0  # Gloo's own time limit is 30


@pytest.fixture
def ranks(fork_server):
    """Starts a program on `np` ranks, as horovodrun would, but that nothing ends the others when one has ended."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.gloo_run import create_slot_env_vars
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    server, started = RendezvousHTTPServer(("127.0.0.1", 0), RendezvousHandler, 0), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    port = str(server.server_address[1])
    place = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": port}
    place |= {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo", "HOROVOD_GLOO_IFACE": "lo"}

    def start(np, *arguments):
        slots = get_host_assignments(parse_hosts(f"localhost:{np}"), np)
        server.init(slots)
        for slot in slots:
            environ = {**fork_server.environ, **create_slot_env_vars(slot), **place}
            started.append(
                subprocess.Popen(job_of(arguments, None), env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            )
        return started[-np:]

    yield start
    for rank in started:
        rank.kill()
        rank.communicate()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.horovod
@pytest.mark.parametrize("root", [0, 1], ids=["while it receives", "while it sends"])
def test_a_rank_that_is_lost_in_the_middle_of_a_message_is_noticed_at_once(ranks, root):
    survivor, lost = ranks(2, "tests/programs/lost_in_a_message.py", root)
    lost.wait(60)
    lost_s = time.monotonic()
    said, _ = survivor.communicate(timeout=60)
    assert time.monotonic() - lost_s < SOON_S, said
    assert survivor.returncode == 0, said
    assert b"onnection" in said or b"shut down" in said


@pytest.mark.horovod
@pytest.mark.thorough
def test_a_rank_that_is_lost_in_a_sum_takes_no_other_along(ranks):
    draw = random.Random(0)
    for _ in range(30):
        survivors = ranks(4, "tests/programs/sum_until_lost.py", f"{draw.uniform(0.1, 0.4):.3f}")
        lost = survivors.pop(1)
        lost.wait(60)
        for survivor in survivors:
            said, _ = survivor.communicate(timeout=SOON_S)
            assert survivor.returncode == 0, said
