"""The whole state of a learner as plain arrays and a few numbers: saved, loaded, compared, proved by a digest.

Names are structural (`features.0.weight`, and `features.0.weight/0` for the first array that the optimizer keeps for
it), so a state belongs to the network and to no rank or device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.checkpoint import read_arrays, read_numbers, write_checkpoint
from harness.errors import CheckpointError, listed


@dataclass(frozen=True)
class LearnerState:
    """A learner's state on the host.

    Attributes:
        parameters: weights and running statistics by structural name.
        optimizer_state: the optimizer's arrays (momenta, moments, ...) by `name/number`.
        numbers: scalars that belong to the state: applied learning rate, update counts, the optimizer's own; JSON can
            hold them; of several learners (`Learners`) those of each under `learners`.
        carried: what shards carry from one update to the next, by `shard/name`; empty where they carry nothing.
        averages: the moving average of weights and statistics by structural name; empty where there is none yet.
    """

    parameters: dict[str, npt.NDArray[Any]]
    optimizer_state: dict[str, npt.NDArray[Any]]
    numbers: dict[str, Any]
    carried: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    averages: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def digest(self) -> str:
        """sha256 over every name, dtype, shape and bit, in the order of the network."""
        kinds = [self.parameters.items(), self.optimizer_state.items(), sorted(self.carried.items())]
        return digest_of([*kinds, sorted(self.averages.items())], self.numbers)

    @property
    def arrays(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """The arrays by kind, as a checkpoint holds them."""
        kinds = {"parameters": self.parameters, "slots": self.optimizer_state}
        optional = {"carried": self.carried, "averages": self.averages}
        return {**kinds, **{kind: arrays for kind, arrays in optional.items() if arrays}}

    def save(self, folder: Path, iteration: int) -> Path:
        """Write a checkpoint from a loop of one's own: the state after an iteration, complete or not at all.

        Args:
            folder: of the checkpoints; it must exist.
            iteration: the last update that the state contains.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: if it cannot be written.
        """
        return write_checkpoint(folder, iteration, self.arrays, {"state": {"iteration": iteration, **self.numbers}})

    @classmethod
    def load(cls, path: Path) -> LearnerState:
        """The state in a checkpoint; `newest_valid` finds one that passes verification.

        Raises:
            CheckpointError: if the checkpoint cannot be read, is not valid, or holds weights alone.
        """
        numbers = read_numbers(path)
        if numbers is None:
            raise CheckpointError(f"{path}: holds weights alone and no state; learner.load_weights takes them")
        arrays = read_arrays(path)
        optional = (arrays.get(kind, {}) for kind in ("carried", "averages"))
        return cls(arrays["parameters"], arrays["slots"], numbers, *optional)


def mismatches(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Every way in which two groups of named arrays differ in names, dtypes or shapes, a sentence each."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not expected" for name in found if name not in expected]
    problems += [
        f"{name} is {_form(found[name])}, expected {_form(array)}"
        for name, array in expected.items()
        if name in found and _form(found[name]) != _form(array)
    ]
    return problems


def not_finite(arrays: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """The names of the arrays that hold a NaN or an infinity."""
    return [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]


def refuse_not_finite(state: LearnerState, path: str) -> None:
    """Refuse a checkpoint that no run has saved: weights, statistics and optimizer state were finite then.

    Raises:
        CheckpointError: naming the arrays.
    """
    carried = {f"carried {name}": array for name, array in state.carried.items()}
    averages = {f"average {name}": array for name, array in state.averages.items()}
    damaged = not_finite({**state.parameters, **state.optimizer_state, **carried, **averages})
    if damaged:
        raise CheckpointError(
            f"{path}: holds numbers that are not finite, in{listed(damaged)}\nresume from an earlier checkpoint "
            "(--resume PATH)"
        )


def digest_of(kinds: Iterable[Iterable[tuple[str, npt.NDArray[Any]]]], numbers: Mapping[str, Any]) -> str:
    """sha256 over groups of named arrays and the scalars that belong to them."""
    total = hashlib.sha256()
    for kind in kinds:
        for name, array in kind:
            total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            total.update(np.ascontiguousarray(array).data)
    total.update(json.dumps(numbers, sort_keys=True).encode())
    return total.hexdigest()


def _form(array: Any) -> str:
    return f"{np.dtype(array.dtype)} {tuple(array.shape)}"
