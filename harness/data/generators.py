"""The global random generators that items may draw from: Python's, NumPy's, and MXNet's if one is given.

Other code uses them too, so code that seeds them here restores Python's and NumPy's. MXNet's cannot be read, so
code that draws from it afterwards seeds it first.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple

import numpy as np

SeedMore = Callable[[int], None]


@dataclass(frozen=True)
class Seeding:
    """Makes the random numbers of an item a function of `(seed, epoch, index)`.

    Attributes:
        seed: the run's seed.
        more: seeds another generator (MXNet's) with a 31-bit number; None if items do not use it.
    """

    seed: int
    more: SeedMore | None = None

    def begin(self, index: int, epoch: int = 0, seed: int | None = None) -> None:
        """Seed the generators for one item."""
        number = number_of(f"item/{self.seed if seed is None else seed}/{epoch}/{index}")
        seed_generators(number, self.more)


def number_of(key: str) -> int:
    """A 31-bit number that depends on a text."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little") >> 1


def generator_of(key: str) -> np.random.Generator:
    """A generator of its own, whose numbers depend on a text alone: Philox, keyed by a hash of it."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


class Reading(NamedTuple):
    """The result of reading one item.

    Attributes:
        digest: of its values.
        drew: whether it drew from Python's or NumPy's generator.
    """

    digest: bytes
    drew: bool


def seed_generators(number: int, more: SeedMore | None) -> None:
    """Seed Python's, NumPy's and optionally another generator with one 31-bit number."""
    random.seed(number)
    np.random.seed(number)
    if more is not None:
        more(number)


@contextmanager
def kept_generators(needed: object = True) -> Iterator[None]:
    """Restore Python's and NumPy's generators after the block; does nothing for None."""
    if needed is None:
        yield
        return
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def states() -> tuple[object, ...]:
    """The states of Python's and NumPy's generators, for comparison."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest


class Watch:
    """Detects whether Python code of a package runs within a block, in this thread; if in doubt, assumes so.

    The user's own profiler stays in place.
    """

    def __init__(self, package: str) -> None:
        """Nothing is watched before the block."""
        self._package = package
        self._may_look = sys.getprofile() is None
        self.has_called = not self._may_look

    def __enter__(self) -> None:
        """Begin to watch."""
        if self._may_look:
            sys.setprofile(self._see)

    def __exit__(self, *_: object) -> None:
        """End."""
        if self._may_look:
            sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and str(frame.f_globals.get("__name__", "")).partition(".")[0] == self._package:
            self.has_called = True
