"""A run's folder: which process may write there, and which files may be in it."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from harness.errors import ConfigError
from harness.files import TEMPORARY, special_entries
from harness.folder.attempts import ATTEMPTS, FAILURES, OUTCOME
from harness.folder.metrics import METRICS
from harness.folder.plans import CURVE, PLAN
from harness.folder.supervisor import refuse_other_supervisor, report_to_supervisor
from harness.locks import FileLock, HeldError, holder_of, lock_of_name

SMOKE = ".smoke"  # marks a folder that the next smoke test may remove
_BEFORE_A_RUN = (
    SMOKE,
    "finder",
    ".lock",
    ATTEMPTS,
    OUTCOME,
    FAILURES,
    "report.html",
    TEMPORARY,
)  # there without an update
_OWN = re.compile(
    r"config\.yaml|plan\.(json|csv|png)|metrics\.jsonl.*|attempts\.jsonl.*|outcome\.json.*|report\.html|"
    r"final\.params|tensorboard|checkpoints|failures|profile|finder.*|\..*"
)
_OWN_FILES = (
    *("config.yaml", PLAN, CURVE, "plan.png", METRICS, ATTEMPTS, OUTCOME, "report.html", "final.params", ".lock"),
    *("finder/result.json", "finder/report.html", "checkpoints/best.json", "profile/trace.json", "profile/table.txt"),
)
_OWN_FOLDERS = ("tensorboard", "checkpoints", "checkpoints/aside", FAILURES, "finder", "profile")
_OWN_SETS = re.compile(r"iteration-.*|best\.json|aside|\..*")
_SHOWN = 5
_LOOK_S = 0.05
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class RunFolder:
    """The folder of one run, which one process at a time may write to.

    Two locks keep other processes out, and both end with the process, however it ends. `.NAME.lock` next to the folder
    belongs to the name: it stays when `--overwrite` moves the folder aside. `.lock` in the folder belongs to the
    folder, whatever its name is, and earlier versions know it.

    Attributes:
        path: of the folder.
        remarks: what the user should know about its locks.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is touched yet."""
        self.path = path
        self.remarks: list[str] = []
        self._name = lock_of_name(path)
        self._inner = FileLock(path / ".lock")

    def reserve(self) -> None:
        """Lock the name until this process ends, whether the folder exists or not.

        Raises:
            ConfigError: if another process writes there, a supervisor of another job holds it, it is a link, or its
                parent folder is not writable.
        """
        self._refuse_link()
        if self._name.is_held:
            return
        try:
            self._name.acquire()
        except HeldError as error:
            raise self._in_use(error.owner) from None
        except OSError as error:
            if error.errno not in _READ_ONLY or not self.path.is_dir():
                raise self._cannot("be made", error) from None
            # nobody can move a folder whose parent is not writable, so the lock in it is enough
        try:
            refuse_other_supervisor(self.path)
        except ConfigError:
            self.close()
            raise
        if not self._name.is_real:
            self.remarks.append(
                f"the file system of {self.path.parent} has no locks: make sure that no other host trains in "
                f"{self.path}"
            )

    def lock(self) -> None:
        """Lock the existing folder, too.

        Raises:
            ConfigError: as `reserve`, or if it holds a link or a special file, or is not writable.
        """
        held = self._name.is_held
        self.reserve()
        if self._inner.is_held:
            return
        try:
            refuse_special_files(self.path)
            self._lock_inner()
        except ConfigError:
            if not held:
                self.close()
            raise
        report_to_supervisor(self.path)

    def lock_after_another(self, wait_s: float) -> None:
        """Lock the existing folder in the place of a process that may still be ending: wait for it for so many seconds.

        Raises:
            ConfigError: as `lock`.
        """
        deadline_s = time.monotonic() + wait_s
        locks = [] if self._name.is_held else [self._name, self._inner]
        while any(holder_of(lock.path) for lock in locks) and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)
        self.lock()

    def open(self) -> None:
        """Make the folder if it does not exist, and lock it.

        Raises:
            ConfigError: as `lock`.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.reserve()
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise self._cannot("be made", error) from None
        self.lock()

    def claim(self, overwrite: bool) -> Path | None:
        """Make the folder for a new run; with `overwrite`, move an existing one aside.

        Returns:
            Where that was moved to.

        Raises:
            ConfigError: if it exists, is in use, is a link, or cannot be made.
        """
        held = self._name.is_held
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.reserve()
            moved = self._make_room(overwrite)
            self.path.mkdir(exist_ok=True)
            self.lock()
        except (OSError, ConfigError) as error:
            if not held:
                self.close()
            raise self._cannot("be made", error) if isinstance(error, OSError) else error from None
        return moved

    def close(self) -> None:
        """Release the locks."""
        self._inner.release()
        self._name.release(remove=True)

    def _make_room(self, overwrite: bool) -> Path | None:
        if not os.path.lexists(self.path):
            return None
        if self.path.is_dir() and all(path.name.startswith(_BEFORE_A_RUN) for path in self.path.iterdir()):
            return None  # left by a finder, not by a run
        if not overwrite:
            raise ConfigError(
                f"{self.path} already holds a run; resume it with --resume auto, move it aside with --overwrite, or "
                "choose another --set name=..."
            )
        return self._move_aside()

    def _lock_inner(self) -> None:
        try:
            self._inner.acquire()
        except HeldError as error:
            raise self._in_use(error.owner) from None
        except OSError as error:
            raise self._cannot("be written", error) from None

    def _move_aside(self) -> Path:
        """Give the folder the first free name of `NAME.1`, `NAME.2`, ...; a run of that name may just be beginning."""
        if self.path.is_dir():
            self._lock_inner()  # jobs of earlier versions hold only this lock
        for number in range(1, 1_000_000):
            target = self.path.with_name(f"{self.path.name}.{number}")
            if os.path.lexists(target):
                continue
            lock = lock_of_name(target)
            try:
                lock.acquire()
            except HeldError:
                continue
            try:
                if not os.path.lexists(target):
                    moved = self.path.rename(target)
                    self._inner.release()
                    return moved
            finally:
                lock.release(remove=True)
        raise OSError(errno.EEXIST, "a million runs of this name exist")

    def _refuse_link(self) -> None:
        if self.path.is_symlink():
            raise ConfigError(
                f"{self.path}: is a symbolic link, which is not followed; remove it, choose another --set name=..., or "
                "set output to the folder in which runs are to lie (output may be a link)"
            )

    def _in_use(self, owner: str) -> ConfigError:
        return ConfigError(
            f"{self.path}: {owner} is writing there; wait until it has ended, or choose another --set name=..."
        )

    def _cannot(self, what: str, error: OSError) -> ConfigError:
        name = "" if error.filename is None else Path(error.filename).name
        where = self.path if name in ("", ".lock") or error.errno != errno.ELOOP else error.filename
        return ConfigError(
            f"{where}: cannot {what} ({error.strerror or error}); set output to a folder that can be written"
        )


