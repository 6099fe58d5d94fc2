"""Where every command begins: Ctrl-C is handled before the slow imports, and a package that is missing is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from harness.interrupts import end_tool_quietly, stop_run_at_once
from harness.shipped import is_checkout


def train() -> int:
    """Train a network."""
    stop_run_at_once()
    with _named_if_missing():
        from harness.cli.train import main
    return main()


def find_lr() -> int:
    """Find a learning rate on all ranks."""
    stop_run_at_once()
    with _named_if_missing():
        from harness.cli.find_lr import main
    return main()


def plan() -> int:
    """Preview a configuration's learning rates."""
    end_tool_quietly()
    with _named_if_missing():
        from harness.cli.plan import main
    return main()


def report() -> int:
    """Show a run on one page, or compare several."""
    end_tool_quietly()
    with _named_if_missing():
        from harness.cli.report import main
    return main()


def compare() -> int:
    """Tell where two runs begin to differ."""
    end_tool_quietly()
    with _named_if_missing():
        from harness.cli.compare import main
    return main()


def checkpoint() -> int:
    """List, verify and compare checkpoints; exchange weights."""
    end_tool_quietly()
    with _named_if_missing():
        from harness.cli.checkpoint import main
    return main()


def bridge() -> int:
    """Carry a run to PyTorch."""
    end_tool_quietly()
    with _named_if_missing():
        from harness.cli.bridge import main

        return main()


def data() -> int:
    """Pack, check and show picture files."""
    end_tool_quietly()
    with _named_if_missing():
        from harness.cli.data import main
    return main()


def doctor() -> int:
    """Check this machine."""
    end_tool_quietly()
    with _named_if_missing():
        from harness.cli.doctor import main
    return main()


def supervise() -> int:
    """Keep a job alive."""
    end_tool_quietly()
    with _named_if_missing():
        from harness.cli.supervise import main
    return main()


@contextmanager
def _named_if_missing() -> Iterator[None]:
    """Turn a package that cannot be imported into one line, and exit code 1."""
    try:
        yield
    except ModuleNotFoundError as missing:
        advice = "activate the environment of make setup: . .venv/bin/activate" if is_checkout() else "see pip check"
        raise SystemExit(f"error: {sys.executable} has no '{missing.name}'; {advice}") from None
