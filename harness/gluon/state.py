"""The whole state of a learner as plain arrays and a few numbers: take it, put it back, and prove that it is the same.

Names are structural (`features.0.weight`, and `features.0.weight/0` for its first optimizer slot), so a state
belongs to the network and to no rank or device. MXNet's own `save_states` pickles the optimizer and restarts Adam's
counter on another device (apache/mxnet#17357).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.checkpoint import read_arrays, read_numbers, write_checkpoint
from harness.errors import CheckpointError, DisagreementError, listed
from harness.gluon.step.step import OptimizerStep
from harness.model.parameters import held

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
        return _digest((self.parameters.items(), self.slots.items()), self.numbers)

    @property
    def arrays(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """The arrays by kind, as a set holds them."""
        return {"parameters": self.parameters, "slots": self.slots}

    def save(self, folder: Path, iteration: int) -> Path:
        """Write a set of a loop of one's own: the state after an iteration, whole or not at all.

        Args:
            folder: of the sets; it must be there.
            iteration: the last update that the state contains.

        Returns:
            The set's folder.

        Raises:
            CheckpointError: if it cannot be written.
        """
        return write_checkpoint(folder, iteration, self.arrays, {"state": {"iteration": iteration, **self.numbers}})

    @classmethod
    def load(cls, path: Path) -> State:
        """The state in a set; `newest_valid` finds one whose every byte is what was written.

        Raises:
            CheckpointError: if the set cannot be read, says what cannot be, or holds weights alone.
        """
        numbers = read_numbers(path)
        if numbers is None:
            raise CheckpointError(f"{path}: holds weights alone and no state; learner.load_weights takes them")
        return cls(**read_arrays(path), numbers=numbers)


class StateKeeper:
    """Takes and restores the state of a network and its optimizer."""

    def __init__(
        self,
        parameters: Mapping[str, Any],
        trainable: Mapping[str, Any],
        applier: OptimizerStep,
        contexts: Sequence[Any],
    ) -> None:
        """Bind what is kept; of several devices, which hold the same, the first is read and all are written.

        Args:
            parameters: all parameters by structural name, running statistics among them.
            trainable: those with a gradient; their order is the optimizer's index.
            applier: holds the optimizer's slots.
            contexts: the devices.
        """
        self._parameters = parameters
        self._trainable = trainable
        self._applier = applier
        self._contexts = contexts

    def snapshot(self, reuse: State | None = None) -> State:
        """Copy everything to the host, once all pending work is done.

        Args:
            reuse: an earlier snapshot of this keeper that nobody needs any more; its memory is written over.
        """
        mx.nd.waitall()  # running statistics may be written after what depends on them was told
        return State(
            _to_host(self._current_parameters(), {} if reuse is None else reuse.parameters),
            _to_host(dict(self._slots()), {} if reuse is None else reuse.slots),
            self.numbers(),
        )

    def digest(self) -> str:
        """The digest of a snapshot, without keeping one."""
        mx.nd.waitall()
        kinds = (self._current_parameters().items(), self._slots())
        on_host = (((name, array.asnumpy()) for name, array in kind) for kind in kinds)
        return _digest(on_host, self.numbers())

    def is_finite(self) -> bool:
        """Whether every weight, statistic and slot is finite, and not so large that its square is none."""
        arrays = [*self._current_parameters().values(), *(slot for _, slot in self._slots())]
        squares = mx.nd.concat(*[_square(array) for array in arrays], dim=0)
        return bool(np.isfinite(squares.asnumpy()).all())

    def checksums(self) -> dict[str, int]:
        """A CRC-32 of the bits of every array; nothing is kept on the host.

        Raises:
            DisagreementError: if the devices of this process hold different bits.
        """
        mx.nd.waitall()
        found = [
            {name: zlib.crc32(_bytes(array.asnumpy())) for name, array in arrays.items()} for arrays in self._copies()
        ]
        for ctx, sums in zip(self._contexts[1:], found[1:], strict=False):
            different = [name for name, value in sums.items() if value != found[0][name]]
            if different:
                raise DisagreementError(
                    f"{ctx} holds other bits than {self._contexts[0]} of {', '.join(different)}; they began alike and "
                    "took the same sums: a device of another kind, or a fault in its memory"
                )
        return found[0]

    def mismatches(self, state: State) -> list[str]:
        """Every array of a state that this network and optimizer do not have or have otherwise, and the reverse."""
        problems = mismatches(self._current_parameters(), state.parameters)
        problems += mismatches(dict(self._slots()), state.slots)
        counts, names = state.numbers["update_counts"], self._scalar_names()
        if len(counts) != len(self._trainable):
            problems.append(f"update_counts has {len(counts)} entries, expected {len(self._trainable)}")
        if set(state.numbers["scalars"]) != set(names):
            found = ", ".join(state.numbers["scalars"]) or "none"
            problems.append(f"scalars are {found}, expected {', '.join(names) or 'none'}")
        return problems

    def restore(self, state: State) -> None:
        """Put a state back, bit for bit.

        Raises:
            CheckpointError: naming every missing, unexpected or mis-shaped array; nothing has been changed then.
        """
        problems = self.mismatches(state)
        if problems:
            raise CheckpointError(f"the state does not fit this network and optimizer:{listed(problems)}")
        self.write({**state.parameters, **state.slots})
        self._set_numbers(state.numbers)

    def share_parameters(self, broadcast: Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
        """Make weights and running statistics of rank 0 those of every rank.

        Args:
            broadcast: gives every rank rank 0's array under a name.
        """
        self._share(self._current_parameters(), broadcast)

    def share(
        self, broadcast: Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]], send: Callable[[Any, str], Any]
    ) -> None:
        """Make the state of rank 0 that of every rank.

        Args:
            broadcast: gives every rank rank 0's array under a name.
            send: gives every rank rank 0's value, which JSON can hold, under a name.
        """
        self._share({**self._current_parameters(), **dict(self._slots())}, broadcast)
        self._set_numbers(send(self.numbers(), "learner.numbers"))

    def _share(self, arrays: Mapping[str, Any], broadcast: Callable[..., npt.NDArray[Any]]) -> None:
        mx.nd.waitall()
        for name, array in arrays.items():  # one by one, so that but one lies on the host at a time
            self.write({name: broadcast(name, array.asnumpy())})

    def write(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill the arrays that are named, on every device; a kvstore takes over what they then hold."""
        for arrays in self._copies():
            overwrite({name: array for name, array in arrays.items() if name in values}, values)
        self._applier.take_weights()

    def _copies(self) -> list[dict[str, Any]]:
        """Every array by name, once for each device; a kvstore's slots appear but once."""
        slots = [dict(self._slots(updater)) for updater in self._applier.updaters]
        more = slots[1:] + [{}] * (len(self._contexts) - len(slots))
        return [
            {**self._current_parameters(ctx), **own} for ctx, own in zip(self._contexts, [slots[0], *more], strict=True)
        ]

    def _current_parameters(self, ctx: Any = None) -> dict[str, Any]:
        return {name: held(parameter, ctx or self._contexts[0]) for name, parameter in self._parameters.items()}

    def _slots(self, updater: Any = None) -> Iterator[tuple[str, Any]]:
        for index, name in enumerate(self._trainable):
            yield from _flatten(name, (updater or self._applier.updaters[0]).states[index])

    def numbers(self) -> dict[str, Any]:
        """What is no array."""
        optimizer = self._applier.optimizer
        begin = optimizer.begin_num_update
        tables = optimizer._all_index_update_counts.values()  # one for each device that it has met
        return {
            "applied_lr": self._applier.applied_lr,
            "num_update": optimizer.num_update,
            "update_counts": [
                max(table.get(index, begin) for table in tables) for index in range(len(self._trainable))
            ],
            "scalars": {name: getattr(optimizer, name) for name in self._scalar_names()},
        }

    def _set_numbers(self, numbers: Mapping[str, Any]) -> None:
        self._applier.applied_lr = numbers["applied_lr"]
        for updater in self._applier.updaters:
            optimizer = updater.optimizer
            optimizer.num_update = numbers["num_update"]
            counts = {i: n for i, n in enumerate(numbers["update_counts"]) if n != optimizer.begin_num_update}
            for ctx in self._contexts:
                optimizer._set_current_context(ctx.device_id)
            for table in optimizer._all_index_update_counts.values():
                table.clear()  # in place: the current one stands beside them as well
                table.update(counts)
            for name in self._scalar_names():
                setattr(optimizer, name, numbers["scalars"][name])

    def _scalar_names(self) -> tuple[str, ...]:
        return _SCALARS.get(type(self._applier.optimizer).__name__.lower(), ())


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


