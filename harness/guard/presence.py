"""Which ranks of a job have come, before they have any connection: each leaves a note where the others look.

Ranks of one host that `mpirun` or `srun` started write files into a folder that is named after the launcher's process
on that host; those of `horovodrun` tell the launcher's own key-value server, on any host. A note says which process
it is and where it is; whether that process lives is asked of the kernel.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.causes import CODES, Cause
from harness.comm import Launch
from harness.processes import began, parent, state

_LAUNCHERS = frozenset(
    ("hydra_pmi_proxy", "hydra_bstrap_pr", "orted", "prted", "slurmstepd", "mpirun", "mpiexec", "mpiexec.hydra")
)
_LONGEST = 10_000
_ANSWER_S = 2.0  # in which the launcher's server answers
_SCOPE = "harness"


@dataclass(frozen=True)
class Note:
    """What a rank has told of itself.

    Attributes:
        rank: which one.
        pid: its process.
        began: when that began, in the kernel's ticks, so that no other process is taken for it.
        host: where it runs, as the kernel of that host calls itself.
        place: where it is, in words.
    """

    rank: int
    pid: int
    began: int
    host: str
    place: str

    @classmethod
    def of_this_process(cls, rank: int, place: str) -> Note:
        """A note on the process that asks."""
        return cls(rank, os.getpid(), began(os.getpid()) or 0, _host(), place)

    def state(self) -> str | None:
        """The state of its process, such as `S`, `T` (stopped) or `D`; `None` if it has ended.

        That of a process of another host is not to be had: it counts as `?`.
        """
        if self.host != _host():
            return "?"
        return state(self.pid) if began(self.pid) == self.began else None


class Presence(Protocol):
    """Where notes are left and found."""

    poll_s: float  # how often it may be asked
    sees_all_hosts: bool

    def tell(self, note: Note) -> None:
        """Leave a note in place of an earlier one; what cannot be told is not."""

    def look(self) -> dict[int, Note] | None:
        """The notes of all ranks that have left one; `None` if nobody can tell."""

    def end(self, cause: Cause) -> bool:
        """Tell all why the start has failed; whether this rank was the first to say so."""

    def ended(self) -> Cause | None:
        """Why the start has failed, if a rank has said so."""

    def withdraw(self, rank: int) -> None:
        """Take back the note of a rank that needs no note any more."""

    def clear(self) -> None:
        """Leave nothing of this job behind."""


class Files:
    """Notes in a folder of this user's, on this host."""

    poll_s = 0.25
    sees_all_hosts = False

    def __init__(self, folder: Path) -> None:
        """Make the folder.

        Raises:
            OSError: if it cannot be made, or is somebody else's.
        """
        _make_own(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder

    def tell(self, note: Note) -> None:
        """See `Presence`."""
        with suppress(OSError):
            temporary = self._folder / f".rank-{note.rank}"
            temporary.write_text(json.dumps(asdict(note)), encoding="utf-8")
            temporary.replace(self._folder / f"rank-{note.rank}")

    def look(self) -> dict[int, Note] | None:
        """See `Presence`."""
        try:
            paths = sorted(self._folder.glob("rank-*"))
        except OSError:
            return None
        return {note.rank: note for path in paths for note in _read(path)}

    def end(self, cause: Cause) -> bool:
        """See `Presence`."""
        own = self._folder / f".ended-{os.getpid()}"
        try:
            own.write_bytes(_encode(cause))
            os.link(own, self._folder / "ended")
        except FileExistsError:
            return False
        except OSError:
            return True  # nobody can be told, but the terminal
        finally:
            with suppress(OSError):
                own.unlink(missing_ok=True)
        return True

    def ended(self) -> Cause | None:
        """See `Presence`."""
        with suppress(OSError), (self._folder / "ended").open("rb") as file:
            return _decode(file.read(_LONGEST))
        return None

    def withdraw(self, rank: int) -> None:
        """See `Presence`."""
        with suppress(OSError):
            (self._folder / f"rank-{rank}").unlink(missing_ok=True)
            self._folder.rmdir()  # by the last one

    def clear(self) -> None:
        """See `Presence`."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Store:
    """Notes at horovodrun's own server, which ends with the job."""

    sees_all_hosts = True

    def __init__(self, address: str, port: int, size: int) -> None:
        """Nothing is asked yet."""
        self._address, self._port, self._size = address, port, size
        self.poll_s = max(1.0, size / 64)  # all ranks ask the one server

    def tell(self, note: Note) -> None:
        """See `Presence`."""
        self._ask("PUT", f"rank-{note.rank}", json.dumps(asdict(note)).encode())

    def look(self) -> dict[int, Note] | None:
        """See `Presence`."""
        found = {}
        for rank in range(self._size):
            answer = self._ask("GET", f"rank-{rank}")
            if answer is None:
                return None
            found.update({note.rank: note for note in _parse(answer)})
        return found

    def end(self, cause: Cause) -> bool:
        """See `Presence`; two ranks at the same moment may both be told that they were the first."""
        if self.ended() is not None:
            return False
        self._ask("PUT", "ended", _encode(cause))
        return True

    def ended(self) -> Cause | None:
        """See `Presence`."""
        return _decode(self._ask("GET", "ended") or b"")

    def withdraw(self, rank: int) -> None:
        """See `Presence`."""
        self._ask("DELETE", f"rank-{rank}")

    def clear(self) -> None:
        """See `Presence`; the server is about to end."""

    def _ask(self, method: str, key: str, body: bytes | None = None) -> bytes | None:
        """The answer, empty where there is none; `None` if nobody answers."""
        connection = http.client.HTTPConnection(self._address, self._port, timeout=_ANSWER_S)
        try:
            connection.request(method, f"/{_SCOPE}/{key}", body)
            answer = connection.getresponse()
            return answer.read(_LONGEST) if answer.status == 200 else b""
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()


class Nowhere:
    """One process alone, or ranks that have no place in common."""

    poll_s = 1.0
    sees_all_hosts = False

    def tell(self, note: Note) -> None:
        """See `Presence`."""

    def look(self) -> dict[int, Note] | None:
        """See `Presence`."""
        return None

    def end(self, cause: Cause) -> bool:
        """See `Presence`."""
        return True

    def ended(self) -> Cause | None:
        """See `Presence`."""
        return None

    def withdraw(self, rank: int) -> None:
        """See `Presence`."""

    def clear(self) -> None:
        """See `Presence`."""


def open_presence(launch: Launch, environ: Mapping[str, str] = os.environ) -> Presence:
    """Where the ranks of a job leave notes for each other; never fails."""
    if launch.size == 1:
        return Nowhere()
    address, port = environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR"), environ.get("HOROVOD_GLOO_RENDEZVOUS_PORT", "")
    if launch.launcher == "horovodrun":
        return Store(address, int(port), launch.size) if address and port.isdigit() else Nowhere()
    base = Path(tempfile.gettempdir()) / f"harness-{os.getuid()}"
    try:
        files = Files(base / _job_key())
    except OSError:
        return Nowhere()
    _sweep(base)
    return files


def _job_key() -> str:
    """The launcher's process on this host, which all ranks of the job on this host have above them."""
    pid = os.getppid()
    for ancestor in _ancestors():
        if _name(ancestor) in _LAUNCHERS:
            pid = ancestor
            break
    return f"{_namespace()}-{pid}-{began(pid) or 0}"


def _ancestors() -> Iterator[int]:
    pid = parent(os.getpid())
    while pid:
        yield pid
        pid = parent(pid)


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _namespace() -> str:
    """What tells the process ids of this host (or container) from those of others that share the folder."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot[:8]}.{os.stat('/proc/self/ns/pid').st_ino}"
    return "host"


def _host() -> str:
    return f"{os.uname().nodename} {_namespace()}"


def _make_own(folder: Path) -> None:
    """Make a folder that nobody else can write to; one that is there must be this user's, and no link."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise OSError(f"{folder} is not this user's own")


def _sweep(base: Path) -> None:
    """Remove what jobs have left whose every process was killed at once."""
    with suppress(OSError):
        for folder in base.iterdir():
            namespace, _, rest = folder.name.partition("-")
            if namespace == _namespace():
                pid, _, ticks = rest.partition("-")
                if pid.isdigit() and str(began(int(pid)) or 0) != ticks:
                    shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Iterator[Note]:
    with suppress(OSError), path.open("rb") as file:
        yield from _parse(file.read(_LONGEST))


def _parse(text: bytes) -> Iterator[Note]:
    """The note, if it is one."""
    try:
        found: Any = json.loads(text)
        note = Note(**found)
    except (ValueError, TypeError, RecursionError):
        return
    kinds = {"rank": int, "pid": int, "began": int}
    if all(type(value) is kinds.get(key, str) for key, value in asdict(note).items()) and 0 < note.pid < 1 << 31:
        yield note


def _encode(cause: Cause) -> bytes:
    return json.dumps([cause.exit_code, cause.text]).encode()


def _decode(text: bytes) -> Cause | None:
    with suppress(ValueError, TypeError, RecursionError):
        code, words = json.loads(text)
        if code in CODES and isinstance(words, str):
            return Cause(words, code)
    return None
