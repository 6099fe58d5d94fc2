#!/usr/bin/env python
"""Check this machine: `python launch/doctor.py`. How a run would scale: `mpirun -np 2 python ... --scaling`."""

import sys

try:
    from harness.cli.scripts import doctor
except ModuleNotFoundError as missing:
    what = f"{sys.executable} has no '{missing.name}'"
    raise SystemExit(f"error: {what}; activate the environment of make setup: . .venv/bin/activate") from None

if __name__ == "__main__":
    sys.exit(doctor())