def refuse_special_files(folder: Path) -> None:
    """Make sure that what a run writes are files and folders of its own, each what it should be, and lead nowhere else.

    Names that a run does not use are the user's: a link among them is not looked at.

    Raises:
        ConfigError: naming what was found.
    """

    def is_own(path: Path) -> bool:
        names = path.relative_to(folder).parts
        if len(names) == 2 and names[0] == "checkpoints":
            return _OWN_SETS.fullmatch(names[1]) is not None
        return len(names) > 1 or _OWN.fullmatch(names[0]) is not None

    try:
        found = [f"{path.relative_to(folder)} is {what}" for path, what in special_entries(folder, is_own)]
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be read ({error.strerror}); set output to a folder that can be"
        ) from None
    _refuse_found(
        folder, found, "in a run's folder only files and folders are written to, and no link is followed. Remove it"
    )
    _refuse_found(folder, _misplaced(folder), "a run writes under that name. Remove it, or give it another name")


def _misplaced(folder: Path) -> list[str]:
    """Folders under the names of a run's files, and the reverse: where a write would fail, perhaps only at the end."""
    found = []
    for names, kind, other in ((_OWN_FILES, "file", "folder"), (_OWN_FOLDERS, "folder", "file")):
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):  # a folder that is none is found by its own name
                if stat.S_ISDIR(os.lstat(folder / name).st_mode) != (kind == "folder"):
                    found.append(f"{name} is a {other}, where a {kind} belongs")
    return found


def _refuse_found(folder: Path, found: Sequence[str], advice: str) -> None:
    if found:
        more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ConfigError(
            f"{folder}: {'; '.join(sorted(found)[:_SHOWN])}{more}; {advice}, or move the folder aside with --overwrite"
        )
