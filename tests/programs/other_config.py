"""`launch/train.py`, where each rank reads a configuration of its own: the files in the order of ranks, then --.

SLOW_RANK in the environment is the rank whose world takes three seconds longer to close than the others'.
"""

from __future__ import annotations

import os
import runpy
import sys
import time

end = sys.argv.index("--")
files, rest = sys.argv[1:end], sys.argv[end + 1 :]
RANK = os.environ.get("HOROVOD_RANK", os.environ.get("PMI_RANK", "0"))
sys.argv = ["train.py", "--config", files[int(RANK)], *rest]
if os.environ.get("SLOW_RANK") == RANK:
    from harness.comm.horovod import HorovodWorld

    close = HorovodWorld.close

    def close_late(world):
        close(world)
        time.sleep(3)

    HorovodWorld.close = close_late
runpy.run_path("launch/train.py", run_name="__main__")
