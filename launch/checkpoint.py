#!/usr/bin/env python
"""List a run's checkpoints, verify their checksums, compare two, and exchange weights with Gluon."""

import sys

try:
    from harness.cli.scripts import checkpoint
except ModuleNotFoundError as missing:
    what = f"{sys.executable} has no '{missing.name}'"
    raise SystemExit(f"error: {what}; activate the environment of make setup: . .venv/bin/activate") from None

if __name__ == "__main__":
    sys.exit(checkpoint())
