"""Schedules of a user's own that are functions of the iteration, and many that are not."""

import datetime
import itertools
import os
import random
import time
from datetime import date
from fractions import Fraction

import mxnet as mx
import numpy as np

from harness.schedules import CosineAnnealingSchedule, LinearWarmUp

_CALLS = itertools.count()
_BUILT = itertools.count()
_SHARED = mx.lr_scheduler.FactorScheduler(step=5, factor=0.5, base_lr=0.1)


def good(lr: float, length: int = 100):
    """Draws its table from a generator of its own."""
    table = np.random.RandomState(3).rand(length) * lr
    return lambda t: table[t % length]


def noisy(lr: float):
    return lambda t: lr * (1 + 0.01 * np.random.rand())


def noisy_of_python(lr: float):
    return lambda t: lr * (1 + 0.01 * random.random())


def noisy_of_mxnet(lr: float):
    return lambda t: lr * (1 + 0.01 * float(mx.nd.random.uniform(shape=1).asscalar()))


def drawn_when_built(lr: float):
    peak = lr * (1 + 0.01 * np.random.rand())
    return lambda t: peak / t if t else peak


def drawn_inside(lr: float):
    """One of the harness's own schedules, and in it a callable that is none."""
    return LinearWarmUp(noisy(lr), 0.0, 5)


def counting(lr: float):
    return lambda t: lr / (1 + next(_CALLS))


def counting_builds(lr: float):
    peak = lr / (1 + next(_BUILT))
    return lambda t: peak


def counting_late(lr: float):
    """The first hundred answers are right."""
    seen: list[int] = []

    def rate(t: int) -> float:
        seen.append(t)
        return lr if len(seen) < 100 else lr / 2

    return rate


class Decaying:
    """Remembers the largest iteration that it was asked, as many schedulers do."""

    def __init__(self, lr: float) -> None:
        self.lr, self.last = lr, 0

    def __call__(self, t: int) -> float:
        self.last = max(self.last, t)
        return self.lr / (1 + self.last)


def decaying(lr: float):
    return Decaying(lr)


def by_the_clock(lr: float):
    return lambda t: lr * (1 + int(time.time()) % 100_000 / 1e6)


def by_the_date(lr: float):
    return lambda t: lr * (1 + datetime.datetime.now().microsecond / 1e6)


def by_the_day(lr: float):
    return lambda t: lr * (1 + date.today().toordinal() % 1000 / 1e6)


def by_the_hour(lr: float):
    return lambda t: lr * (1 + datetime.datetime.now().timestamp() // 3600 % 1000 / 1e6)


def by_the_uptime(lr: float):
    return lambda t: lr * (1 + time.monotonic() // 1000 % 1000 / 1e6)


def by_the_calendar(lr: float):
    return lambda t: lr * (1 + time.localtime().tm_yday / 1e6)


def by_the_process(lr: float):
    return lambda t: lr * (1 + os.getpid() / 1e9)


def of_environment(lr: float, variable: str = "HARNESS_TEST_LR"):
    return lambda t: float(os.environ.get(variable, lr))


def needs_environment(lr: float):
    peak = float(os.environ["HARNESS_TEST_LR"])
    return lambda t: peak


def of_rank(lr: float):
    """Told by MPI, which the environment's variables do not show."""
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.Get_rank()
    return lambda t: lr * (1 + rank)


def shared_of_mxnet():
    """One object of MXNet for whoever asks; it remembers, and is replayed."""
    return _SHARED


def of_harness(lr: float, length: int):
    return CosineAnnealingSchedule(0, lr, length)


VALUES = {
    "none": None,
    "text": "0.1",
    "flag": True,
    "complex": 0.1 + 0j,
    "nan": float("nan"),
    "inf": float("inf"),
    "negative": -0.1,
    "list": [0.1],
    "huge": 10**400,
    "numpy": np.float32(0.5),
    "numpy_0d": np.array(0.5),
    "fraction": Fraction(1, 2),
    "whole": 1,
}


def giving(what: str, after: int = 0):
    return lambda t: VALUES[what] if t > after else 0.5


def failing(after: int):
    table = [0.1] * after
    return lambda t: table[t]


def leaving():
    return lambda t: exit(3)


def slow(s: float):
    def rate(t: int) -> float:
        time.sleep(s)
        return 0.1

    return rate
