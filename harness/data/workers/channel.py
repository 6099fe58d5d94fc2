"""What a rank and a worker process say to each other: messages over a socket, and arrays in memory that both see.

The memory has no name (`memfd_create`), so nothing is left of it once both have ended, however they end.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.data.leaves import Array

Form = tuple[str, tuple[int, ...], int]
"""Type, shape and first byte of an array in the memory."""

_LENGTH = struct.Struct("<I")
_HEADER = 64  # bytes: the number of the item that is being read, as a rank looks at it meanwhile
_AT_FIRST = 1 << 20  # bytes
_ALIGNED = 64
_AT_ONCE = 1 << 20  # bytes of a message


class Channel:
    """One end of a socket.

    Args:
        end: of a pair of stream sockets.
    """

    def __init__(self, end: socket.socket) -> None:
        """Nothing has arrived yet."""
        self.end = end
        self._arrived = bytearray()

    def send(self, message: Any) -> None:
        """Send plain data.

        Raises:
            OSError: if the other end is closed.
        """
        content = json.dumps(message).encode()
        self.end.sendall(_LENGTH.pack(len(content)) + content)

    def receive(self) -> Any:
        """The next message.

        Raises:
            TimeoutError: if the socket has a time limit, and it is not complete by then; ask again.
            EOFError: if the other end is closed.
        """
        while (message := self._complete()) is None:
            try:
                arrived = self.end.recv(_AT_ONCE)
            except ConnectionError as error:
                raise EOFError from error
            if not arrived:
                raise EOFError
            self._arrived += arrived
        return json.loads(message)

    def _complete(self) -> bytes | None:
        if len(self._arrived) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._arrived)
        end = _LENGTH.size + length
        if len(self._arrived) < end:
            return None
        message = bytes(self._arrived[_LENGTH.size : end])
        del self._arrived[:end]
        return message


class SharedMemory:
    """Memory that a worker writes arrays to, and a rank reads them from; it grows as it has to.

    Args:
        file: the descriptor of an anonymous file; a new one by default.
    """

    def __init__(self, file: int | None = None) -> None:
        """Map it."""
        if file is None:
            file = os.memfd_create("harness-data", os.MFD_CLOEXEC)
            os.ftruncate(file, _AT_FIRST)
        self.file = file
        self._map = self._mapped()
        self._end = _HEADER

    @property
    def position(self) -> int:
        """Which item of its task a worker reads, from 1; 0 if none."""
        return int.from_bytes(self._map[:8], "little")

    @position.setter
    def position(self, number: int) -> None:
        self._map[:8] = number.to_bytes(8, "little")

    def clear(self) -> None:
        """Forget all arrays."""
        self._end = _HEADER

    def write(self, leaves: Sequence[Array]) -> list[Form]:
        """Write arrays behind those that are there; what `read` needs to find them."""
        return [self._write(leaf) for leaf in leaves]

    def read(self, form: Form) -> Array:
        """A view of an array."""
        dtype, shape, start = form
        kind = np.dtype(dtype)
        if start + kind.itemsize * int(np.prod(shape, dtype=np.int64)) > len(self._map):
            self._map = self._mapped()
        return np.ndarray(tuple(shape), kind, self._map, start)

    def close(self) -> None:
        """Let go of it; arrays that were read stay."""
        os.close(self.file)

    def _write(self, leaf: Array) -> Form:
        start = -(-self._end // _ALIGNED) * _ALIGNED
        self._end = start + leaf.nbytes
        if self._end > len(self._map):
            os.ftruncate(self.file, max(self._end, 2 * len(self._map)))
            self._map = self._mapped()
        form = leaf.dtype.str, leaf.shape, start
        np.ndarray(leaf.shape, leaf.dtype, self._map, start)[...] = leaf
        return form

    def _mapped(self) -> mmap.mmap:
        return mmap.mmap(self.file, os.fstat(self.file).st_size)
