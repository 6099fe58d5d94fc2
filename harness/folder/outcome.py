"""Writes how an attempt ended: `horovodrun` hides exit codes, and a process that was killed cannot say so.

`outcome.json` says how the job ended, `failures/rank-3.json` how a rank failed and where it was. An attempt that left
no outcome was killed. The files lie in the run's folder, once this attempt owns it, and in the folder in which a
supervisor waits for them. `attempts.jsonl` in the run's folder is the history: how each attempt began, and the outcome
of each but the last.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from harness.causes import Cause, outranks
from harness.folder.attempts import (
    ATTEMPTS,
    FAILURES,
    OUTCOME,
    AttemptStart,
    Outcome,
    RankFailure,
    read_outcome_file,
)
from harness.folder.files import append_line, write_object
from harness.folder.unread import RecordError
from harness.folder.world_changes import WorldChange

JOB_FOLDER = "HARNESS_JOB"  # the folder in which a supervisor waits for outcome.json and the ranks' process ids


class OutcomeFiles:
    """Writes this rank's part. A disk that refuses does not change how the job ends.

    Attributes:
        attempt: identifies this attempt among earlier ones.
    """

    def __init__(self, rank: int, attempt: str, environ: Mapping[str, str] = os.environ) -> None:
        """Write for a supervisor of this host, if the environment names its folder."""
        self.attempt = attempt
        self._rank = rank
        self._folders: list[Path] = []
        self._page: Callable[[], object] | None = None
        self._writing = threading.Lock()  # the guard's thread writes as well as the main one
        job = environ.get(JOB_FOLDER)
        if job and Path(job).is_dir():
            self._folders.append(Path(job))

    def announce(self) -> None:
        """Tell a supervisor which process this rank is, now that it handles signals, and that the job has not ended.

        A command may start several jobs one after another, and the outcome of the first is not that of the second.
        """
        for job in self._folders:
            if self._rank == 0:
                with suppress(OSError):
                    self._forget_earlier(job)
            with suppress(OSError):
                (job / f"rank-{self._rank}.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")

    def use_folder(self, folder: Path, start: AttemptStart, page: Callable[[], object] | None = None) -> AttemptStart:
        """Write into the run's folder from now on; rank 0 moves what earlier attempts left there into the history.

        Args:
            folder: of the run.
            start: how this attempt starts; its identifier and the time are added.
            page: writes the run's page from the files in its folder.

        Returns:
            The start with these.
        """
        own = replace(start, attempt=self.attempt, began_at=round(time.time(), 3))
        if self._rank == 0 and page is not None:
            self._page = page
        if self._rank == 0:
            earlier = read_outcome(folder)
            with suppress(OSError):
                _put_aside_unreadable(folder)
            with suppress(
                OSError
            ):  # first, for a full disk may refuse the rest: it would pass for this attempt's outcome
                (folder / OUTCOME).unlink(missing_ok=True)
            for record in (earlier, own):
                with suppress(OSError):
                    if record is not None:
                        append_line(folder / ATTEMPTS, record.to_json())
            shutil.rmtree(folder / FAILURES, ignore_errors=True)
        self._folders.append(folder)
        return own

    def continue_in(self, folder: Path, change: WorldChange, page: Callable[[], object] | None = None) -> None:
        """Write into the run's folder, which is this attempt's already, after a change of its workers.

        Args:
            folder: of the run.
            change: is recorded; the attempt's identifier is filled in.
            page: see `use_folder`.
        """
        if self._rank == 0:
            self._page = page
            with suppress(OSError):
                append_line(folder / ATTEMPTS, replace(change, attempt=self.attempt).to_json())
        self._folders.append(folder)

    def write(
        self,
        exit_code: int,
        cause: str,
        *,
        place: str | None = None,
        collective: str | None = None,
        stacks: str | None = None,
    ) -> None:
        """Write how this rank ended; if it ended well, only rank 0 does.

        Args:
            exit_code: of the job, as far as this rank can tell.
            cause: in words.
            place: what the rank was doing when it failed.
            collective: the last one that it called.
            stacks: of its threads.
        """
        own = Cause(cause, exit_code)
        record = Outcome(self.attempt, exit_code, cause, round(time.time(), 3))
        failure = RankFailure(
            self._rank, cause, self.attempt, exit_code, record.ended_at, place, collective, stacks
        ).to_json()
        for folder in self._folders:
            if exit_code not in (0, 75):
                failures = folder / FAILURES
                with self._writing, suppress(OSError):
                    failures.mkdir(parents=True, exist_ok=True)  # missing on a host that does not share rank 0's disk
                    write_object(failures / f"rank-{self._rank}.json", failure)
            with self._writing, suppress(OSError):
                if self._rank == 0:
                    recorded = self._recorded(folder)  # perhaps a weightier cause that this rank has not heard of
                    if recorded is None or not outranks(recorded, own):
                        write_object(folder / OUTCOME, record.to_json())
                elif exit_code != 0:  # rank 0 may be lost, or may not hear why this one leaves
                    self._forget_earlier(folder)
                    recorded = self._recorded(folder)
                    if recorded is not None and outranks(own, recorded):
                        (folder / OUTCOME).unlink(missing_ok=True)
                    _write_first(folder / OUTCOME, record, self._rank)

    def write_page(self, limit_s: float = 5.0) -> None:
        """On rank 0, write the run's page after its outcome, so that the page shows how it ended.

        A thread of its own writes it, and this method waits for that thread with a limit: the disk may be what has
        failed, and the main thread may hold a lock that the page needs.

        Args:
            limit_s: how long to wait; a page takes half a second.
        """
        is_recorded = any(self._recorded(folder) is not None for folder in self._folders)
        if self._page is None or not is_recorded:
            return
        thread = threading.Thread(target=_call_page, args=(self._page,), name="page", daemon=True)
        thread.start()
        thread.join(limit_s)

    def _recorded(self, folder: Path) -> Cause | None:
        """The cause that a rank of this attempt has recorded already."""
        with suppress(RecordError):
            found = read_outcome_file(folder)
            if found is not None and found.attempt == self.attempt:
                return Cause(found.cause, found.exit_code)
        return None

    def _forget_earlier(self, folder: Path) -> None:
        """Remove another attempt's outcome, and never this one's, which rank 0 may write at the same time.

        An outcome that cannot be read is another's, because this attempt's appears complete or not at all.
        """
        found = read_outcome(folder)
        if found is None:
            _put_aside_unreadable(folder)
        if found is not None and found.attempt != self.attempt:
            (folder / OUTCOME).unlink(missing_ok=True)


def read_outcome(folder: Path) -> Outcome | None:
    """The content of `outcome.json`; `None` if the last attempt left none, or if it is unreadable."""
    try:
        return read_outcome_file(folder)
    except RecordError:
        return None


def _call_page(page: Callable[[], object]) -> None:
    with suppress(Exception):  # the job has ended; `launch/report.py` can write the page later and say what is wrong
        page()


def _put_aside_unreadable(folder: Path) -> None:
    """Rename an unreadable outcome to the first free name."""
    try:
        read_outcome_file(folder)
    except RecordError:
        aside = folder / f"{OUTCOME}.unreadable"
        for number in count(1):
            if not os.path.lexists(aside):
                break
            aside = folder / f"{OUTCOME}.unreadable.{number}"
        (folder / OUTCOME).rename(aside)


def _write_first(path: Path, record: Outcome, rank: int) -> None:
    """Write unless another rank has; rank 0 overwrites it, where the disk is shared."""
    own = path.with_name(f".outcome.{rank}")
    write_object(own, record.to_json())
    try:
        with suppress(FileExistsError):
            os.link(own, path)
    finally:
        with suppress(OSError):
            own.unlink()
