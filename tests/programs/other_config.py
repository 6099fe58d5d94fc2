"""`launch/train.py`, where each rank reads a configuration of its own: the files in the order of ranks, then --."""

from __future__ import annotations

import os
import runpy
import sys

end = sys.argv.index("--")
files, rest = sys.argv[1:end], sys.argv[end + 1 :]
sys.argv = ["train.py", "--config", files[int(os.environ.get("HOROVOD_RANK", os.environ.get("PMI_RANK", "0")))], *rest]
runpy.run_path("launch/train.py", run_name="__main__")
