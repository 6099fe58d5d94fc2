"""Hooks that tests name: one that keeps what it is told in a file, and others that do what they should not."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import numpy as np

from harness.hooks import Amended, Ask, Ended, Evaluated, Logged, Opened, Saved, WorldChanged


def told(event) -> list:
    """What an event says, as plain data; what only clocks know is left out."""
    clocks = ("time", "images_per_s")
    if isinstance(event, Logged | Evaluated):
        lines = [event.line] if isinstance(event, Logged) else event.lines
        content = [{key: value for key, value in line.to_json().items() if key not in clocks} for line in lines]
    elif isinstance(event, Opened):
        content = [event.start.after, event.start.ranks]
    elif isinstance(event, Amended):
        content = event.amendment.to_json()
    elif isinstance(event, WorldChanged):
        content = [event.before, event.after]
    elif isinstance(event, Ended):
        content = [event.outcome.exit_code, event.outcome.cause]
    else:
        assert isinstance(event, Saved)
        content = event.checkpoint.name
    return [type(event).__name__, event.iteration, content]


def keep(event, path: str) -> None:
    """Append what is told to a file, on disk before it returns: whoever is killed afterwards has told it."""
    with Path(path).open("a") as file:
        file.write(json.dumps(told(event)) + "\n")


def disturb(event) -> None:
    """Draw from every generator, change what a process has, and write to whatever can be written to."""
    import mxnet as mx

    random.random(), np.random.rand(5), mx.nd.random.uniform(shape=3).asnumpy()
    random.seed(0), np.random.seed(0), mx.random.seed(0)
    np.seterr(all="ignore")
    os.chdir("/")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    if isinstance(event, Opened):
        event.config.clear()
    if isinstance(event, Logged):
        event.line.values.clear()
    if isinstance(event, Evaluated):
        for line in event.lines:
            line.values.clear()


def fail(event) -> None:
    """An error in every line of metrics, and another at the end."""
    if isinstance(event, Logged):
        raise KeyError("no such thing")
    if isinstance(event, Ended):
        raise SystemExit(3)


def ask(event, at: int, save: bool = False, stop: bool = False) -> Ask | None:
    """Ask once `at` is logged."""
    return Ask(save, stop, "enough") if isinstance(event, Logged) and event.iteration == at else None


def count(event) -> int:
    """What is no answer."""
    return 3
