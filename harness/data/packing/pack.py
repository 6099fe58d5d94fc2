"""A .rec file of pictures, with its index and its list: begun or resumed, read back, and only then given its name."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from harness.data.packing.contents import Content, Damaged, Preparation, prepared
from harness.data.packing.journal import Journal
from harness.data.packing.listing import Listing
from harness.data.record_format import Labels, Record, framed, packed
from harness.errors import ConfigError, DataError
from harness.files import replace_file
from harness.locks import HeldError, lock_of_name

EXISTS = "is there already; choose another name, or replace it with --overwrite"

Tell = Callable[[int], None]


class LeftOut(NamedTuple):
    """A picture that is not packed.

    Attributes:
        name: of its file.
        reason: what is wrong with it.
    """

    name: str
    reason: str


class Packing:
    """A .rec file that is being written; use it as a context manager.

    Attributes:
        path: of the file to be.
        records: the file that is written.
        index: of it.
        resumed: how many pictures an earlier attempt has dealt with.

    Args:
        listing: the pictures.
        path: of the file to be, ending in `.rec`.
        preparation: what becomes of them.
        skip_damaged: leave damaged pictures out, instead of ending at the first.
        overwrite: whether files that are there already may be replaced.
        with_list: whether to write a list beside the records.

    Raises:
        ConfigError: if files are there already, another process writes them, or they cannot be written.
    """

    def __init__(
        self,
        listing: Listing,
        path: Path,
        preparation: Preparation,
        *,
        skip_damaged: bool = False,
        overwrite: bool = False,
        with_list: bool = True,
    ) -> None:
        """Open or create the files that are written."""
        self.path, self.index = path, path.with_suffix(".idx.part")
        self._listing, self._preparation, self._skip_damaged = listing, preparation, skip_damaged
        self._files = [path.with_suffix(".idx"), *([path.with_suffix(".lst")] if with_list else [])]
        what = {
            "pictures": listing.digest(),
            "resize": preparation.resize,
            "quality": None if preparation.resize is None else preparation.quality,
        }
        with ExitStack() as stack, _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = lock_of_name(path)
            try:
                lock.acquire("a process that packs")
            except HeldError as held:
                raise ConfigError(f"{path}: {held.owner} is writing it; wait for it, or choose another name") from None
            stack.callback(lock.release, remove=True)
            if not overwrite:
                self._refuse_existing()
            self._journal = Journal(path, listing.keys, what, skipping=skip_damaged, start_over=overwrite)
            stack.callback(self._journal.close)
            self._open = stack.pop_all()
        self.records = self._journal.records
        self.resumed = len(self._journal.lines)

    @property
    def num_pictures(self) -> int:
        """The pictures of the listing."""
        return len(self._listing.names)

    @property
    def num_records(self) -> int:
        """The records so far."""
        return sum(line.is_packed for line in self._journal.lines)

    def run(self, workers: int = 1, tell: Tell = lambda done: None) -> list[LeftOut]:
        """Pack what is left.

        Args:
            workers: processes that read, check and resize; 1 is this one.
            tell: is told how many pictures are done.

        Returns:
            The pictures that are left out.

        Raises:
            DataError: naming a picture that is damaged, or if all are.
            ConfigError: if records cannot be written.
        """
        folder, keys, names, labels = self._listing
        left = range(self.resumed, len(names))
        left_out = [
            LeftOut(name, "left out by an earlier attempt")
            for line, name in zip(self._journal.lines, names, strict=False)
            if not line.is_packed
        ]
        with closing(prepared(folder, names[self.resumed :], self._preparation, workers)) as contents:
            for row, content in zip(left, contents, strict=True):
                reason = self._add(int(keys[row]), labels[row], content)
                if reason is not None:
                    self._leave_out(int(keys[row]), folder / names[row], reason)
                    left_out.append(LeftOut(names[row], reason))
                tell(row + 1)
        if not self.num_records:
            raise DataError(f"{folder}: every one of {len(names)} pictures is damaged; the first: {left_out[0].reason}")
        with _writing(self.path):
            self._journal.force()
            rows = [line for line in self._journal.lines if line.is_packed]
            replace_file(self.index, "".join(f"{line.key}\t{line.start}\n" for line in rows))
        return left_out

    def verify(self, found: Iterable[Record], tell: Tell = lambda done: None) -> None:
        """Compare every record with what was packed.

        Args:
            found: the records, in order, as a reader finds them with the index.
            tell: is told how many are done.

        Raises:
            DataError: naming the first that differs. What was written is then removed.
        """
        lines = [line for line in self._journal.lines if line.is_packed]
        count = 0
        for count, (line, record) in enumerate(zip(lines, found, strict=False), start=1):
            if zlib.crc32(framed(packed(record.key, record.labels, bytes(record.content)))) != line.checksum:
                self._refuse(f"record {line.key} at byte {line.start}")
            tell(count)
        if count < len(lines):
            self._refuse(f"what is after the first {count} of {len(lines)} records")

    def publish(self) -> None:
        """Give the files their names: the records last, so that whoever finds them finds all.

        Raises:
            ConfigError: if that cannot be done.
        """
        with _writing(self.path):
            for path in self._files:
                if path.suffix == ".lst":
                    kept = np.flatnonzero([line.is_packed for line in self._journal.lines])
                    text = self._listing.part(kept).text()
                    replace_file(path, text.encode(errors="surrogateescape"), force=True)
                else:
                    self.index.rename(path)
            self._journal.publish(self.path)

    def close(self) -> None:
        """Leave the files as they are, for another attempt."""
        self._open.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _add(self, key: int, labels: Labels, content: Content) -> str | None:
        """Write a record; returns why there can be none."""
        if isinstance(content, Damaged):
            return str(content)
        try:
            with _writing(self.path):
                self._journal.add(key, labels, content)
        except ValueError as error:
            return str(error)
        return None

    def _leave_out(self, key: int, picture: Path, reason: str) -> None:
        if not self._skip_damaged:
            raise DataError(
                f"{picture}: {reason}; replace the file and run the command again, which resumes, or leave damaged "
                "ones out with --skip-damaged"
            )
        with _writing(self.path):
            self._journal.leave_out(key)

    def _refuse(self, what: str) -> None:
        self._journal.discard()
        self.index.unlink(missing_ok=True)
        raise DataError(
            f"{self.path}: {what} is not what was packed, as it is read back, and nothing was kept; is the disk or the "
            "memory damaged? Check them, and pack again"
        )

    def _refuse_existing(self) -> None:
        is_begun = self.path.with_name(f"{self.path.name}.journal").exists()
        there = [path for path in (self.path, *([] if is_begun else self._files)) if path.exists()]
        if there:
            raise ConfigError(f"{there[0]}: {EXISTS}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a message."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise ConfigError(
            f"{where}: cannot be written ({error.strerror}); free some disk space, or mend what is wrong, and run the "
            "command again, which resumes; or choose another place"
        ) from None
