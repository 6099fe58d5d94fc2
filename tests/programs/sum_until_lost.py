"""Ranks add up arrays by Horovod's own sum, again and again; rank 1 kills itself after so many seconds.

`python tests/programs/sum_until_lost.py SECONDS`. The others end when they are told.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import horovod.mxnet as hvd
import mxnet as mx

COUNT = 1_000_000  # 4 MB, some milliseconds


def main() -> None:
    """Add until somebody is lost."""
    hvd.init()
    array = mx.nd.ones(COUNT)
    hvd.allreduce(array, name="first").wait_to_read()
    if hvd.rank() == 1:
        threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGKILL)).start()
    try:
        while True:
            hvd.allreduce(array, name="sum").wait_to_read()
    except mx.MXNetError as error:
        print(error)


if __name__ == "__main__":
    main()
