"""Who may use a run between two attempts: a supervisor that restarts it holds a lock, and its ranks know its token.

A supervisor does not know which run its command trains. Rank 0 tells it, as soon as the run's folder is locked, and
from then on the supervisor holds a lock next to the folder, through the pauses between attempts too. Without a
supervisor, nothing here has any effect.
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

_RUN = "run"  # in the job's folder: the path of the run's folder, by rank 0
_TOKEN = "supervisor"  # in the job's folder: the supervisor's token
_MAX_BYTES = 10_000


def supervisor_lock(folder: Path) -> FileLock:
    """The lock that the supervisor of a run holds."""
    return FileLock(folder.with_name(f".{folder.name}.supervised"))


def write_token(job: Path, token: str) -> None:
    """Leave the supervisor's token for the ranks of its job."""
    replace_file(job / _TOKEN, token)


def supervised_folder(job: Path) -> Path | None:
    """The run's folder that rank 0 has reported, if it has."""
    with suppress(OSError, UnicodeDecodeError, ValueError):
        text = read_regular(job / _RUN, _MAX_BYTES).decode()
        return Path(text) if text and "\0" not in text else None
    return None


def report_to_supervisor(folder: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Tell the supervisor of this job, if there is one, which run it trains."""
    job = _job(environ)
    if job is not None:
        with suppress(OSError):
            replace_file(job / _RUN, str(folder.absolute()))


def refuse_other_supervisor(folder: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a run that the supervisor of another job holds; it may only be waiting to restart it.

    Raises:
        ConfigError: naming that supervisor.
    """
    holder = holder_of(supervisor_lock(folder).path)
    if holder is None or (holder.note and holder.note == _own_token(environ)):
        return
    raise ConfigError(
        f"{folder}: {holder.owner} keeps this run and restarts it when necessary; wait until it has ended, end it "
        "(SIGTERM), or choose another --set name=..."
    )


def _own_token(environ: Mapping[str, str]) -> str:
    job = _job(environ)
    if job is not None:
        with suppress(OSError, UnicodeDecodeError):
            return read_regular(job / _TOKEN, _MAX_BYTES).decode()
    return ""


def _job(environ: Mapping[str, str]) -> Path | None:
    job = environ.get(JOB_FOLDER)
    return Path(job) if job and Path(job).is_dir() else None
