"""How an attempt ended, in files: `horovodrun` hides exit codes, and who was killed cannot say so.

`outcome.json` tells how the job ended, `failures/rank-3.json` how a rank failed and where it was. An attempt that left
no outcome was killed. They lie in the run's folder, once this attempt owns it, and where a supervisor asked for them.
`attempts.jsonl` in the run's folder is the history: how each attempt began, and the outcome of each but the last.
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
from harness.folder.endings import ATTEMPTS, FAILURES, OUTCOME, AttemptBegun, Outcome, RankFailure, read_outcome_file
from harness.folder.files import append_line, write_object
from harness.folder.unread import RecordError

JOB_FOLDER = "HARNESS_JOB"  # the folder in which a supervisor waits for outcome.json and the ranks' process ids


class OutcomeFiles:
    """Writes this rank's part; a disk that refuses is no reason to end otherwise.

    Attributes:
        attempt: what tells this attempt from earlier ones.
    """

    def __init__(self, rank: int, attempt: str, environ: Mapping[str, str] = os.environ) -> None:
        """Look whether a supervisor of this host waits for what is written."""
        self.attempt = attempt
        self._rank = rank
        self._folders: list[Path] = []
        self._page: Callable[[], object] | None = None
        self._writing = threading.Lock()  # the guard's thread writes as well as the main one
        job = environ.get(JOB_FOLDER)
        if job and Path(job).is_dir():
            self._folders.append(Path(job))

    def announce(self) -> None:
        """Tell a supervisor which process plays the rank, now that it takes signals; and that this job has no end yet.

        A command may start several jobs one after another, and the outcome of the first is not the second's.
        """
        for job in self._folders:
            if self._rank == 0:
                with suppress(OSError):
                    self._forget_earlier(job)
            with suppress(OSError):
                (job / f"rank-{self._rank}.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")

    def use_folder(self, folder: Path, begun: AttemptBegun, page: Callable[[], object] | None = None) -> None:
        """Write into the run's folder from now on; what earlier attempts left there becomes history (rank 0).

        Args:
            folder: of the run.
            begun: how this attempt begins; which one it is and the clock are added.
            page: writes the run's page, from what is in its folder.
        """
        if self._rank == 0 and page is not None:
            self._page = page
        if self._rank == 0:
            earlier = read_outcome(folder)
            with suppress(OSError):
                _put_aside_unreadable(folder)
            with suppress(OSError):  # before what a full disk refuses: it would pass for this attempt's
                (folder / OUTCOME).unlink(missing_ok=True)
            own = replace(begun, attempt=self.attempt, began_at=round(time.time(), 3))
            for record in (earlier, own):
                with suppress(OSError):
                    if record is not None:
                        append_line(folder / ATTEMPTS, record.to_json())
            shutil.rmtree(folder / FAILURES, ignore_errors=True)
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
        """Write how this rank ended; of a good end only rank 0 tells.

        Args:
            exit_code: of the job, as far as this rank can tell.
            cause: in words.
            place: where the rank was when it failed.
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
                    failures.mkdir(parents=True, exist_ok=True)  # a host that does not share rank 0's disk has none
                    write_object(failures / f"rank-{self._rank}.json", failure)
            with self._writing, suppress(OSError):
                if self._rank == 0:
                    told = self._recorded(folder)  # perhaps a weightier cause that this rank has not heard of
                    if told is None or not outranks(told, own):
                        write_object(folder / OUTCOME, record.to_json())
                elif exit_code != 0:  # rank 0 may be lost, or not hear why this one leaves
                    self._forget_earlier(folder)
                    told = self._recorded(folder)
                    if told is not None and outranks(own, told):
                        (folder / OUTCOME).unlink(missing_ok=True)
                    _write_first(folder / OUTCOME, record, self._rank)

    def write_page(self, limit_s: float = 5.0) -> None:
        """On rank 0, write the page of a run that lost a rank, once its outcome is written.

        In a thread of its own, which is waited for so long and no longer: the disk may be what has failed, and the main
        thread may hold whatever the page needs.

        Args:
            limit_s: how long to wait; a page takes half a second.
        """
        own = any(
            (told := read_outcome(folder)) is not None and told.attempt == self.attempt for folder in self._folders
        )
        if self._page is None or not own:
            return
        thread = threading.Thread(target=_call_page, args=(self._page,), name="page", daemon=True)
        thread.start()
        thread.join(limit_s)

    def _recorded(self, folder: Path) -> Cause | None:
        """What a rank of this attempt has told already."""
        with suppress(RecordError):
            found = read_outcome_file(folder)
            if found is not None and found.attempt == self.attempt:
                return Cause(found.cause, found.exit_code)
        return None

    def _forget_earlier(self, folder: Path) -> None:
        """Remove another attempt's outcome, and never this one's, which rank 0 may write at the same time.

        One that cannot be read is another's: this one's is there whole or not at all.
        """
        found = read_outcome(folder)
        if found is None:
            _put_aside_unreadable(folder)
        if found is not None and found.attempt != self.attempt:
            (folder / OUTCOME).unlink(missing_ok=True)


def read_outcome(folder: Path) -> Outcome | None:
    """What `outcome.json` says; `None` if the last attempt left none, or none that can be read."""
    try:
        return read_outcome_file(folder)
    except RecordError:
        return None


def _call_page(page: Callable[[], object]) -> None:
    with suppress(Exception):  # the job has ended; `launch/report.py` writes the page later and says what is wrong
        page()


def _put_aside_unreadable(folder: Path) -> None:
    """Keep an outcome that cannot be read under another name, the first that is free."""
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
    """Write unless another rank has; rank 0 has the last word, where the disk is shared."""
    own = path.with_name(f".outcome.{rank}")
    write_object(own, record.to_json())
    try:
        with suppress(FileExistsError):
            os.link(own, path)
    finally:
        with suppress(OSError):
            own.unlink()
