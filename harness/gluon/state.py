"""The whole state of a learner as plain arrays and a few numbers: take it, put it back, and prove that it is the same.

Names are structural (`features.0.weight`, and `features.0.weight/0` for its first optimizer slot), so a state
belongs to
the network and to no rank or device. MXNet's own `save_states` pickles the optimizer and restarts Adam's counter on
another device (apache/mxnet#17357).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.errors import CheckpointError
from harness.gluon.apply import Applier

_SCALARS = {"nadam": ("m_schedule",)}  # numbers that some optimizers keep outside their slots


@dataclass(frozen=True)
class State:
    """A learner's state on the host.

    Attributes:
        parameters: weights and running statistics by structural name.
        slots: optimizer slots by `name/slot`.
        numbers: what is no array: applied learning rate, update counts, scalars of the optimizer; JSON can hold it.
    """

    parameters: dict[str, npt.NDArray[Any]]
    slots: dict[str, npt.NDArray[Any]]
    numbers: dict[str, Any]

    def digest(self) -> str:
        """sha256 over every name, dtype, shape and bit, in the order of the network."""
        total = hashlib.sha256()
        for kind in (self.parameters, self.slots):
            for name, array in kind.items():
                total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
                total.update(np.ascontiguousarray(array).data)
        total.update(json.dumps(self.numbers, sort_keys=True).encode())
        return total.hexdigest()


class StateKeeper:
    """Takes and restores the state of a network and its optimizer."""

    def __init__(self, parameters: Mapping[str, Any], trainable: Mapping[str, Any], applier: Applier, ctx: Any) -> None:
        """Bind what is kept.

        Args:
            parameters: all parameters by structural name, running statistics among them.
            trainable: those with a gradient; their order is the optimizer's index.
            applier: holds the optimizer's slots.
            ctx: the device.
        """
        self._parameters = parameters
        self._trainable = trainable
        self._applier = applier
        self._ctx = ctx

    def snapshot(self) -> State:
        """Copy everything to the host, once all pending work is done."""
        mx.nd.waitall()  # running statistics may be written after what depends on them was told
        return State(
            {name: parameter.data(self._ctx).asnumpy() for name, parameter in self._parameters.items()},
            {name: slot.asnumpy() for name, slot in self._slots()},
            self._numbers(),
        )

    def restore(self, state: State) -> None:
        """Put a state back, bit for bit.

        Raises:
            CheckpointError: naming every missing, unexpected or mis-shaped array; nothing has been changed then.
        """
        parameters = {name: parameter.data(self._ctx) for name, parameter in self._parameters.items()}
        slots = dict(self._slots())
        problems = [*misfits(parameters, state.parameters), *misfits(slots, state.slots)]
        if problems:
            raise CheckpointError("the state does not fit this network and optimizer:\n  " + "\n  ".join(problems))
        for targets, values in ((parameters, state.parameters), (slots, state.slots)):
            for name, target in targets.items():
                target[:] = mx.nd.array(values[name], ctx=self._ctx, dtype=values[name].dtype)
        self._set_numbers(state.numbers)
        mx.nd.waitall()

    def _slots(self) -> Iterator[tuple[str, Any]]:
        for index, name in enumerate(self._trainable):
            yield from _flatten(name, self._applier.updater.states[index])

    def _numbers(self) -> dict[str, Any]:
        optimizer = self._applier.optimizer
        counts = optimizer._index_update_count
        return {
            "applied_lr": self._applier.applied_lr,
            "num_update": optimizer.num_update,
            "update_counts": [counts.get(index, optimizer.begin_num_update) for index in range(len(self._trainable))],
            "scalars": {name: getattr(optimizer, name) for name in self._scalar_names()},
        }

    def _set_numbers(self, numbers: Mapping[str, Any]) -> None:
        optimizer = self._applier.optimizer
        self._applier.applied_lr = numbers["applied_lr"]
        optimizer.num_update = numbers["num_update"]
        counts = optimizer._index_update_count
        counts.clear()  # in place: it stands in a table by device as well
        started = {i: count for i, count in enumerate(numbers["update_counts"]) if count != optimizer.begin_num_update}
        counts.update(started)
        for name in self._scalar_names():
            setattr(optimizer, name, numbers["scalars"][name])

    def _scalar_names(self) -> tuple[str, ...]:
        return _SCALARS.get(type(self._applier.optimizer).__name__.lower(), ())


def misfits(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Every way in which two sets of named arrays differ in names or shapes, a sentence each."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not expected" for name in found if name not in expected]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(array.shape)}"
        for name, array in expected.items()
        if name in found and tuple(found[name].shape) != tuple(array.shape)
    ]
    return problems


def _flatten(name: str, slot: Any) -> Iterator[tuple[str, Any]]:
    if slot is None:
        return
    if isinstance(slot, list | tuple):
        for index, inner in enumerate(slot):
            yield from _flatten(f"{name}/{index}", inner)
    else:
        yield name if "/" in name else f"{name}/0", slot
