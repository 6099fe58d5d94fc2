"""Run by test_pmi_killed.py in a /dev/shm of its own: NUMBER jobs of two ranks under horovodrun, each killed. JSON.

What is killed, and when, is drawn: from when the ranks begin until they sum arrays. Every process of a job is
found by a variable that it inherits.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

RANK = """if True:
    import numpy as np
    from harness.comm import connect
    world = connect(device="cpu")
    assert world.kind.endswith("started by horovodrun"), world.remarks
    while True:
        world.allreduce(np.ones(100_000, np.float32), "sum")
"""
LAUNCH = [str(Path(sys.executable).with_name("horovodrun")), "--gloo", "-np", "2", sys.executable, "-c", RANK]
LONGEST_S, END_S = 5.0, 40.0


def members(mark):
    """Processes of a job by what they are: launcher, rank, server (and what horovodrun puts between them)."""
    found = {"launcher": [], "rank": [], "server": [], "other": []}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                is_python = words[0].endswith(b"python") or b"python3" in words[0]
                kind = "launcher" if any(word.endswith(b"/horovodrun") for word in words[:2]) else "other"
                if is_python and b"-c" in words[:2] and RANK.encode() in words:
                    kind = "rank"
                if any(word.endswith(b"pmi_server.py") for word in words):
                    kind = "server"
                found[kind].append(int(entry.name))
    return found


def kill(pids):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


generator = random.Random(int(sys.argv[2]))
result = {"killed": {}, "with_server": 0, "slowest_s": 0.0, "left": []}
for _ in range(int(sys.argv[1])):
    name = f"KILLED_JOB={uuid.uuid4().hex}".encode()
    key, _, value = name.decode().partition("=")
    job = subprocess.Popen(
        LAUNCH,
        env={**os.environ, key: value},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    what = generator.choice(("rank", "ranks", "launcher", "launcher and ranks"))
    while not members(name)["rank"]:
        time.sleep(0.02)
    time.sleep(generator.uniform(0.0, LONGEST_S))
    found = members(name)
    result["with_server"] += bool(found["server"])
    ranks = generator.sample(found["rank"], 1) if what == "rank" else found["rank"] if "ranks" in what else []
    kill([*(found["launcher"] if "launcher" in what else []), *ranks])
    result["killed"][what] = result["killed"].get(what, 0) + 1
    began = time.monotonic()
    while any(members(name).values()) and time.monotonic() - began < END_S:
        job.poll()
        time.sleep(0.05)
    result["slowest_s"] = round(max(result["slowest_s"], time.monotonic() - began), 1)
    left = members(name)
    result["left"] += [f"{kind} after {what}" for kind, pids in left.items() for _ in pids]
    kill([pid for pids in left.values() for pid in pids])
    job.wait()
# horovodrun's own semaphores, which it leaves when it is killed, are not ours
result["left"] += [path.name for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem.mp-")]
print(json.dumps(result))
