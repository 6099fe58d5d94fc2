"""Horovod's library, begun such that a process survives when another one dies at that very moment.

`hvd.init()` connects the ranks in a thread of C++. If a peer is lost meanwhile, that thread throws, nobody catches, and
the process is aborted. Here the call is made in a thread of its own, which may be given up, and the exception ends the
thread that threw it and nothing else. What such a library holds cannot be used again, so the next attempt loads another
copy of it.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_POLL_S = 0.005
_SHUTDOWN_S = 5.0
_EXIT_THREAD = 60  # of Linux on x86-64: ends the calling thread alone


class HorovodLibrary:
    """Begins and ends Horovod as often as worlds do.

    Attributes:
        number: how often it was begun, which tells one world from the next.
        is_spoiled: whether a copy was given up, whose threads would keep the process from ending by itself.
    """

    def __init__(self) -> None:
        """Load Horovod; `std::terminate` of its threads is caught from now on, while it connects."""
        import horovod.mxnet as hvd
        from horovod.mxnet import mpi_ops

        self.hvd, self._ops = hvd, mpi_ops
        self.number = 0
        self.is_spoiled = False
        self._connections: dict[int, int] = {}
        self._source: str | None = None
        self._thrown = threading.Event()
        self._under_way = 0  # calls of `init` whose thread may still throw
        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        self._handler = ctypes.CFUNCTYPE(None)(self._terminated)
        standard: Any = ctypes.CDLL("libstdc++.so.6")
        set_terminate = standard._ZSt13set_terminatePFvvE
        set_terminate.restype = ctypes.c_void_p
        self._before = ctypes.CFUNCTYPE(None)(set_terminate(self._handler))

    def begin(self, may_go_on: Callable[[], bool]) -> bool:
        """Connect the ranks that the environment tells of; whether that succeeded.

        Args:
            may_go_on: is asked again and again; once it says no, the attempt is given up.
        """
        self._thrown.clear()
        done, failed = threading.Event(), threading.Event()
        basics = self._ops._basics

        def connect() -> None:
            try:
                basics.init()
                done.set()
            except Exception:
                failed.set()

        self.number += 1
        self._under_way += 1
        before = _connections()
        threading.Thread(target=connect, name="hvd.init", daemon=True).start()
        while not done.wait(_POLL_S):
            if failed.is_set() or self._thrown.is_set() or not may_go_on():
                self._replace()
                return False
        self._under_way -= 1
        self._connections = {one: inode for one, inode in _connections().items() if before.get(one) != inode}
        # registered by every `init`; a world ends in good order, or its library is given up
        atexit.unregister(basics.shutdown)
        return True

    def cut(self) -> None:
        """Break the connections to all other ranks: whoever waits for any of them gets an error at once.

        Otherwise a rank that waits for one that has already noticed a loss would do so until Gloo's time limit.
        """
        now, cut = _connections(), self._connections
        self._connections = {}
        for descriptor, inode in cut.items():
            if now.get(descriptor) == inode:  # and not another file by now
                with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
                    connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Let go of the other ranks; of those that do not answer, too."""
        self.cut()
        thread = threading.Thread(target=self.hvd.shutdown, name="hvd.shutdown", daemon=True)
        thread.start()
        thread.join(_SHUTDOWN_S)
        if thread.is_alive():
            self._replace()

    def _replace(self) -> None:
        """Take another copy of the library, with nothing in it."""
        self.is_spoiled = True
        atexit.unregister(self._ops._basics.shutdown)
        source = self._ops.MPI_MXNET_LIB_CTYPES._name
        folder = tempfile.mkdtemp(prefix="harness-horovod-")
        try:
            copy = shutil.copy(os.path.realpath(self._source or source), folder)
            self._source = self._source or os.path.realpath(source)
            fresh = ctypes.CDLL(copy, mode=os.RTLD_LOCAL | os.RTLD_NOW | os.RTLD_DEEPBIND)
        finally:
            with suppress(OSError):
                shutil.rmtree(folder)
        self._ops.MPI_MXNET_LIB_CTYPES = fresh
        self._ops._basics.MPI_LIB_CTYPES = fresh

    def _terminated(self) -> None:
        """An exception that nobody catches: the connecting thread's ends that thread, any other is as it was."""
        if not self._under_way:
            self._before()
        self._under_way -= 1
        self._thrown.set()
        self._libc.syscall(_EXIT_THREAD, 0)


def _connections() -> dict[int, int]:
    """The descriptors of this process that are connections over TCP, each with the number of its socket."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            descriptor = int(name)
            status = os.fstat(descriptor)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM:
                    one.getpeername()
                    found[descriptor] = status.st_ino
    return found
