"""What tests of sums share: memory, values that show another order of addition, the tree written as its definition."""

from __future__ import annotations

import numpy as np

from harness.comm.tree import Assignment

PERIOD = 4999


def adversarial(shards: int, count: int, seed: int) -> list[np.ndarray]:
    """Values whose sums show another order: of all magnitudes, denormal, zeros of both signs, and their opposites.

    Long arrays repeat some thousands of them, a prime number, so that blocks of any size begin at other ones.
    """
    if count > PERIOD:
        return [np.resize(one, count) for one in adversarial(shards, PERIOD, seed)]
    random = np.random.default_rng(seed)
    kinds = [
        random.normal(size=(shards, count)) * 10.0 ** random.integers(-30, 30, (shards, count)),
        random.normal(size=(shards, count)) * 1e-41,
        random.choice([0.0, -0.0], (shards, count)),
    ]
    values = np.choose(random.integers(0, len(kinds), (shards, count)), kinds).astype(np.float32)
    cancelled = random.random(count) < 0.3
    for one, other in random.permutation(shards)[: shards // 2 * 2].reshape(-1, 2):
        values[other, cancelled] = -values[one, cancelled]
    values[:, 5::97] = -0.0  # of which the sum is -0.0 as well, unless a 0.0 is added to it
    return list(values)


def tree_sum(values: list[np.ndarray]) -> np.ndarray:
    """Term i with term i + h, where there is one, for h half of them, rounded up: the definition, written as such."""
    while len(values) > 1:
        half = -(-len(values) // 2)
        values = [values[i] + values[i + half] if i + half < len(values) else values[i] for i in range(half)]
    return values[0]


def partial_sums(values: list[np.ndarray], assignment: Assignment, worker: int) -> list[np.ndarray]:
    """What a worker holds after it has folded its shards."""
    parts: list[np.ndarray] = []
    for shard, merges in zip(assignment.shards[worker], assignment.merges[worker], strict=True):
        total = values[shard].copy()
        for _ in range(merges):
            total += parts.pop()
        parts.append(total)
    return parts


class Array(np.ndarray):
    """As much of an `mx.nd.NDArray` as a fold uses; slices are views of the same memory, there as here."""

    context = "a device"

    def wait_to_read(self):
        pass

    def copyto(self, other):
        other[:] = self


class Memory:
    """A buffer on the CPU, which NumPy may look into, or on another device."""

    made = 0

    def __init__(self, size, on_cpu):
        Memory.made += 1
        memory = np.full(size, np.nan, np.float32)
        self.array, self.host = memory.view(Array), memory if on_cpu else None

    def like(self, size):
        return Memory(size, self.host is not None)
