"""The registry of ranks that `mpirun` or `srun` started: files in a folder of this user, on this host.

All ranks of a job on a host have the launcher's process above them, so its id and start time name the folder.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

from harness.causes import Cause
from harness.guard.registry import MAX_BYTES, Entry, Registry, decode_cause, encode_cause
from harness.parsing import whole_number
from harness.processes import began, parent, pid_namespace

_LAUNCHERS = frozenset(
    ("hydra_pmi_proxy", "hydra_bstrap_pr", "orted", "prted", "slurmstepd", "mpirun", "mpiexec", "mpiexec.hydra")
)


class FileRegistry(Registry):
    """Entries as files; the folder is removed by the last rank that unregisters."""

    poll_s = 0.25
    sees_all_hosts = False

    def __init__(self, folder: Path) -> None:
        """Make the folder.

        Raises:
            OSError: if it cannot be made, or another user owns it.
        """
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder

    @override
    def register(self, entry: Entry) -> None:
        with suppress(OSError):
            temporary = self._folder / f".rank-{entry.rank}"
            temporary.write_bytes(entry.encode())
            temporary.replace(self._folder / f"rank-{entry.rank}")

    @override
    def entries(self) -> dict[int, Entry] | None:
        try:
            paths = sorted(self._folder.glob("rank-*"))
        except OSError:
            return None
        found = [Entry.decode(_read(path)) for path in paths]
        return {entry.rank: entry for entry in found if entry is not None}

    @override
    def unregister(self, rank: int) -> None:
        with suppress(OSError):
            (self._folder / f"rank-{rank}").unlink(missing_ok=True)
            self._folder.rmdir()  # succeeds for the last one

    @override
    def fail(self, cause: Cause) -> bool:
        own = self._folder / f".failure-{os.getpid()}"
        try:
            own.write_bytes(encode_cause(cause))
            os.link(own, self._folder / "failure")  # of several ranks, one succeeds
        except FileExistsError:
            return False
        except OSError:
            return True  # nobody can be told, except on the terminal
        finally:
            with suppress(OSError):
                own.unlink(missing_ok=True)
        return True

    @override
    def failure(self) -> Cause | None:
        return decode_cause(_read(self._folder / "failure"))

    @override
    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def open_file_registry() -> FileRegistry | None:
    """The registry of this job on this host; `None` if the temporary folder cannot be used."""
    base = Path(tempfile.gettempdir()) / f"harness-{os.getuid()}"
    try:
        registry = FileRegistry(base / _job_key())
    except OSError:
        return None
    _remove_leftovers(base)
    return registry


def _job_key() -> str:
    """The launcher's process on this host, which all ranks of the job on this host have above them."""
    pid = os.getppid()
    for ancestor in _ancestors():
        if _name_of(ancestor) in _LAUNCHERS:
            pid = ancestor
            break
    return f"{pid_namespace()}-{pid}-{began(pid) or 0}"


def _ancestors() -> Iterator[int]:
    pid = parent(os.getpid())
    while pid:
        yield pid
        pid = parent(pid)


def _name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _make_private(folder: Path) -> None:
    """Make a folder that nobody else can write to; an existing one must be this user's own, and not a link.

    The temporary folder is open to all users of the host, and another one may have planted something there.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise OSError(f"{folder} is not this user's own")


def _remove_leftovers(base: Path) -> None:
    """Remove the folders of jobs whose processes were all killed at once."""
    with suppress(OSError):
        for folder in base.iterdir():
            namespace, _, rest = folder.name.partition("-")
            if namespace == pid_namespace():
                text, _, ticks = rest.partition("-")
                pid = whole_number(text)
                if pid is not None and str(began(pid) or 0) != ticks:
                    shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> bytes:
    with suppress(OSError), path.open("rb") as file:
        return file.read(MAX_BYTES)
    return b""
