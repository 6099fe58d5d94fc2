"""How a worker of an elastic job answers the driver, how it ends, and what one that joins makes of it."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from harness.comm import JobOverError
from harness.comm.elastic import meeting
from harness.comm.elastic.meeting import Meeting
from harness.comm.elastic.notices import Notice
from harness.comm.elastic.usher import Numbers, Slot, Usher
from harness.errors import LostRankError
from tests.comm.test_pulse import Store


class Driver:
    """Answers who asks for a number, as soon as it may; the server forgets everything then."""

    def __init__(self):
        self.store, self.asked, self.may_answer = Store(), threading.Event(), threading.Event()
        driver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                driver.asked.set()
                driver.may_answer.wait(20)
                driver.store.values.clear()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"0,2,0,1,0,2")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.may_answer.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def driver():
    one = Driver()
    yield one
    one.close()


@pytest.fixture
def usher(driver):
    own = Notice("own", "host", phase="member")
    return Usher(driver.store, driver.server.server_address, Slot("host", 0), Numbers(0, 0, 2), own)


def test_a_worker_that_is_done_ends_when_the_driver_has_answered(driver, usher):
    usher.start()
    usher.call()
    assert driver.asked.wait(10)
    ending = threading.Thread(target=lambda: (usher.stop(is_done=True), usher.announce_end(0)))
    ending.start()
    time.sleep(0.5)
    assert usher.look_for_end() is None  # the driver would forget it
    driver.may_answer.set()
    ending.join(10)
    assert usher.look_for_end() == 0


@pytest.fixture
def settling(driver, usher):
    """A worker that is done, and another one of its world that is not; `end` is what it waits for last."""
    own, other = usher.notice, Notice("other", "host", phase="member")
    driver.store.put("notice-1", other.encode())
    meeting = Meeting(usher, Slot("host", 0), None, SimpleNamespace(silent=lambda uids: settle.silent & set(uids)))
    meeting.members = [own, other]
    settle = threading.Thread(target=meeting.settle)
    settle.silent = set()
    yield settle
    settle.join(10)
    assert not settle.is_alive()


def test_a_worker_that_is_done_answers_until_all_are_done_and_calls_nobody(driver, usher, settling):
    usher.start()
    settling.start()
    time.sleep(0.3)
    assert settling.is_alive()
    usher.call()
    time.sleep(0.5)
    assert not driver.asked.is_set()
    driver.store.put("call", b"1")  # of the other one
    assert driver.asked.wait(10)
    driver.may_answer.set()
    driver.store.put("notice-1", Notice("other", "host", phase="done").encode())
    settling.join(10)
    usher.stop(is_done=True)
    assert usher.notice.phase == "done"


def test_a_worker_is_not_done_before_the_driver_has_answered(driver, usher, settling):
    usher.start()
    usher.call()
    assert driver.asked.wait(10)
    driver.store.put("notice-1", Notice("other", "host", phase="done").encode())
    settling.start()
    time.sleep(0.3)
    assert (usher.notice.phase, settling.is_alive()) == ("member", True)
    driver.may_answer.set()
    settling.join(10)
    usher.stop(is_done=True)


def test_a_worker_that_is_done_does_not_wait_for_one_that_is_silent(settling):
    settling.silent = {"other"}
    settling.start()


def test_a_worker_that_fails_does_not_wait_for_the_driver(driver, usher):
    usher.start()
    usher.call()
    assert driver.asked.wait(10)
    begun_s = time.monotonic()
    usher.stop(is_done=False)
    assert time.monotonic() - begun_s < 5


def test_a_worker_that_leaves_waits_for_the_driver_a_little(driver, usher):
    usher.start()
    usher.call()
    assert driver.asked.wait(10)
    threading.Timer(1.0, driver.may_answer.set).start()
    begun_s = time.monotonic()
    usher.stop(is_done=False, leaves=True)
    assert usher.numbers.call == 1
    assert time.monotonic() - begun_s >= 1


def test_a_worker_that_gives_up_does_not_end_while_the_driver_looks_for_hosts(driver, usher):
    usher.start()
    usher.call()
    assert driver.asked.wait(10)
    waiting = threading.Thread(target=usher.outwait_driver, daemon=True)
    waiting.start()
    waiting.join(1.5)
    assert waiting.is_alive()
    driver.may_answer.set()
    waiting.join(10)
    assert not waiting.is_alive()
    usher.stop(is_done=False)


@pytest.fixture
def joining(usher):
    """The meeting of a worker that joins, with the number 0; the other one has the number 1."""
    return Meeting(usher, Slot("host", 0), None, None)


@pytest.mark.parametrize("what", ["wait_for_offer", "wait_for_invitation"])
def test_who_joins_ends_with_the_job(usher, joining, what):
    usher.announce_end(6)
    with pytest.raises(JobOverError, match="ended with 6 before this worker could join"):
        getattr(joining, what)()
    assert joining.first() is None  # it has missed the beginning


@pytest.mark.parametrize("what", ["wait_for_offer", "wait_for_invitation"])
def test_who_joins_does_not_wait_for_ever_when_nobody_is_left(monkeypatch, driver, usher, joining, what):
    now_s = [1000.0]
    monkeypatch.setattr(meeting.time, "monotonic", lambda: now_s[0])
    usher.post(phase="prepared")

    def sleep(_):
        now_s[0] += 1
        if now_s[0] < 1100:  # for so long there is one
            driver.store.put("notice-1", Notice("other", "host", phase="member").encode())
        else:
            driver.store.put("notice-1", Notice("other", "host", phase="preparing").encode())

    monkeypatch.setattr(meeting.time, "sleep", sleep)
    with pytest.raises(LostRankError, match="none of the workers that trained is left"):
        getattr(joining, what)()
    assert 1115 < now_s[0] < 1130
