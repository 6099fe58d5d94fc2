#!/usr/bin/env python
"""Pack, check, index and show picture files: `python launch/data.py pack FOLDER OUT.rec`."""

import sys

try:
    from harness.cli.scripts import data
except ModuleNotFoundError as missing:
    what = f"{sys.executable} has no '{missing.name}'"
    raise SystemExit(f"error: {what}; activate the environment of make setup: . .venv/bin/activate") from None

if __name__ == "__main__":
    sys.exit(data())
