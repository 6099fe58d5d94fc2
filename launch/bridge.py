#!/usr/bin/env python
"""Carry a run to PyTorch: match its arrays with a module's, verify, replay side by side, export."""

import sys

try:
    from harness.cli.scripts import bridge
except ModuleNotFoundError as missing:
    what = f"{sys.executable} has no '{missing.name}'"
    raise SystemExit(f"error: {what}; activate the environment of make setup: . .venv/bin/activate") from None

if __name__ == "__main__":
    sys.exit(bridge())
