"""Stop requests: SIGTERM, SIGINT and SIGUSR1 only set a flag, which the next update carries to all ranks.

The guard's thread notices a signal through a socket, even while the main thread waits in a collective. A second signal
stops at once; one that arrives within a second of the first counts as the same request, because a terminal and a
launcher both pass on the same Ctrl-C.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from harness.comm.compare import name_ranks
from harness.interrupts import end_of_run

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_SAME_REQUEST_S = 1.0


def explain_requests(received: Sequence[str | None], others: Sequence[str] = ()) -> str:
    """Which ranks were asked to stop, and how, in brackets; empty if none was.

    Args:
        received: the name of each rank's first signal; `None` for a rank that received none.
        others: who else has asked each rank; empty texts do not count.

    >>> explain_requests([None, "SIGTERM"]), explain_requests(["SIGINT", "SIGTERM", "SIGINT"])
    (' (SIGTERM to rank 1)', ' (SIGINT to ranks 0, 2; SIGTERM to rank 1)')
    >>> explain_requests([None, None], ["the hook mine:watch: too dear", ""])
    ' (the hook mine:watch: too dear)'
    >>> explain_requests([None, None], ["horovodrun does not answer any more", "horovodrun does not answer any more"])
    ' (horovodrun does not answer any more)'
    """
    names = dict.fromkeys(name for name in received if name is not None)
    of = {name: [rank for rank, own in enumerate(received) if own == name] for name in names}
    others = list(dict.fromkeys(filter(None, others)))
    told = [*(f"{name} to {name_ranks(ranks)}" for name, ranks in of.items()), *others]
    return f" ({'; '.join(told)})" if told else ""


class StopSignals:
    """Handles the signals of this process while it is open.

    Attributes:
        received: the name of the first signal; `None` before.
        repeated: the name of one that came more than a second later, and means: stop at once, do not save.
        socket: becomes readable with every signal, and when `wake` is called.
    """

    def __init__(self, numbers: Sequence[signal.Signals] = SIGNALS) -> None:
        """Nothing is changed yet.

        Args:
            numbers: of the signals to take; none of them leaves a program's own handling as it is.
        """
        self._numbers = numbers
        self.received: str | None = None
        self.repeated: str | None = None
        self.socket, self._sender = socket.socketpair()
        self._first_s = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._old_fd = -1

    def open(self) -> None:
        """Install the handlers, once; in another thread than the main one, which may not, nothing happens."""
        if self._before or not self._numbers or threading.current_thread() is not threading.main_thread():
            return
        self.socket.setblocking(False)
        self._sender.setblocking(False)
        self._old_fd = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = signal.signal(number, _ignore)

    def reinstall(self) -> None:
        """Install the handlers again, where they were installed and other code may have replaced them."""
        if not self._before:
            return
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in self._before:
            if signal.getsignal(number) is not _ignore:
                signal.signal(number, _ignore)

    def close(self) -> None:
        """Restore the earlier handlers."""
        if self._before:
            signal.set_wakeup_fd(self._old_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            end_of_run()
        self._before.clear()
        self.socket.close()
        self._sender.close()

    @property
    def received_for_s(self) -> float:
        """How long ago the first signal came; 0 before."""
        return 0.0 if self.received is None else time.monotonic() - self._first_s

    def wake(self) -> None:
        """Make `socket` readable without a signal: whoever waits for one looks around at once."""
        with suppress(OSError):  # closed: nobody waits
            self._sender.send(b"\0")

    def receive(self) -> None:
        """Take the signals that have arrived."""
        try:
            numbers = self.socket.recv(64)
        except OSError:
            return
        for number in numbers:
            if number not in {int(known) for known in SIGNALS}:
                continue
            name = signal.Signals(number).name
            if self.received is None:
                self.received, self._first_s = name, time.monotonic()
            elif time.monotonic() - self._first_s > _SAME_REQUEST_S:
                self.repeated = name

    def __enter__(self) -> StopSignals:
        """With the handlers installed."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the earlier handlers."""
        self.close()


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: Python has written the number to the socket already."""
