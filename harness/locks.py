"""A lock on a file that one process holds at a time; the others learn which process that is.

The kernel releases it when the process ends, however it ends. The file must not be moved while it may be locked. Its
holder may remove it, so the name is checked again once the file is locked. Knows nothing about runs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from harness.files import open_regular

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_TRIES = 1000
_LOOKS = 10  # at the text of a holder that has just arrived
_LOOK_S = 0.01
_LONGEST = 4096


class HeldError(Exception):
    """Another process holds the lock.

    Attributes:
        owner: the holder's own text, if it is true; otherwise `another process`.
        note: an addition by the holder, for those who understand it.
    """

    def __init__(self, owner: str, note: str) -> None:
        """Store what is known about the holder."""
        super().__init__(owner)
        self.owner = owner
        self.note = note


class FileLock:
    """A lock on a file, which is created if it is missing.

    Attributes:
        path: of the file.
        is_real: whether the file system has locks; on one without, only a living process of this host keeps others out.
    """

    def __init__(self, path: Path) -> None:
        """Store the path; nothing is touched yet."""
        self.path = path
        self.is_real = True
        self._file: BinaryIO | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def acquire(self, who: str = "process", note: str = "") -> None:
        """Take the lock without waiting; does nothing if this object already holds it.

        Args:
            who: how this process describes itself to others.
            note: a word for those who understand it.

        Raises:
            HeldError: if another process, or another object of this one, holds it.
            OSError: if the file cannot be opened, or is not a regular file.
        """
        for _ in range(_TRIES):
            if self._file is not None:
                return
            file = _open(self.path)
            try:
                self._lock(file)
            except BaseException:
                file.close()
                raise
            if not _is_there(self.path, file):  # removed by its last holder, or moved, between open and lock
                file.close()
                continue
            with suppress(OSError):  # another user's file can be locked but not written
                os.ftruncate(file.fileno(), 0)
                os.pwrite(file.fileno(), f"{who} {os.getpid()} on {socket.gethostname()}\n{note}\n".encode(), 0)
            self._file = file
        if self._file is None:
            raise OSError(errno.EAGAIN, "changes faster than it can be locked", str(self.path))

    def release(self, remove: bool = False) -> None:
        """Release the lock.

        Args:
            remove: also remove the file.
        """
        file, self._file = self._file, None
        if file is None:
            return
        with suppress(OSError):
            os.ftruncate(file.fileno(), 0)  # its text is no longer true
        if remove and _is_there(self.path, file):
            with suppress(OSError):
                self.path.unlink()
        file.close()

    def _lock(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _holder(file) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self.is_real = False
            said = _said(file)
            if said is not None and said.is_true(file):
                raise HeldError(said.text, said.note) from None


def lock_of_name(path: Path) -> FileLock:
    """The lock of a folder's name, beside the folder: it stays in place when the folder is moved."""
    return FileLock(path.with_name(f".{path.name}.lock"))


def holder_of(path: Path) -> HeldError | None:
    """The holder of a file's lock; `None` if there is none, or no such file."""
    try:
        file = open_regular(path)
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(file)
        except OSError:
            return None
    return None


class _Said:
    """The text that a holder has written."""

    def __init__(self, text: str, pid: int, host: str, note: str) -> None:
        self.text, self.pid, self.host, self.note = text, pid, host, note

    def is_true(self, file: BinaryIO) -> bool:
        """Whether that process has the file open; assumed for one on another host, or of another user."""
        if self.host != socket.gethostname():
            return True
        own = os.fstat(file.fileno())
        try:
            with os.scandir(f"/proc/{self.pid}/fd") as entries:
                return any(_is_same(entry, own) for entry in entries)
        except PermissionError:
            return True
        except OSError:
            return False


def _is_same(entry: os.DirEntry[str], own: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(entry.stat(), own)
    return False


def _said(file: BinaryIO) -> _Said | None:
    with suppress(OSError, UnicodeDecodeError):
        lines = os.pread(file.fileno(), _LONGEST, 0).decode().split("\n")
        match = re.fullmatch(r"([a-z ]{1,40}) ([0-9]{1,10}) on ([\w.-]{1,255})", lines[0])
        if match is not None:
            return _Said(match[0], int(match[2]), match[3], lines[1] if len(lines) > 2 else "")
    return None


def _holder(file: BinaryIO) -> HeldError:
    for _ in range(_LOOKS):
        said = _said(file)
        if said is not None and said.is_true(file):
            return HeldError(said.text, said.note)
        time.sleep(_LOOK_S)
    return HeldError("another process", "")


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path, "a+b")
    except PermissionError:
        if not path.exists():
            raise
        return open_regular(path)  # another user's


def _is_there(path: Path, file: BinaryIO) -> bool:
    """Whether the name still refers to the file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file.fileno()))
    except OSError:
        return False
