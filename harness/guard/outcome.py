"""How an attempt ended, in files: `horovodrun` hides exit codes, and who was killed cannot say so.

`outcome.json` tells how the job ended, `failures/rank-3.json` how a rank failed and where it was. An attempt that left
no outcome was killed. They lie in the run's folder, once this attempt owns it, and where a supervisor asked for them.
`attempts.jsonl` in the run's folder is the history: how each attempt began, and the outcome of each but the last.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

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
        job = environ.get(JOB_FOLDER)
        if job and Path(job).is_dir():
            self._folders.append(Path(job))

    def announce(self) -> None:
        """Tell a supervisor which process plays the rank, now that it takes signals; and that this job has no end yet.

        A command may start several jobs one after another, and the outcome of the first is not the second's.
        """
        for job in self._folders:
            with suppress(OSError):
                if self._rank == 0:
                    self._forget_earlier(job)
                (job / f"rank-{self._rank}.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")

    def settle(self, folder: Path, begun: Mapping[str, Any]) -> None:
        """Write into the run's folder from now on; what earlier attempts left there becomes history (rank 0).

        Args:
            folder: of the run.
            begun: how this attempt begins.
        """
        if self._rank == 0:
            with suppress(OSError):
                earlier = read_outcome(folder)
                own = {"attempt": self.attempt, "began_at": round(time.time(), 3), **begun}
                with (folder / "attempts.jsonl").open("a", encoding="utf-8") as history:
                    history.writelines(f"{json.dumps(line)}\n" for line in (earlier, own) if line is not None)
                (folder / "outcome.json").unlink(missing_ok=True)
                shutil.rmtree(folder / "failures", ignore_errors=True)
        self._folders.append(folder)

    def write(self, exit_code: int, cause: str, **more: Any) -> None:
        """Write how this rank ended; of a good end only rank 0 tells.

        Args:
            exit_code: of the job, as far as this rank can tell.
            cause: in words.
            more: what else is known of a failure, such as where the rank was.
        """
        record = {"attempt": self.attempt, "exit_code": exit_code, "cause": cause, "ended_at": round(time.time(), 3)}
        for folder in self._folders:
            with suppress(OSError):
                if exit_code not in (0, 75):
                    failures = folder / "failures"
                    failures.mkdir(parents=True, exist_ok=True)  # a host that does not share rank 0's disk has none
                    _write(failures / f"rank-{self._rank}.json", {"rank": self._rank, **record, **more})
                if self._rank == 0:
                    _write(folder / "outcome.json", record)
                elif exit_code == 7:  # rank 0 may be the one that is lost
                    self._forget_earlier(folder)
                    _write_first(folder / "outcome.json", record, self._rank)

    def _forget_earlier(self, folder: Path) -> None:
        """Remove another attempt's outcome, and never this one's, which rank 0 may write at the same time."""
        found = read_outcome(folder)
        if found is not None and found.get("attempt") != self.attempt:
            (folder / "outcome.json").unlink(missing_ok=True)


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """What `outcome.json` says; `None` if the last attempt left none."""
    try:
        found: dict[str, Any] = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return None


def _write(path: Path, record: Mapping[str, Any], suffix: str = ".new") -> Path:
    """Whole or not at all."""
    temporary = path.with_name(path.name + suffix)
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def _write_first(path: Path, record: Mapping[str, Any], rank: int) -> None:
    """Write unless another rank has; rank 0 has the last word, where the disk is shared."""
    own = _write(path.with_name(f".outcome.{rank}"), record)
    try:
        with suppress(FileExistsError):
            os.link(own, path)
    finally:
        own.unlink()
