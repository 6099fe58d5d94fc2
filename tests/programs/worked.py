"""Items that worker processes read: drawn at random, of any length, and such as raise, end their process, or hang."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

FAULTY = (30, 17)  # items


def in_worker() -> bool:
    return getattr(sys.modules["__main__"].__spec__, "name", "").startswith("harness.data.workers")


class Items:
    """Points `(4,)` whose class is a number from 0 to 2; they draw from the generators of Python and NumPy."""

    def __init__(self, count: int, fault: str = "", draws: bool = True, marker: str = "") -> None:
        self.count, self.fault, self.draws, self.marker = count, fault, draws, marker

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if index in FAULTY and self.fault:
            self.fail(index)
        noise = (random.random(), np.random.rand()) if self.draws else (0.5, 0.5)
        return np.float32([index % 3, (index % 3) ** 2, *noise]), index % 3

    def fail(self, index: int) -> None:
        if self.fault == "raises":
            raise KeyError(f"nothing for {index}")
        if self.fault == "leaves":
            sys.exit(4)
        if not in_worker():
            return
        if self.fault == "exits":
            os._exit(5)
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "crashes":
            ctypes.string_at(0)
        if self.fault == "hangs":
            time.sleep(1000)
        if self.fault == "deaf":  # to all but SIGKILL, and busy
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1}:
                signal.signal(number, signal.SIG_IGN)
            if self.marker:
                Path(self.marker).touch()
            time.sleep(1000)


def points(count: int = 60, fault: str = "", draws: bool = True, marker: str = ""):
    return {"train": Items(count, fault, draws, marker), "test": Items(21, "", draws), "num_classes": 3}


def other_in_a_worker(count: int = 60):
    return {"train": Items(count + in_worker(), draws=False), "num_classes": 3}


def unloadable_in_a_worker():
    if in_worker():
        raise OSError("no such volume")
    return points()


class Lines:
    """Texts."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int):
        return "abcdefgh"[: 1 + index % 8], index % 2


def lines():
    return {"train": Lines(), "test": Lines()}


def letters(item, random):
    text, odd = item
    ids = np.array([ord(letter) for letter in text], np.float32)
    if random is not None:
        ids = ids + random.normal(size=len(ids)).astype(np.float32)
    return (ids, np.float32([odd])), np.array([odd] * len(text))


class MXNetItems(Items):
    """They draw from MXNet's generator too."""

    def __getitem__(self, index: int):
        import mxnet as mx

        point, label = super().__getitem__(index)
        return mx.nd.array(point) + mx.nd.random.uniform(shape=(4,)) / 10, label


def points_of_mxnet():
    return {"train": MXNetItems(60), "test": MXNetItems(21), "num_classes": 3}


def wide(width: int):
    return {"train": [(np.full(width, number, np.float32), number % 3) for number in range(9)], "num_classes": 3}


def tagger():
    from mxnet.gluon import nn

    class Tagger(nn.HybridBlock):
        """A score for each letter."""

        def __init__(self) -> None:
            super().__init__()
            with self.name_scope():
                self.out = nn.Dense(2, flatten=False)

        def hybrid_forward(self, F, letters, odd):
            letters = letters.expand_dims(2)
            return self.out(F.concat(letters, F.broadcast_like(odd.expand_dims(1), letters), dim=2))

    return Tagger()


def over_letters():
    import mxnet as mx

    def loss(scores, label):
        losses = -mx.nd.pick(mx.nd.log_softmax(scores), label)
        return losses, mx.nd.ones_like(losses)

    return loss


class SlowItems(Items):
    """They take their time."""

    def __init__(self, count: int, ms: float) -> None:
        super().__init__(count, draws=False)
        self.ms = ms

    def __getitem__(self, index: int):
        time.sleep(self.ms / 1e3)
        return super().__getitem__(index)


def slow_points(ms: float = 0.0):
    return {"train": SlowItems(60, ms), "num_classes": 3}
