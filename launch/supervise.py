#!/usr/bin/env python
"""Keep a job alive: `python launch/supervise.py -- horovodrun -np 2 python launch/train.py --resume auto`."""

import sys

try:
    from harness.cli.scripts import supervise
except ModuleNotFoundError as missing:
    what = f"{sys.executable} has no '{missing.name}'"
    raise SystemExit(f"error: {what}; activate the environment of make setup: . .venv/bin/activate") from None

if __name__ == "__main__":
    sys.exit(supervise())
