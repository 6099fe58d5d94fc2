"""Downloads the files of a public data set and checks their digests.

All ranks may call this at the same time. Each writes its own temporary file beside the target and renames it when its
digest is correct, so a reader sees a complete file or none; the price is that ranks that start together download twice.
"""

from __future__ import annotations

import importlib
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from harness.data.request import DataRequest


@dataclass(frozen=True)
class Remote:
    """Where to download files.

    Attributes:
        url: the folder, with a slash at the end.
        digests: the digest of each file name as `algorithm:hex`.
    """

    url: str
    digests: Mapping[str, str]

    def only(self, names: Sequence[str]) -> Remote:
        """The same source with only these files."""
        return replace(self, digests={name: self.digests[name] for name in names})


def download(remote: Remote, folder: Path) -> None:
    """Download the files of `remote` to `folder`; existing files with the correct digest are kept.

    Raises:
        DataError: if a file cannot be downloaded or written, or has the wrong digest.
    """
    try:
        pooch = importlib.import_module("pooch")  # on demand: it is slow to import
    except ImportError as error:
        raise DataError("data.download: needs the package pooch; `pip install pooch`, or download the files") from error
    for name, digest in remote.digests.items():
        try:
            pooch.retrieve(remote.url + name, digest, fname=name, path=folder)
        except (OSError, ValueError) as error:  # no network, no space, no permission to write; wrong digest
            reason = getattr(error, "strerror", None) or str(error).rpartition("Caused by ")[2].strip("() ")
            raise DataError(
                f"data.download: {remote.url}{name} could not be downloaded to {folder} ({reason}); download it where "
                f"there is a network (its digest is {digest}), and put it there or into the folder that data.root names"
            ) from error


def extract(archive: Path, members: Sequence[str], folder: Path) -> None:
    """Unpack only these members of a tar archive, to the same paths in `folder`.

    Raises:
        DataError: if the archive cannot be read, or a member is missing or not a file.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in members:
                entry = tar.getmember(member)
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is None:  # a folder or a link
                    raise DataError(f"{archive}: {member} is not a file; remove the archive and start again")
                _write(folder / member, content)
    except (OSError, KeyError, ValueError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); remove it and start again") from error


def missing_files(request: DataRequest, names: Sequence[str], remotes: Container[str] = ()) -> DataError:
    """The error that says which files are missing, where they were expected, and what to do.

    Args:
        request: of the data set.
        names: of the files.
        remotes: the data sets that its reader can download.
    """
    remedy = "set data.root to the folder that contains them"
    if request.name in remotes:
        remedy += ", or set `data.download: true` to download them"
    return DataError(f"{request.where}: {', '.join(names)} not found in {request.folder}; {remedy}")


def _write(path: Path, content: IO[bytes]) -> None:
    """Write a file under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file)
        os.chmod(name, 0o644)  # mkstemp creates files that only their owner can read
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
