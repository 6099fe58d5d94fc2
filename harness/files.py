"""Files in a folder that others may write to as well: opened only if they are regular files, never through a link.

A link in a run's folder points elsewhere, opening a FIFO may block forever, and a device may do anything.
Anything but a regular file is therefore refused with an `OSError` whose `strerror` says what was found, so
code that handles a full disk handles it too. Knows nothing about runs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

TEMPORARY = ".writing-"
_FLAGS = {
    "rb": os.O_RDONLY,
    "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    "r+b": os.O_RDWR,
    "a+b": os.O_RDWR | os.O_APPEND | os.O_CREAT,
    "xb": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
}
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: Path, mode: str = "rb") -> FileIO:
    """Open a regular file, unbuffered; never waits for the other end of a FIFO.

    Folders on the path may be links; `special_entries` finds those.

    Args:
        path: of the file.
        mode: `rb`, `r+b` (must exist), `ab`, `a+b` (created if missing), or `xb` (must not exist).

    Raises:
        OSError: if it cannot be opened, or is a link, a FIFO, a socket, a device, a folder, or another user's file
            under a second name.
    """
    _refuse_special(path, _status(path))
    descriptor = os.open(path, _FLAGS[mode] | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    try:
        _refuse_special(path, os.fstat(descriptor))
        return FileIO(descriptor, "wb" if mode == "xb" else mode)
    except BaseException:
        os.close(descriptor)
        raise


def must_be_regular(path: Path) -> None:
    """Refuse what `open_regular` refuses, for files that a library opens.

    Raises:
        OSError: if it is not a regular file.
    """
    _refuse_special(path, os.lstat(path))


def read_regular(path: Path, at_most: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file.
        at_most: bytes; a longer file is refused without reading it.

    Raises:
        OSError: as in `open_regular`, or with `EFBIG`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if at_most is not None and size > at_most:
            raise OSError(errno.EFBIG, f"has {size} bytes; at most {at_most} are read", str(path))
        return b"".join(iter(lambda: file.read(1 << 20), b"")) if size else file.read()


def replace_file(path: Path, content: bytes | str, *, force: bool = False) -> None:
    """Write a file completely or not at all; replaces only a regular file.

    Args:
        path: of the file, in an existing folder.
        content: text is written as UTF-8.
        force: flush the file and its name to disk.

    Raises:
        OSError: if it cannot be written.
    """
    _refuse_special(path, _status(path))
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        with open_regular(temporary, "xb") as file:
            left = memoryview(content.encode() if isinstance(content, str) else content)
            while left:
                left = left[file.write(left) :]
            if force:
                os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if force:
        force_folder(path.parent)


def move_aside(path: Path) -> Path:
    """Give a file or folder the first free name of `NAME.1`, `NAME.2`, ...

    Returns:
        Its new path.

    Raises:
        OSError: if it cannot be renamed.
        ValueError: if it is the root of the file system.
    """
    names = (path.with_name(f"{path.name}.{number}") for number in range(1, 1_000_000))
    return path.rename(next(name for name in names if not os.path.lexists(name)))


def force_folder(path: Path) -> None:
    """Flush the names in a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder, unless it exists as a real folder.

    Raises:
        OSError: if it cannot be created, or is a link or anything else.
    """
    with suppress(FileExistsError):
        path.mkdir()
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise _not(path, status, "a folder")


def special_entries(folder: Path, is_own: Callable[[Path], bool]) -> Iterator[tuple[Path, str]]:
    """Everything in a folder, at any depth, that is neither a file nor a folder, and what it is. Follows no links.

    Args:
        folder: a real folder.
        is_own: whether to check an entry, and everything below it.

    Raises:
        OSError: if a folder cannot be read.
    """
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                if not is_own(path):
                    continue
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)
                elif (found := _special(status)) is not None:
                    yield path, found


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _special(status: os.stat_result) -> str | None:
    """What an entry is, if it is not a regular file of its own."""
    if not stat.S_ISREG(status.st_mode):
        return _KINDS.get(stat.S_IFMT(status.st_mode), "not a file")
    if status.st_nlink > 1 and status.st_uid != os.geteuid():
        return "a second name of another user's file"
    return None


def _refuse_special(path: Path, status: os.stat_result | None) -> None:
    if status is not None and _special(status) is not None:
        raise _not(path, status, "a regular file")


def _not(path: Path, status: os.stat_result, wanted: str) -> OSError:
    if stat.S_ISDIR(status.st_mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return OSError(errno.ELOOP, f"is {_special(status) or 'a file'}, not {wanted}", str(path))
