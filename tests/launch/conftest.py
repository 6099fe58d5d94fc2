import importlib
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capfd):
    """Run the `main` of a command in this process, from the project's folder."""

    def run(script, *arguments, cwd=ROOT):
        monkeypatch.chdir(cwd)
        module = importlib.import_module(f"harness.cli.{script}")
        monkeypatch.setattr(sys, "argv", [f"launch/{script}.py", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        capfd.readouterr()
        try:
            code = module.main()
        except SystemExit as leaving:
            code = leaving.code
        return Ended(code, *capfd.readouterr())

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return run