def refuse_not_finite(state: State, path: str) -> None:
    """Refuse a checkpoint that no run has saved: weights, statistics and slots were finite then.

    Raises:
        CheckpointError: naming the arrays.
    """
    damaged = not_finite({**state.parameters, **state.slots})
    if damaged:
        raise CheckpointError(
            f"{path}: holds numbers that are not finite, in{listed(damaged)}\nresume from an earlier checkpoint "
            "(--resume PATH)"
        )


def overwrite(targets: Mapping[str, Any], values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Fill device arrays from host arrays of the same names, dtypes and shapes; returns when it is done."""
    for name, target in targets.items():
        # through an array of MXNet: one that oneDNN has laid out for itself cannot be written to directly
        mx.nd.from_numpy(np.ascontiguousarray(values[name])).copyto(target)
    mx.nd.waitall()


def _digest(kinds: Iterable[Iterable[tuple[str, npt.NDArray[Any]]]], numbers: Mapping[str, Any]) -> str:
    total = hashlib.sha256()
    for kind in kinds:
        for name, array in kind:
            total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            total.update(np.ascontiguousarray(array).data)
    total.update(json.dumps(numbers, sort_keys=True).encode())
    return total.hexdigest()


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _square(array: Any) -> Any:
    flat = array.reshape(-1).astype(np.float32, copy=False)
    return mx.nd.dot(flat, flat)


def _form(array: Any) -> str:
    return f"{np.dtype(array.dtype)} {tuple(array.shape)}"


def _to_host(arrays: Mapping[str, Any], reuse: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Copies on the host; into the arrays of `reuse`, whose pages are there already, in a third of the time."""
    copies = {}
    for name, array in arrays.items():
        copy = reuse.get(name)
        if copy is None:
            copy = np.empty(array.shape, array.dtype)
        address = copy.ctypes.data_as(ctypes.c_void_p)
        mx.base.check_call(mx.base._LIB.MXNDArraySyncCopyToCPU(array.handle, address, ctypes.c_size_t(copy.size)))
        copies[name] = copy
    return copies


def _flatten(name: str, slot: Any) -> Iterator[tuple[str, Any]]:
    if slot is None:
        return
    if isinstance(slot, list | tuple):
        for index, inner in enumerate(slot):
            yield from _flatten(f"{name}/{index}", inner)
    else:
        yield name if "/" in name else f"{name}/0", slot
