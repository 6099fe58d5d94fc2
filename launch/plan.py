#!/usr/bin/env python
"""Preview a configuration's learning rates; needs neither mxnet nor horovod nor mpi4py."""

import sys

try:
    from harness.cli.scripts import plan
except ModuleNotFoundError as missing:
    what = f"{sys.executable} has no '{missing.name}'"
    raise SystemExit(f"error: {what}; activate the environment of make setup: . .venv/bin/activate") from None

if __name__ == "__main__":
    sys.exit(plan())
