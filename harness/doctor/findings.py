"""The findings, and how to show them."""

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
    """One line of the doctor's output.

    Attributes:
        check: what was checked.
        level: `ok`; `warning` if it works but is slow or incomplete; `fix` if a run would fail or
            suffer.
        found: the result.
        to_do: the remedy; empty if ok.
    """

    check: str
    level: Literal["ok", "warning", "fix"]
    found: str
    to_do: str = ""


def as_text(finding: Finding) -> str:
    """A finding in lines of at most 80 columns, with the remedy below it.

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
    """A count of the findings that need action.

    >>> summary([Finding("disk", "fix", "read-only", "set output"), Finding("gpu", "ok", "none")])
    '1 to fix, 0 warnings'
    """
    fixes, warnings = (sum(finding.level == level for finding in findings) for level in ("fix", "warning"))
    if not fixes and not warnings:
        return "everything is ok"
    return f"{fixes or 'nothing'} to fix, {warnings} warning{'' if warnings == 1 else 's'}"


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if there is anything to fix, else 0."""
    return int(any(finding.level == "fix" for finding in findings))


def as_json(findings: Sequence[Finding]) -> str:
    """All findings as JSON, for programs."""
    return json.dumps(
        {"exit_code": exit_code(findings), "findings": [asdict(finding) for finding in findings]}, indent=2
    )
