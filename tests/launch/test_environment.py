"""What a command says when it is started without the project's environment."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "launch").glob("*.py")))
def test_a_python_without_the_project_is_told_what_to_activate(script):
    bare = [sys.executable, "-I", "-S", f"launch/{script}", "--help"]
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "; activate the environment of make setup: . .venv/bin/activate\n" in done.stderr
    assert done.stderr.startswith(f"error: {sys.executable} has no '")
    assert "Traceback" not in done.stderr
