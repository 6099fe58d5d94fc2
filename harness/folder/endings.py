"""How an attempt began, how it ended, and how a rank failed: `attempts.jsonl`, `outcome.json`, `failures/rank-N.json`.

One definition each, which the job that ends writes, and a supervisor, the next attempt and every page read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from harness.folder.files import MB, is_there, lines_of, open_plain
from harness.folder.reading import LATEST_S, Fields, parse_json, read_object
from harness.folder.unread import RecordError, Unread, seen

OUTCOME, ATTEMPTS, FAILURES = "outcome.json", "attempts.jsonl", "failures"
EXIT_CODES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 75)
_STACKS = 1_000_000  # characters of all threads' stacks that are kept
_MOST_ATTEMPTS = 500  # that are kept: the first, and the newest
_MOST_FAILURES = 100
_NAME = 1000


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        attempt: which one; empty where nobody said.
        exit_code: of the job, one of `EXIT_CODES`.
        cause: in words.
        ended_at: seconds since 1970; `None` where nobody said.
    """

    attempt: str
    exit_code: int
    cause: str
    ended_at: float | None = None

    def to_json(self) -> dict[str, object]:
        """As the file holds it."""
        return {
            "attempt": self.attempt,
            "exit_code": self.exit_code,
            "cause": seen(self.cause),
            "ended_at": self.ended_at,
        }

    @classmethod
    def read(cls, fields: Fields) -> Outcome:
        """From the file; all but exit code and cause may be missing.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        return cls(
            attempt=fields.maybe(fields.text, "attempt", _NAME) or "",
            exit_code=_exit_code(fields),
            cause=fields.text("cause"),
            ended_at=fields.maybe(fields.number, "ended_at", 0, LATEST_S),
        )


@dataclass(frozen=True)
class RankFailure:
    """How a rank failed, and where it was.

    Attributes:
        rank: which one.
        cause: in words.
        attempt: which one; empty where nobody said.
        exit_code: of the job, as far as the rank could tell; `None` where nobody said.
        ended_at: seconds since 1970; `None` where nobody said.
        place: where the rank was, such as `iteration 50`; `None` for an error that all ranks had at one place.
        collective: the last one that it called.
        stacks: of its threads, after a stall or a loss.
    """

    rank: int
    cause: str
    attempt: str = ""
    exit_code: int | None = None
    ended_at: float | None = None
    place: str | None = None
    collective: str | None = None
    stacks: str | None = None

    def to_json(self) -> dict[str, object]:
        """As the file holds it; what nobody knows is left out."""
        content = {**vars(self), "cause": seen(self.cause)}
        if self.stacks is not None:
            content["stacks"] = seen(self.stacks, _STACKS)
        return {name: value for name, value in content.items() if value is not None}

    @classmethod
    def read(cls, fields: Fields) -> RankFailure:
        """From the file; all but rank and cause may be missing.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        return cls(
            rank=fields.whole("rank"),
            cause=fields.text("cause"),
            attempt=fields.maybe(fields.text, "attempt", _NAME) or "",
            exit_code=_exit_code(fields) if fields.has("exit_code") else None,
            ended_at=fields.maybe(fields.number, "ended_at", 0, LATEST_S),
            place=fields.maybe(fields.text, "place"),
            collective=fields.maybe(fields.text, "collective", _NAME),
            stacks=fields.maybe(fields.text, "stacks", _STACKS),
        )


