#!/usr/bin/env python
"""Tell where two runs begin to differ, and by what: `python launch/compare.py runs/a runs/b`."""

import sys

try:
    from harness.cli.scripts import compare
except ModuleNotFoundError as missing:
    what = f"{sys.executable} has no '{missing.name}'"
    raise SystemExit(f"error: {what}; activate the environment of make setup: . .venv/bin/activate") from None

if __name__ == "__main__":
    sys.exit(compare())
