"""`launch/train.py`, where each rank has a home folder of its own, as hosts do: their homes, then --."""

from __future__ import annotations

import os
import runpy
import sys

end = sys.argv.index("--")
homes, rest = sys.argv[1:end], sys.argv[end + 1 :]
os.environ["HOME"] = homes[int(os.environ.get("HOROVOD_RANK", os.environ.get("PMI_RANK", "0")))]
sys.argv = ["train.py", *rest]
runpy.run_path("launch/train.py", run_name="__main__")
