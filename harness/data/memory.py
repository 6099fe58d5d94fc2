"""Memory for batches that is used again once nobody reads it any more, which saves the kernel's work of zeroing it.

A batch is an array over a block of memory. The block comes back when the array and all of its views are gone: those of
Python, and the one that MXNet holds from `mx.nd.from_numpy` until everything is computed that was asked of it.
"""

from __future__ import annotations

import mmap
import weakref
from collections import deque

import numpy as np

from harness.data.arrays import Floats

_MOST_KEPT = 16  # blocks that nobody uses; more are in use at once only while batches are made ahead


class BatchMemory:
    """Blocks of memory for arrays of float32; any thread may ask for one, and any may let go of one.

    Attributes:
        num_made: blocks that had to be made, because none was free.
    """

    def __init__(self) -> None:
        """No block yet."""
        self.num_made = 0
        self._free: deque[mmap.mmap] = deque(maxlen=_MOST_KEPT)

    def empty(self, shape: tuple[int, ...]) -> Floats:
        """An array of any values, whose memory is used again when the array and its views are gone.

        Args:
            shape: of the array; with a side of 0 it has no memory.
        """
        num_bytes = 4 * int(np.prod(shape, dtype=np.int64))
        if not num_bytes:
            return np.empty(shape, np.float32)
        # an array over something that is no array is what its views keep alive (`numpy.ndarray.base`)
        block = self._block(num_bytes)
        held = np.frombuffer(block, np.float32, num_bytes // 4)
        # a deque needs no lock, which this could not wait for: it is called wherever the last view is let go of
        weakref.finalize(held, self._free.append, block).atexit = False
        return held.reshape(shape)

    def clear(self) -> None:
        """Give blocks that nobody uses back to the kernel."""
        self._free.clear()

    def _block(self, num_bytes: int) -> mmap.mmap:
        """A free block that is large enough; smaller ones are given up."""
        while True:
            try:
                block = self._free.popleft()
            except IndexError:
                self.num_made += 1
                return mmap.mmap(-1, num_bytes)
            if len(block) >= num_bytes:
                return block
