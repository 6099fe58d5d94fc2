"""Stands in for `python`: has the server at the socket FORK_SERVER fork a process that runs the same command.

That process gets this one's arguments, environment, folder, CPUs and open files; it is sent every signal that this one
receives, is killed when this one ends, and this one ends as it does. Where the server refuses, or is gone, this
process becomes an ordinary Python. Runs with `-I -S`, to begin in a few milliseconds, so it imports little.
"""

import array
import json
import os
import signal
import socket
import struct
import sys

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def open_files():
    """The numbers of this process's open files, but for the one that lists them."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.append(int(name))
    return sorted(found)


def main():
    arguments = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until there is a process that they can be sent to
    files = open_files()
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(os.environ["FORK_SERVER"])
        job = {
            "arguments": arguments,
            "environ": dict(os.environ),
            "cwd": os.getcwd(),
            "parent": os.getppid(),
            "cpus": sorted(os.sched_getaffinity(0)),
            "files": files,
        }
        message = json.dumps(job).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
        server.sendmsg([struct.pack("!I", len(message))], rights)
        server.sendall(message)
        accepted = server.recv(1) == b"y"
    except (OSError, KeyError):
        accepted = False
    if not accepted:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        os.execv(sys.executable, [sys.executable, *arguments])

    def forward(received, _):
        try:
            server.send(bytes([received]))
        except OSError:
            return  # the job has ended, and so does this process

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    answer = b""
    while len(answer) < 4:
        more = server.recv(4 - len(answer))
        if not more:
            os._exit(99)  # the server itself was killed
        answer += more
    (status,) = struct.unpack("!i", answer)
    if status >= 0:
        os._exit(status)
    signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -status)
    os._exit(128 - status)


main()