@dataclass(frozen=True)
class AttemptBegun:
    """How an attempt began.

    Attributes:
        attempt: which one; whoever writes it down gives it.
        began_at: seconds since 1970; the same.
        after: the iteration that it went on from; 0 from the beginning.
        origin: the checkpoint that it went on from (`from` in the file); `None` from the beginning.
        ranks: how many; `None` where nobody said.
        comm: what carried collectives.
        host: of rank 0.
        command: as it was typed.
        environment: versions and threads, by name.
    """

    attempt: str = ""
    began_at: float = 0.0
    after: int = 0
    origin: str | None = None
    ranks: int | None = None
    comm: str = ""
    host: str = ""
    command: str = ""
    environment: Mapping[str, str | int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """As a line of the file holds it."""
        content = {("from" if name == "origin" else name): value for name, value in vars(self).items()}
        return {**content, "command": seen(self.command), "environment": dict(self.environment)}

    @classmethod
    def read(cls, fields: Fields) -> AttemptBegun:
        """From a line of the file; all but attempt and clock may be missing.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        environment = fields.plain("environment") if fields.has("environment") else {}
        return cls(
            attempt=fields.text("attempt", _NAME),
            began_at=fields.number("began_at", 0, LATEST_S),
            after=fields.maybe(fields.whole, "after") or 0,
            origin=fields.maybe(fields.text, "from"),
            ranks=fields.maybe(fields.whole, "ranks", 1, 10_000_000),
            comm=fields.maybe(fields.text, "comm", _NAME) or "",
            host=fields.maybe(fields.text, "host", _NAME) or "",
            command=fields.maybe(fields.text, "command") or "",
            environment={name: _word(value, name) for name, value in environment.items()},
        )


class Attempt(NamedTuple):
    """One start of a run: how it began, and how it ended as far as somebody could still tell."""

    begun: AttemptBegun
    ended: Outcome | None


def read_outcome_file(folder: Path) -> Outcome | None:
    """What `outcome.json` of a folder says; `None` if there is none.

    Raises:
        RecordError: if there is one that cannot be read.
    """
    path = folder / OUTCOME
    return Outcome.read(read_object(path)) if is_there(path) else None


def read_attempts(
    folder: Path, unread: Unread, last: Outcome | None = None, ending: Outcome | None = None
) -> list[Attempt]:
    """Starts, each with its end: told by the next one, by `outcome.json`, or by who writes a page at the end.

    Args:
        folder: of the run.
        unread: takes what cannot be read.
        last: what `outcome.json` says.
        ending: how the attempt that is at work ends.
    """
    begun: list[AttemptBegun] = []
    ended: dict[str, Outcome] = {}
    left_out = 0
    for record in _read_history(folder, unread):
        if isinstance(record, Outcome):
            ended[record.attempt] = record
        else:
            begun.append(record)
        if len(begun) > _MOST_ATTEMPTS:
            del begun[1]
            left_out += 1
        while len(ended) > 2 * _MOST_ATTEMPTS:
            del ended[next(iter(ended))]
    if left_out:
        unread.add(ATTEMPTS, f"tells of {left_out:,} attempts more than are shown; the first and the newest are")
    if last is not None:
        ended[last.attempt] = last
    if ending is not None and begun:
        ended[begun[-1].attempt] = ending
    return [Attempt(one, ended.get(one.attempt)) for one in begun]


def read_failures(folder: Path, unread: Unread, num_ranks: int | None = None) -> list[RankFailure]:
    """How ranks failed, by rank.

    Args:
        folder: of the run.
        unread: takes what cannot be read, or cannot be right.
        num_ranks: of the last attempt, where it is known.
    """
    found = []
    paths = sorted(folder.glob(f"{FAILURES}/rank-*.json"), key=lambda path: (len(path.name), path.name))
    for path in paths[:_MOST_FAILURES]:
        name = f"{FAILURES}/{path.name}"
        try:
            failure = RankFailure.read(read_object(path, 8 * MB))
            if path.name != f"rank-{failure.rank}.json":
                raise RecordError(f"rank is {failure.rank}, which is not the one in the file's name")
            if num_ranks is not None and failure.rank >= num_ranks:
                raise RecordError(f"rank is {failure.rank}; the last attempt had {num_ranks} ranks")
        except RecordError as error:
            unread.add(name, error)
        else:
            found.append(failure)
    if len(paths) > _MOST_FAILURES:
        unread.add(FAILURES, f"holds {len(paths):,} files; the first {_MOST_FAILURES} are read")
    return found


def _read_history(folder: Path, unread: Unread) -> Iterator[AttemptBegun | Outcome]:
    path = folder / ATTEMPTS
    if not is_there(path):
        return
    try:
        with open_plain(path) as file:
            for line, (data, _) in enumerate(lines_of(file), start=1):
                try:
                    record = _read_line(data)
                except RecordError as error:
                    unread.add(ATTEMPTS, error, line)
                else:
                    yield record
    except (RecordError, OSError) as error:
        unread.add(ATTEMPTS, error)


def _read_line(data: bytes | None) -> AttemptBegun | Outcome:
    if data is None:
        raise RecordError("is longer than any line that is written")
    fields = Fields(parse_json(data))
    if fields.has("began_at"):
        return AttemptBegun.read(fields)
    if fields.has("exit_code"):
        return Outcome.read(fields)
    raise RecordError("tells neither how an attempt began nor how one ended")


def _exit_code(fields: Fields) -> int:
    code = fields.whole("exit_code", 0, 255)
    if code not in EXIT_CODES:
        raise RecordError(f"{fields.place('exit_code')} is {code}; a job ends with {', '.join(map(str, EXIT_CODES))}")
    return code


def _word(value: object, name: str) -> str:
    if isinstance(value, str):
        return seen(value, _NAME)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecordError(f"environment.{seen(name, 40)} is neither text nor a number")
    return str(value)
