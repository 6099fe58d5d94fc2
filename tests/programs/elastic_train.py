"""`launch/train.py` as a worker of an elastic job, with faults: FOLDER, then train.py's own arguments.

The worker keeps a note of itself in FOLDER/workers/PID.json: its host and, once it trains, its rank and the size of its
world. FOLDER/pause has the seconds that every update takes longer, for somebody who waits for others to join.
FOLDER/faults.json is a list of faults (`Fault` in `tests/jobs/elastic.py`), each of which strikes once in the job: the
worker that creates FOLDER/struck-NUMBER is struck. SIGUSR2 makes a worker write the stacks of its threads to
FOLDER/workers/PID.stacks.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import functools
import json
import os
import runpy
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import harness.guard.watch
from harness import processes
from harness.comm.elastic.connecting import Connector
from harness.files import replace_file

FOLDER = Path(sys.argv.pop(1))
HOST = os.environ["HOROVOD_HOSTNAME"]
FAULTS = dict(enumerate(json.loads((FOLDER / "faults.json").read_text())))
NOTE = {"pid": os.getpid(), "began": processes.began(os.getpid()), "host": HOST, "rank": None, "size": None, "t": None}
SO_ATTACH_FILTER = 26
AT = {"t": 0, "updates": 0, "is_first": False}  # in this process


def show(**changes):
    NOTE.update(changes)
    replace_file(FOLDER / "workers" / f"{os.getpid()}.json", json.dumps(NOTE).encode())


def strike(number, fault):
    """Be struck, unless another worker was by the same fault."""
    own = FOLDER / f"strikes-{number}-{os.getpid()}"
    own.write_text(json.dumps({**fault, **NOTE, "t": AT["t"], "time": time.time()}))
    with suppress(FileExistsError):
        os.link(own, FOLDER / f"struck-{number}")
        if fault["what"] == "cut":
            cut_off()
        else:
            number = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "term": signal.SIGTERM}[fault["what"]]
            os.kill(os.getpid(), number)


def cut_off():
    """From now on what this process sends goes nowhere, nothing arrives, and the other ends are told nothing."""
    no_byte = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # a filter of packets
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                keep = struct.pack("HL", 1, ctypes.addressof(no_byte))
                one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, keep)
                way = b"\x83\x07\x04" + socket.inet_aton("192.0.2.1") + b"\0"  # by a router that does not exist
                one.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, way)
                one.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)  # for which the way is looked for again

    def unreachable(*_):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    socket.socket.connect = unreachable


def meet(moment, rank=None, t=None):
    """Whatever strikes at a moment on this rank, now or a little later."""
    for number, fault in FAULTS.items():
        is_here = fault["rank"] in (rank, None) and fault["host"] in (HOST, None) and fault["t"] in (t, None)
        is_its_turn = fault["after"] is None or (FOLDER / f"struck-{fault['after']}").exists()
        if fault["moment"] == moment and is_here and is_its_turn:
            if fault["delay_s"]:
                later = threading.Timer(fault["delay_s"], strike, (number, fault))
                later.daemon = True
                later.start()
            else:
                strike(number, fault)


def pause_s():
    try:
        return float((FOLDER / "pause").read_text())
    except (OSError, ValueError):
        return 0.0


def plant():
    """Into what an update, an evaluation, a checkpoint and a change of the world consist of."""
    from harness.comm.elastic import DriverMembership
    from harness.comm.horovod import HorovodWorld
    from harness.command.job import JobContext
    from harness.gluon.learner import Learner  # MXNet must not be imported before the number of threads is settled
    from harness.gluon.replica import DeviceReplica
    from harness.gluon.step import OptimizerStep
    from harness.train.saving import Saver

    def here(moment):
        meet(moment, NOTE["rank"], AT["t"])

    def around(owner, name, before=None, after=None):
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def planted(*arguments, **named):
            if before is not None:
                before(*arguments)
            result = plain(*arguments, **named)
            if after is not None:
                after(*arguments)
            return result

        setattr(owner, name, planted)

    def update_begins(learner, batch, *_):
        world = learner.world
        AT.update(t=batch.t, updates=AT["updates"] + 1)
        if (NOTE["rank"], NOTE["size"]) != (world.rank, world.size):
            show(rank=world.rank, size=world.size, t=batch.t)
            AT["is_first"] = True
        time.sleep(pause_s())
        if AT["updates"] == 5:  # not a moment of training, where faults say which update they mean
            here("finder")

    def update_ends(*_):
        if AT["is_first"]:
            AT["is_first"] = False
            with (FOLDER / "worlds.jsonl").open("a") as file:
                file.write(json.dumps({**NOTE, "time": time.time()}) + "\n")
        here("after the update")

    around(Learner, "update", update_begins, update_ends)
    around(DeviceReplica, "process", lambda *_: here("forward"))
    around(HorovodWorld, "sum_parts", lambda *_: here("sum"))
    around(OptimizerStep, "step", lambda *_: here("step"))
    around(Learner, "predict_from", lambda *_: here("evaluation"))
    around(Saver, "save", after=lambda *_: here("checkpoint"))
    around(DriverMembership, "next_world", lambda *_: here("reshape"))
    around(JobContext, "enter", lambda *_: here("enter"), lambda *_: here("entered"))


plain_open = harness.guard.watch.Guard.open


plain_connect = Connector.connect


def connect_first(connector, *arguments):
    meet("connect")
    return plain_connect(connector, *arguments)


def open_and_plant(guard):
    harness.guard.watch.Guard.open = plain_open
    plain_open(guard)
    plant()


harness.guard.watch.Guard.open = open_and_plant
faulthandler.register(signal.SIGUSR2, (FOLDER / "workers" / f"{os.getpid()}.stacks").open("w"))
Connector.connect = connect_first
show()
meet("start")
runpy.run_path("launch/train.py", run_name="__main__")
