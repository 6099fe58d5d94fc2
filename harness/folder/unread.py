"""Unreadable parts of a run's folder, and text that is safe to display."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

TEXT = 20_000  # characters of a text to keep
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


class RecordError(Exception):
    """A record, or part of one, cannot be read; the message says where, what was found and what is allowed."""


class UnreadPart(NamedTuple):
    """One part that could not be read.

    Attributes:
        file: within the run's folder.
        line: counted from 1; `None` for the entire file.
        reason: in words.
    """

    file: str
    line: int | None
    reason: str


class Unread:
    """The unreadable parts of a folder: the first ones of each file, and their number."""

    _MOST_SHOWN = 5
    _MOST_FILES = 30

    def __init__(self) -> None:
        """Start empty."""
        self.parts: list[UnreadPart] = []
        self.counts: dict[str, int] = {}

    def add(self, file: str, reason: object, line: int | None = None) -> None:
        """Note one part."""
        if len(self.counts) >= self._MOST_FILES:
            file = file if file in self.counts else "other files"
        self.counts[file] = self.counts.get(file, 0) + 1
        if self.counts[file] <= self._MOST_SHOWN:
            self.parts.append(UnreadPart(file, line, seen(str(reason), 500)))

    def left_out(self) -> dict[str, int]:
        """The number of parts of each file that are counted but not listed."""
        return {file: n - self._MOST_SHOWN for file, n in self.counts.items() if n > self._MOST_SHOWN}


def seen(text: str, most: int = TEXT) -> str:
    r"""Displayable text: control characters are spelt out, and text that is too long is cut with a note.

    Applying it again changes nothing.

    >>> seen("a\x1b[2Jb")
    'a\\x1b[2Jb'
    >>> seen("x" * 1000, 40)
    'xxxxxxxxxxxxx... (987 more characters)'
    """
    shown = _UNSEEN.sub(_spelt_out, text[: most + 1])
    if len(shown) <= most:
        return shown
    kept = max(0, most - len(f"... ({len(text):,} more characters)"))
    return f"{shown[:kept]}... ({len(text) - kept:,} more characters)"


def described(value: object) -> str:
    """A short description of any value, for messages."""
    if isinstance(value, str):
        return f"the text {seen(value, 40)!r}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        digits = repr(value)
        return digits if len(digits) <= 30 else f"a number of {len(digits)} digits"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else type(value).__name__


def _spelt_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
