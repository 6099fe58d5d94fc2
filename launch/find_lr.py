#!/usr/bin/env python
"""Find a learning rate on all ranks: `horovodrun -np 2 python launch/find_lr.py`; rank 0 writes the report."""

import sys

try:
    from harness.cli.scripts import find_lr
except ModuleNotFoundError as missing:
    what = f"{sys.executable} has no '{missing.name}'"
    raise SystemExit(f"error: {what}; activate the environment of make setup: . .venv/bin/activate") from None

if __name__ == "__main__":
    sys.exit(find_lr())
