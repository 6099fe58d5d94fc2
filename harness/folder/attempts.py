"""How an attempt started and ended, and how a rank failed: `attempts.jsonl`, `outcome.json`, `failures/rank-N.json`.

One definition each: the ending job writes them, and the supervisor, the next attempt and every page read them.
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
from harness.folder.world_changes import WorldChange

OUTCOME, ATTEMPTS, FAILURES = "outcome.json", "attempts.jsonl", "failures"
EXIT_CODES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 75)
_STACKS = 1_000_000  # characters of all threads' stacks to keep
_MOST_ATTEMPTS = 500  # to keep: the first, and the newest
_MOST_FAILURES = 100
_MOST_CHANGES = 1000  # of an attempt, the newest
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
        """Read it from the file; all fields except exit code and cause may be missing.

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
        exit_code: of the job, as far as the rank could tell; `None` if not recorded.
        ended_at: seconds since 1970; `None` where nobody said.
        place: where the rank was, such as `iteration 50`; `None` for an error that all ranks raised at the same place.
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
        """The content of the file, without unknown fields."""
        content = {**vars(self), "cause": seen(self.cause)}
        if self.stacks is not None:
            content["stacks"] = seen(self.stacks, _STACKS)
        return {name: value for name, value in content.items() if value is not None}

    @classmethod
    def read(cls, fields: Fields) -> RankFailure:
        """Read it from the file; all fields except rank and cause may be missing.

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
class AttemptStart:
    """How an attempt started.

    Attributes:
        attempt: which one; the writer fills it in.
        began_at: seconds since 1970; the writer fills it in.
        after: the iteration that it resumed from; 0 for a new run.
        origin: the checkpoint that it resumed from (`from` in the file); `None` for a new run.
        ranks: how many; `None` if not recorded.
        comm: the communication backend.
        host: of rank 0.
        command: as typed.
        environment: versions and threads, by name.
        code: checksums of the harness and of the user's own modules, by name.
        data: the fingerprint of the training set, its sizes and its order; empty if not recorded.
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
    code: Mapping[str, str] = field(default_factory=dict)
    data: str = ""

    def to_json(self) -> dict[str, object]:
        """The content of a line of the file."""
        content = {("from" if name == "origin" else name): value for name, value in vars(self).items()}
        return {
            **content,
            "command": seen(self.command),
            "environment": dict(self.environment),
            "code": dict(self.code),
        }

    @classmethod
    def read(cls, fields: Fields) -> AttemptStart:
        """Read it from a line of the file; all fields except attempt and time may be missing.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        environment, code = (fields.plain(name) if fields.has(name) else {} for name in ("environment", "code"))
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
            code={name: str(_word(value, name)) for name, value in code.items()},
            data=fields.maybe(fields.text, "data", _NAME) or "",
        )


class Attempt(NamedTuple):
    """One start of a run: how it started, how it ended, if that was recorded, and how its workers changed meanwhile."""

    start: AttemptStart
    ended: Outcome | None
    changes: tuple[WorldChange, ...] = ()


def read_outcome_file(folder: Path) -> Outcome | None:
    """The outcome in a folder's `outcome.json`; `None` if there is none.

    Raises:
        RecordError: if it cannot be read.
    """
    path = folder / OUTCOME
    return Outcome.read(read_object(path)) if is_there(path) else None


def read_attempts(
    folder: Path, unread: Unread, last: Outcome | None = None, ending: Outcome | None = None
) -> list[Attempt]:
    """Starts, each with its end as recorded by the next start, by `outcome.json`, or by the caller at the end.

    Args:
        folder: of the run.
        unread: collects what cannot be read.
        last: the content of `outcome.json`.
        ending: how the current attempt ends.
    """
    starts: list[AttemptStart] = []
    ended: dict[str, Outcome] = {}
    changes: dict[str, list[WorldChange]] = {}
    left_out = 0
    for record in _read_history(folder, unread):
        if isinstance(record, Outcome):
            ended[record.attempt] = record
        elif isinstance(record, WorldChange):
            changes.setdefault(record.attempt, []).append(record)
            del changes[record.attempt][:-_MOST_CHANGES]
        else:
            starts.append(record)
        if len(starts) > _MOST_ATTEMPTS:
            del starts[1]
            left_out += 1
        while len(ended) > 2 * _MOST_ATTEMPTS:
            del ended[next(iter(ended))]
        while len(changes) > 2 * _MOST_ATTEMPTS:
            del changes[next(iter(changes))]
    if left_out:
        unread.add(ATTEMPTS, f"contains {left_out:,} more attempts than are shown; the first and the newest are shown")
    if last is not None:
        ended[last.attempt] = last
    if ending is not None and starts:
        ended[starts[-1].attempt] = ending
    return [Attempt(one, ended.get(one.attempt), tuple(changes.get(one.attempt, ()))) for one in starts]


def read_failures(folder: Path, unread: Unread, num_ranks: int | None = None) -> list[RankFailure]:
    """How ranks failed, by rank.

    Args:
        folder: of the run.
        unread: collects what cannot be read, or cannot be true.
        num_ranks: of the last attempt, if known.
    """
    found = []
    paths = sorted(folder.glob(f"{FAILURES}/rank-*.json"), key=lambda path: (len(path.name), path.name))
    for path in paths[:_MOST_FAILURES]:
        name = f"{FAILURES}/{path.name}"
        try:
            failure = RankFailure.read(read_object(path, 8 * MB))
            if path.name != f"rank-{failure.rank}.json":
                raise RecordError(f"rank is {failure.rank}, which is not the rank in the file name")
            if num_ranks is not None and failure.rank >= num_ranks:
                raise RecordError(f"rank is {failure.rank}; the last attempt had {num_ranks} ranks")
        except RecordError as error:
            unread.add(name, error)
        else:
            found.append(failure)
    if len(paths) > _MOST_FAILURES:
        unread.add(FAILURES, f"contains {len(paths):,} files; only the first {_MOST_FAILURES} are read")
    return found


def _read_history(folder: Path, unread: Unread) -> Iterator[AttemptStart | Outcome | WorldChange]:
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


def _read_line(data: bytes | None) -> AttemptStart | Outcome | WorldChange:
    if data is None:
        raise RecordError("is longer than any line that the harness writes")
    fields = Fields(parse_json(data))
    if fields.has("began_at"):
        return AttemptStart.read(fields)
    if fields.has("changed_at"):
        return WorldChange.read(fields)
    if fields.has("exit_code"):
        return Outcome.read(fields)
    raise RecordError("records neither the start nor the end of an attempt")


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
