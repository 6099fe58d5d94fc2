"""Beside the training: answers Horovod's driver when it calls its workers together, and keeps this one's notice up.

The driver has one verb, the question for one's number (`GET /rank_and_size/host:slot`), and answers when all workers
that it knows have asked or ended. Then it forgets everything at its key-value server, starts processes on slots that
are free, and has given out new numbers. So a worker that wants any of this leaves a call there, and the ushers of all
others ask as well, whatever their main threads are doing.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from harness.comm.elastic.notices import MAX_NOTICE, MAX_ROSTER, Notice, Roster
from harness.comm.launcher_store import LauncherStore
from harness.parsing import whole_number

_CALL, _OVER, _ROSTER, _JOB = "call", "over", "roster", "job"
_POLL_S = 0.25
_RANKS_PER_S = 128  # that ask the one server
_GONE_S = 20.0  # after which a driver that has not answered anything is gone
_LEAVING_ANSWER_S = 3.0
_LAST_ANSWER_S = 60.0  # it may wait for a process that is still importing


class Slot(NamedTuple):
    """A place for a worker, as the driver knows it."""

    host: str
    number: int


class Numbers(NamedTuple):
    """What the driver has told this worker.

    Attributes:
        call: how many times it has answered.
        rank: the driver's number for this worker; -1 if it has none any more.
        size: how many workers the driver has, those among them that are not ready yet.
    """

    call: int
    rank: int
    size: int


class Usher:
    """One thread that talks to the launcher's server.

    Attributes:
        numbers: the newest.
        notice: that others see.
        over: the exit code of a job that has ended; `None` as long as it goes on.
    """

    def __init__(
        self, store: LauncherStore, driver: tuple[str, int], slot: Slot, numbers: Numbers, own: Notice
    ) -> None:
        """Nothing is sent yet.

        Args:
            store: at the launcher's server, in a scope of its own.
            driver: address and port of that server.
            slot: of this worker.
            numbers: that it was started with.
            own: this worker's first notice.
        """
        self.numbers, self.notice = numbers, own
        self.over: int | None = None
        self._store, self._driver, self._slot = store, driver, slot
        self._job: bytes | None = None
        self._roster: bytes | None = None
        self._called, self._wake, self._ending = threading.Event(), threading.Event(), threading.Event()
        self._posting = threading.Lock()
        self._deciding = threading.Lock()
        self._is_asking = self._is_quiet = False
        self._thread = threading.Thread(target=self._run, name="usher", daemon=True)

    def start(self) -> None:
        """Post the notice, and begin to look for calls."""
        self.post()
        self._thread.start()

    def hush(self) -> None:
        """Call nobody any more; calls of others are answered as ever."""
        with self._deciding:
            self._is_quiet = True
            self._called.clear()

    @property
    def is_asking(self) -> bool:
        """Whether the driver has yet to answer; it waits for all other workers."""
        with self._deciding:
            return self._is_asking

    @property
    def is_driver_gone(self) -> bool:
        """Whether the driver was killed, or cannot be reached from here."""
        return self.driver_gone_s > 0

    @property
    def driver_gone_s(self) -> float:
        """For how many seconds that has been known; not above 0 if it is not."""
        return self._store.unanswered_s - _GONE_S

    def outwait_driver(self) -> None:
        """Wait until the driver has answered, or ends, and this process with it.

        One that ends while the driver looks for hosts is waited for by Horovod for ever, if the driver finds none until
        its time limit (`--elastic-timeout`).
        """
        while self.is_asking and not self.is_driver_gone:
            time.sleep(_POLL_S)
            self.look_for_end()  # so that it is known whether the driver is there

    def stop(self, *, is_done: bool, leaves: bool = False) -> None:
        """End the thread.

        Args:
            is_done: whether the process ends with 0. If it does so before the driver has answered, Horovod takes no
                notice of the end, and counts this worker twice; so the answer is waited for.
            leaves: whether the others go on without it. If it ends while the driver deals its numbers, Horovod counts
                the end among those that have got a number, and ends the job if there are as many; so the answer is
                waited for here too, but no longer than a launcher leaves a process that it has told to end.
        """
        self._ending.set()
        self._wake.set()
        self._thread.join(_LAST_ANSWER_S if is_done else _LEAVING_ANSWER_S if leaves else _POLL_S)

    def post(self, **changes: Any) -> None:
        """Change the notice, and show it."""
        with self._posting:
            self.notice = replace(self.notice, **changes)
            if self.numbers.rank >= 0:
                self._store.put(f"notice-{self.numbers.rank}", self.notice.encode())

    def offer(self, job: bytes) -> None:
        """Show what a process that joins has to know of the job; kept up like the notice."""
        self._job = job
        self._store.put(_JOB, job)

    def look_for_end(self) -> int | None:
        """Look whether the job has ended, and with which exit code; `None` as long as it goes on."""
        over = whole_number((self._store.get(_OVER, 16) or b"").decode("latin-1"))
        self.over = self.over if over is None else over
        return self.over

    def job(self) -> bytes:
        """What another has offered; empty if nobody has."""
        return self._store.get(_JOB, MAX_ROSTER) or b""

    def call(self) -> None:
        """Have all workers ask the driver again; returns at once."""
        with self._deciding:
            if not self._is_quiet:
                self._called.set()
        self._wake.set()

    def announce_end(self, exit_code: int) -> None:
        """Tell those that are not in the world that the job is over."""
        self._store.put(_OVER, str(exit_code).encode())

    def publish(self, roster: Roster) -> None:
        """Show who is in the next world."""
        self._roster = roster.encode()
        self._store.put(_ROSTER, self._roster)

    def forget_roster(self) -> None:
        """All who are on it have read it, or will not."""
        self._roster = None

    def roster(self) -> Roster | None:
        """The newest roster that was shown."""
        return Roster.decode(self._store.get(_ROSTER, MAX_ROSTER))

    def notices(self) -> Sequence[Notice | None]:
        """Of all workers, by the driver's numbers; this one's own is not asked for.

        A server that does not answer for one is not asked for the others.
        """
        rank, size = self.numbers.rank, self.numbers.size
        found: list[Notice | None] = []
        for other in range(size):
            text = b"" if other == rank else self._store.get(f"notice-{other}", MAX_NOTICE)
            if text is None:
                return [*found, *[None] * (size - other)]
            found.append(self.notice if other == rank else Notice.decode(text))
        return found

    def _run(self) -> None:
        while not self._ending.is_set():
            self._look()
            self._wake.wait(max(_POLL_S, self.numbers.size / _RANKS_PER_S))
            self._wake.clear()

    def _look(self) -> None:
        with suppress(Exception):  # whatever comes from a server; without this thread the worker would be lost
            is_called = bool(self._store.get(_CALL, 16))
            with self._deciding:
                self._is_asking = is_called or self._called.is_set()
                self._called.clear()
            if self._is_asking:
                self._ask_driver()
                self._is_asking = False
            self.look_for_end()

    def _ask_driver(self) -> None:
        """Ask for this worker's number; the answer comes when all others have asked."""
        while True:
            self._store.put(_CALL, b"1")
            try:
                answer = self._request()
            except (OSError, http.client.HTTPException):
                if self._ending.is_set():
                    return
                time.sleep(_POLL_S)
                continue
            rank, size = [int(number) for number in answer.split(",")[:2]]
            with self._posting:
                self.numbers = Numbers(self.numbers.call + 1, rank, size)
            for key, value in ((_JOB, self._job), (_ROSTER, self._roster)):
                if value is not None:
                    self._store.put(key, value)
            self.post()
            return

    def _request(self) -> str:
        connection = http.client.HTTPConnection(*self._driver)
        try:
            connection.request("GET", f"/rank_and_size/{self._slot.host}:{self._slot.number}")
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise http.client.HTTPException
            return answer.read(200).decode("latin-1")
        finally:
            connection.close()
