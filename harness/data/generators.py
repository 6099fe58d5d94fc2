"""The global generators of random numbers that items may draw from: Python's, NumPy's, and MXNet's if one is given.

Others seed and read them too, so whoever seeds them here puts Python's and NumPy's back. MXNet's cannot be read, and
whoever draws from it afterwards seeds it first.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SeedMore = Callable[[int], None]


@dataclass(frozen=True)
class Seeding:
    """Makes what is drawn while an item is read a function of `(seed, epoch, index)`.

    Attributes:
        seed: the run's seed.
        more: seeds another generator (MXNet's) with a number of 31 bits; None where items do not use it.
    """

    seed: int
    more: SeedMore | None = None

    def begin(self, index: int, epoch: int = 0, seed: int | None = None) -> None:
        """Seed the generators for one item."""
        number = number_of(f"item/{self.seed if seed is None else seed}/{epoch}/{index}")
        seed_generators(number, self.more)


def number_of(key: str) -> int:
    """31 bits that depend on a text."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little") >> 1


class Reading(NamedTuple):
    """What reading one item showed.

    Attributes:
        digest: of its values.
        drew: whether Python's or NumPy's generator was drawn from.
    """

    digest: bytes
    drew: bool


def seed_generators(number: int, more: SeedMore | None) -> None:
    """Seed Python's, NumPy's and perhaps another generator with one number of 31 bits."""
    random.seed(number)
    np.random.seed(number)
    if more is not None:
        more(number)


@contextmanager
def kept_generators(needed: object = True) -> Iterator[None]:
    """Put Python's and NumPy's generators back to where they were before the block; does nothing for None."""
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
    """Where Python's and NumPy's generators are, to be compared."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest
