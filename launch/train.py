#!/usr/bin/env python
"""Train a network: `horovodrun -np 2 python launch/train.py --config configs/digits.yaml`, or without horovodrun."""

import sys

try:
    from harness.cli.scripts import train
except ModuleNotFoundError as missing:
    what = f"{sys.executable} has no '{missing.name}'"
    raise SystemExit(f"error: {what}; activate the environment of make setup: . .venv/bin/activate") from None

if __name__ == "__main__":
    sys.exit(train())
