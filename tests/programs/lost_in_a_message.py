"""One of two ranks sends the other a large array, again and again; rank 1 is killed as soon as a part of one has come.

`python tests/programs/lost_in_a_message.py ROOT`: which of them sends. Rank 0 ends when it is told.
"""

from __future__ import annotations

import os
import signal
import sys

import horovod.mxnet as hvd
import mxnet as mx

from harness.gluon.step.memory import memory_of

COUNT = 1 << 25  # 128 MiB, some tens of milliseconds


def main() -> None:
    """Send, or receive and look."""
    root = int(sys.argv[1])
    hvd.init()
    array = mx.nd.zeros(COUNT)
    array.wait_to_read()
    numbers = memory_of(array)
    victim = int(hvd.broadcast(mx.nd.array([os.getpid()], dtype="int64"), 1, name="victim").asscalar())
    for turn in range(1, 1000):
        if hvd.rank() == root:
            array[:] = turn
            array.wait_to_read()
        hvd.broadcast_(array, root, name="array")
        while numbers[-1] != turn:
            if numbers[0] == turn and numbers[-1] != turn:
                os.kill(victim, signal.SIGKILL)
                break
        try:
            array.wait_to_read()
        except mx.MXNetError as error:
            print(error)
            return


if __name__ == "__main__":
    main()
