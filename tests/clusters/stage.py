"""What the cluster tests share: commands shown as a transcript, claims that are checked, programs that must be there.

These tests need root and Debian's packages, change the machine while they run (and put it back), and take minutes; so
they are run by hand, `python tests/clusters/NAME.py`, and not by pytest.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(command: str | Sequence[str], *, expect: int = 0, timeout: float = 600.0, **how: Any) -> str:
    """Run a command in the project's root, show it and what it said, and return that.

    Raises:
        SystemExit: if it ends with another code than expected.
    """
    words = shlex.split(command) if isinstance(command, str) else list(command)
    print(f"$ {shlex.join(words)}", flush=True)
    how = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | how
    done = subprocess.run(words, timeout=timeout, check=False, **how)
    said = done.stdout or ""
    print(said, end="", flush=True)
    if done.returncode != expect:
        raise SystemExit(f"FAILED: exit code {done.returncode} instead of {expect}")
    return said


def check(claim: str, holds: bool) -> None:
    """Print a claim that holds; end the test with one that does not."""
    if not holds:
        raise SystemExit(f"FAILED: {claim}")
    print(f"ok: {claim}", flush=True)


def require(**packages: str) -> None:
    """End the test if it is not run by root, or a program (a keyword, with Debian's package for it) is missing."""
    if os.geteuid() != 0:
        raise SystemExit("needs root, because it changes the machine's network, mounts or daemons")
    missing = {package for program, package in packages.items() if shutil.which(program) is None}
    if missing:
        raise SystemExit(f"needs Debian's packages: apt-get install {' '.join(sorted(missing))}")


def digest(said: str) -> str:
    """The digest that a run said at its end."""
    found = re.findall(r"done after \d+ iterations, digest ([0-9a-f]{64})", said)
    if not found:
        raise SystemExit("FAILED: no run said that it was done")
    return found[-1]
