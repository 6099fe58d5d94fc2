"""Arrays of MXNet that lie in NumPy's memory, and why a process waits for MXNet before it ends.

When the last operation that reads such an array is done, a thread of MXNet's engine tells Python so. A process may end
while operations are under way: a network that fails leaves those of its layers behind. Then the engine's thread comes
to an interpreter that is gone, and waits for it: for ever where Python keeps such threads waiting (3.14), or where
something else ends the process while it holds Python's lock, because MXNet in turn waits for its threads. So what is
under way is waited for while Python is still there to be told.
"""

from __future__ import annotations

import atexit
from contextlib import suppress
from typing import Any

import mxnet as mx
import numpy.typing as npt


def in_host_memory(array: npt.NDArray[Any]) -> Any:
    """An array of MXNet on `cpu(0)` in the same memory.

    Args:
        array: C-contiguous, of a dtype that DLPack has; it becomes read-only, a view of it that is passed instead
            leaves it writeable. Whoever writes to its memory has waited for MXNet before.
    """
    return mx.nd.from_numpy(array)


def _wait() -> None:
    for _ in range(2):  # errors of operations that nobody has waited for: the run has ended for a cause of its own
        with suppress(mx.base.MXNetError):
            mx.nd.waitall()
        # An operation counts as done before its thread lets go of what it has read, and begins no other before that.
        with suppress(mx.base.MXNetError):
            mx.nd.zeros((1,)).wait_to_read()


atexit.register(_wait)  # after MXNet's own, which is therefore called later
