"""Whose run it is between two attempts: a supervisor that starts it again keeps it, and its ranks know it by a word.

The supervisor does not know which run its command trains. Rank 0 tells it, once the run's folder is locked, and from
then on the supervisor holds a lock beside the folder, through its pauses too. Without one nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from harness.errors import ConfigError
from harness.files import read_regular, replace_file
from harness.folder.outcome import JOB_FOLDER
from harness.locks import FileLock, holder_of

_KEPT = "run"  # in it: the folder of the run that the job trains
_WORD = "supervisor"  # in it: the supervisor's word
_LONGEST = 10_000


def lock_of_supervisor(folder: Path) -> FileLock:
    """The lock that the supervisor of a run holds."""
    return FileLock(folder.with_name(f".{folder.name}.supervised"))


def introduce_supervisor(job: Path, word: str) -> None:
    """Leave a supervisor's word for the ranks of its job."""
    replace_file(job / _WORD, word)


def told_folder(job: Path) -> Path | None:
    """The run's folder that rank 0 has told of, if it has."""
    with suppress(OSError, UnicodeDecodeError, ValueError):
        text = read_regular(job / _KEPT, _LONGEST).decode()
        return Path(text) if text and "\0" not in text else None
    return None


def tell_supervisor(folder: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Tell the supervisor of this job, if there is one, which run it keeps."""
    job = _job(environ)
    if job is not None:
        with suppress(OSError):
            replace_file(job / _KEPT, str(folder.absolute()))


def refuse_other_supervisor(folder: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a run that the supervisor of another job keeps, which may only be waiting to start it again.

    Raises:
        ConfigError: naming that supervisor.
    """
    holder = holder_of(lock_of_supervisor(folder).path)
    if holder is None or (holder.note and holder.note == _own_word(environ)):
        return
    raise ConfigError(
        f"{folder}: {holder.owner} keeps this run and starts it again when it has to; wait until it has ended, end it "
        "(SIGTERM), or choose another --set name=..."
    )


def _own_word(environ: Mapping[str, str]) -> str:
    job = _job(environ)
    if job is not None:
        with suppress(OSError, UnicodeDecodeError):
            return read_regular(job / _WORD, _LONGEST).decode()
    return ""


def _job(environ: Mapping[str, str]) -> Path | None:
    job = environ.get(JOB_FOLDER)
    return Path(job) if job and Path(job).is_dir() else None
