"""What was found, and how it is shown."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

_WIDTH = 80
_INDENT = " " * 20


@dataclass(frozen=True)
class Finding:
    """One line of the check-up.

    Attributes:
        check: what was looked at.
        level: `ok`; `warning` for what works but is slow or missing something; `fix` for what a run would fail or
            suffer from.
        found: what there is.
        to_do: how to fix it; empty if it is ok.
    """

    check: str
    level: Literal["ok", "warning", "fix"]
    found: str
    to_do: str = ""


def as_text(finding: Finding) -> str:
    """A finding in lines of at most 80 columns, what to do below it.

    >>> print(as_text(Finding("mpirun", "warning", "not on PATH", "activate the environment: . .venv/bin/activate")))
    warning  mpirun      not on PATH
                         -> activate the environment: . .venv/bin/activate
    """
    lines = textwrap.wrap(
        finding.found,
        _WIDTH,
        initial_indent=f"{finding.level:<8} {finding.check:<11} ",
        subsequent_indent=f"{_INDENT} ",
        break_on_hyphens=False,
    )
    if finding.to_do:
        lines += textwrap.wrap(
            finding.to_do,
            _WIDTH,
            initial_indent=f"{_INDENT} -> ",
            subsequent_indent=f"{_INDENT}    ",
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def summary(findings: Sequence[Finding]) -> str:
    """How many findings want something.

    >>> summary([Finding("disk", "fix", "read-only", "set output"), Finding("gpu", "ok", "none")])
    '1 to fix, 0 warnings'
    """
    fixes, warnings = (sum(finding.level == level for finding in findings) for level in ("fix", "warning"))
    if not fixes and not warnings:
        return "all is well"
    return f"{fixes or 'nothing'} to fix, {warnings} warning{'' if warnings == 1 else 's'}"


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if anything is to be fixed, else 0."""
    return int(any(finding.level == "fix" for finding in findings))


def as_json(findings: Sequence[Finding]) -> str:
    """All findings, for a program."""
    return json.dumps(
        {"exit_code": exit_code(findings), "findings": [asdict(finding) for finding in findings]}, indent=2
    )
