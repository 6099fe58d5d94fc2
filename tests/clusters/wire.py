"""A switch whose links have a rate and a delay, as `tc netem` gives them; for kernels that have no netem.

`python tests/clusters/wire.py BYTES_PER_S DELAY_S PID...` makes a device eth0 in the network of each process and
carries frames between them until its standard input ends. Like netem on the port to each host, a frame waits until
those before it have left at that rate, and arrives a delay later. It has real-time priority, so that ranks which
compute do not hold it up, and moves segments of up to 64 KB whole (TSO), as a network card would.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import select
import struct
import sys
import time
from collections import deque
from contextlib import suppress

_SETIFF, _SETOFFLOAD = 0x400454CA, 0x400454D0  # ioctls of <linux/if_tun.h>
_TAP, _NO_INFO, _HEADER = 0x0002, 0x1000, 0x4000
_CHECKSUM_AND_TSO = 0x7
_HEADER_BYTES = 10  # struct virtio_net_hdr, in front of every frame
_CLONE_NEWNET = 0x40000000
_AT_ONCE = 8  # frames taken from one host before others have their turn


def main() -> None:
    rate, delay_s = float(sys.argv[1]), float(sys.argv[2])
    ports = [open_port(pid) for pid in sys.argv[3:]]
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    gc.disable()
    print("ready", flush=True)
    carry(ports, rate, delay_s)


def open_port(pid: str) -> int:
    """A TAP device in the network of a process."""
    with open(f"/proc/{pid}/ns/net") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"the network of process {pid} cannot be entered")
    port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(port, _SETIFF, struct.pack("16sH22x", b"eth0", _TAP | _NO_INFO | _HEADER))
    fcntl.ioctl(port, _SETOFFLOAD, _CHECKSUM_AND_TSO)
    return port


def carry(ports: list[int], rate: float, delay_s: float) -> None:
    """Host n has the hardware address 02:00:00:00:00:n, from 1; frames to any other go to all."""
    free_s = [0.0] * len(ports)
    waiting: list[deque[tuple[float, bytes]]] = [deque() for _ in ports]
    while True:
        due_s = min((queue[0][0] for queue in waiting if queue), default=float("inf"))
        wait_s = min(max(due_s - time.monotonic(), 0.0), 1.0)
        readable = select.select([0, *ports], [], [], wait_s)[0]
        if 0 in readable:
            return
        for source in readable:
            with suppress(BlockingIOError):
                for _ in range(_AT_ONCE):
                    frame = os.read(source, 1 << 17)
                    now_s = time.monotonic()
                    for number in receivers(frame, ports, source):
                        free_s[number] = max(now_s, free_s[number]) + (len(frame) - _HEADER_BYTES) / rate
                        waiting[number].append((free_s[number] + delay_s, frame))
        now_s = time.monotonic()
        for port, queue in zip(ports, waiting, strict=True):
            while queue and queue[0][0] <= now_s:
                with suppress(OSError):  # of a host that is not up yet
                    os.write(port, queue.popleft()[1])


def receivers(frame: bytes, ports: list[int], source: int) -> list[int]:
    address = frame[_HEADER_BYTES : _HEADER_BYTES + 6]
    if address[:5] == b"\x02\0\0\0\0" and 0 < address[5] <= len(ports):
        return [address[5] - 1]
    return [number for number, port in enumerate(ports) if port != source]


if __name__ == "__main__":
    main()
