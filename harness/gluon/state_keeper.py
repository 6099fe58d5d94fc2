"""Takes the state of a network and its optimizer off the devices, puts it back, and gives it to other ranks.

MXNet's own `save_states` pickles the optimizer and restarts Adam's counter on another device (apache/mxnet#17357).
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.comm import World
from harness.errors import CheckpointError, DisagreementError, DivergedError, listed
from harness.gluon.average import WeightAverage
from harness.gluon.carried import Carried
from harness.gluon.state import LearnerState, digest_of, mismatches, not_finite
from harness.gluon.step import OptimizerStep
from harness.model.host_memory import in_host_memory
from harness.model.parameters import held
from harness.parsing import plain_numbers

_MOST_ERRORS = 100
PACKAGE = 1 << 24  # bytes of a state that travel together


class StateKeeper:
    """Takes and restores the state of a network and its optimizer."""

    def __init__(
        self,
        parameters: Mapping[str, Any],
        trainable: Mapping[str, Any],
        optimizer: OptimizerStep,
        contexts: Sequence[Any],
        carried: Carried | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        """Bind what is kept; of several devices, which hold the same, the first is read and all are written.

        Args:
            parameters: all parameters by structural name, running statistics among them.
            trainable: those with a gradient; their order is the optimizer's index.
            optimizer: holds the optimizer's state.
            contexts: the devices.
            carried: the states that shards carry, if they do.
            average: of the weights, if there is one.
        """
        self._parameters = parameters
        self._trainable = trainable
        self._optimizer = optimizer
        self._contexts = contexts
        self._carried = carried
        self._average = average

    def gather(self) -> None:
        """Let this rank know the states that all shards carry; a collective, where any do."""
        if self._carried is not None:
            self._carried.gather()

    def _carried_arrays(self, what: str) -> dict[str, npt.NDArray[Any]]:
        return {} if self._carried is None else self._carried.arrays(what)

    @property
    def averages(self) -> dict[str, npt.NDArray[Any]]:
        """The average of weights and statistics by name; empty where there is none yet."""
        return {} if self._average is None else self._average.arrays

    def current(self) -> dict[str, npt.NDArray[Any]]:
        """Weights and running statistics on the host, once all pending work is done."""
        mx.nd.waitall()
        return _to_host(self._current_parameters(), {})

    def snapshot(self, reuse: LearnerState | None = None) -> LearnerState:
        """Copy everything to the host, once all pending work is done.

        Args:
            reuse: an earlier snapshot of this keeper that nobody needs any more; its memory is written over.
        """
        mx.nd.waitall()  # running statistics may be written after what depends on them was told
        return LearnerState(
            _to_host(self._current_parameters(), {} if reuse is None else reuse.parameters),
            _to_host(self._state_arrays(), {} if reuse is None else reuse.optimizer_state),
            self.numbers(),
            dict(self._carried_arrays("snapshot")),
            {name: array.copy() for name, array in self.averages.items()},
        )

    def digest(self) -> str:
        """The digest of a snapshot, without keeping one."""
        mx.nd.waitall()
        kinds = (self._current_parameters().items(), self._state_arrays().items())
        on_host = (((name, array.asnumpy()) for name, array in kind) for kind in kinds)
        others = (self._carried_arrays("digest"), self.averages)
        return digest_of([*on_host, *(sorted(arrays.items()) for arrays in others)], self.numbers())

    def refuse_not_finite(self, t: int) -> None:
        """Refuse weights, statistics or optimizer arrays that are not finite, or whose square is not.

        Carried states are looked at as well, of all shards: they have been gathered.

        Raises:
            DivergedError: saying that update `t` made them so.
        """
        arrays = [*self._current_parameters().values(), *self._state_arrays().values()]
        squares = mx.nd.concat(*[_square(array) for array in arrays], dim=0)
        if not np.isfinite(squares.asnumpy()).all():
            raise DivergedError(
                f"iteration {t}: its update made weights or optimizer state that are not finite, though the loss "
                "before it was; lower the learning rate, or clip the gradient (optimizer.clip_norm)"
            ).at(t)
        damaged = not_finite(self._carried_arrays("check_weights"))
        if damaged:
            raise DivergedError(
                f"iteration {t}: shard {damaged[0].partition('/')[0]} carries a state that is not finite, though the "
                "loss was; lower the learning rate, or clip the gradient (optimizer.clip_norm)"
            ).at(t)

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
        return found[0] | {f"average {name}": zlib.crc32(_bytes(array)) for name, array in self.averages.items()}

    def mismatches(self, state: LearnerState) -> list[str]:
        """Every array of a state that this network and optimizer do not have or have otherwise, and the reverse."""
        if "learners" in state.numbers:
            return [f"it is the state of the learners {', '.join(state.numbers['learners'])}: Learners restores it"]
        problems = mismatches(self._current_parameters(), state.parameters)
        problems += mismatches(self._state_arrays(), state.optimizer_state)
        if self._carried is not None:
            problems += self._carried.mismatches(state.carried)
        elif state.carried:
            problems.append("it has state that shards carry, and the network carries none (network.state)")
        if self._average is not None:
            problems += self._average.mismatches(state.averages, state.numbers.get("average"))
        counts, names = state.numbers["update_counts"], self._scalar_names()
        if len(counts) != len(self._trainable):
            problems.append(f"update_counts has {len(counts)} entries, expected {len(self._trainable)}")
        if set(state.numbers["scalars"]) != set(names):
            found = ", ".join(state.numbers["scalars"]) or "none"
            problems.append(f"scalars are {found}, expected {', '.join(names) or 'none'}")
        return problems

    def restore(self, state: LearnerState) -> None:
        """Put a state back, bit for bit.

        Raises:
            CheckpointError: naming every missing, unexpected or mis-shaped array; nothing has been changed then.
        """
        problems = self.mismatches(state)
        if problems:
            raise CheckpointError(f"the state does not fit this network and optimizer:{listed(problems)}")
        self.write({**state.parameters, **state.optimizer_state})
        self._set_numbers(state.numbers)
        if self._carried is not None:
            self._carried.load(state.carried)
        if self._average is not None:
            self._average.restore(state.averages, state.numbers.get("average"))

    def share_parameters(self, world: World) -> None:
        """Make weights and running statistics of rank 0 those of every rank."""
        self._share(self._current_parameters(), world)

    def share_state(self, world: World, root: int = 0) -> None:
        """Make the state of a rank that of every rank."""
        self._share({**self._current_parameters(), **self._state_arrays()}, world, root)
        self._set_numbers(world.broadcast_object(self.numbers(), "learner.numbers", root))
        if self._carried is not None:
            self._carried.share(root)
        if self._average is not None:
            numbers = world.broadcast_object(self._average.numbers, "learner.averages", root)
            names = list(self._parameters) if numbers else []
            like = {name: array.asnumpy() for name, array in self._current_parameters().items()} if names else {}
            mine = {**like, **self.averages}
            arrays = {name: world.broadcast(mine[name], f"learner.average.{name}", root) for name in names}
            self._average.restore(arrays, numbers)

    def _share(self, arrays: Mapping[str, Any], world: World, root: int = 0) -> None:
        mx.nd.waitall()
        for number, together in enumerate(_packages(arrays)):
            package = np.zeros(sum(map(_room, together.values())), np.uint8)
            if world.rank == root:
                _to_host(together, _views(together, package))
            received = world.broadcast(package, f"learner.state {number}", root)
            if world.rank != root:
                self.write(_views(together, received))

    def write(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill the arrays that are named, on every device; a kvstore takes over what they then hold."""
        for arrays in self._copies():
            overwrite({name: array for name, array in arrays.items() if name in values}, values)
        self._optimizer.weights_changed()

    def _copies(self) -> list[dict[str, Any]]:
        """Every array by name, once for each device; the state on a kvstore appears but once."""
        states = [self._state_arrays(number) for number in range(len(self._optimizer.updaters))]
        states += [{}] * (len(self._contexts) - len(states))
        return [{**self._current_parameters(ctx), **own} for ctx, own in zip(self._contexts, states, strict=True)]

    def _current_parameters(self, ctx: Any = None) -> dict[str, Any]:
        return {name: held(parameter, ctx or self._contexts[0]) for name, parameter in self._parameters.items()}

    def _state_arrays(self, number: int = 0) -> dict[str, Any]:
        """The optimizer's arrays by name; of the first device by default."""
        states, rates = self._optimizer.updaters[number].states, self._optimizer.row_rates[number]
        arrays: dict[str, Any] = {}
        for index, name in enumerate(self._trainable):
            arrays.update(_flatten(name, states[index]))
            if index in rates:
                arrays[f"{name}/rates"] = rates[index]
        return arrays

    def numbers(self) -> dict[str, Any]:
        """Scalars that belong to the state: the applied rate, update counts, the optimizer's own and the average's."""
        optimizer = self._optimizer.optimizer
        begin = optimizer.begin_num_update
        tables = optimizer._all_index_update_counts.values()  # one for each device that it has met
        average = None if self._average is None else self._average.numbers
        return {
            "applied_lr": self._optimizer.applied_lr,
            "num_update": optimizer.num_update,
            "update_counts": [
                max(table.get(index, begin) for table in tables) for index in range(len(self._trainable))
            ],
            "scalars": {name: plain_numbers(getattr(optimizer, name)) for name in self._scalar_names()},
            **({} if average is None else {"average": average}),
        }

    def _set_numbers(self, numbers: Mapping[str, Any]) -> None:
        self._optimizer.applied_lr = numbers["applied_lr"]
        for updater in self._optimizer.updaters:
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
        return self._optimizer.traits.scalars


def settle_lost() -> None:
    """Wait for everything, and forget the errors of collectives that have failed: each is raised once."""
    for _ in range(_MOST_ERRORS):
        try:
            mx.nd.waitall()
        except mx.base.MXNetError:
            continue
        return


def overwrite(targets: Mapping[str, Any], values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Fill device arrays from host arrays of the same names, dtypes and shapes; returns when it is done."""
    for name, target in targets.items():
        # through an array of MXNet: one that oneDNN has laid out for itself cannot be written to directly
        in_host_memory(np.ascontiguousarray(values[name])).copyto(target)
    mx.nd.waitall()


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _square(array: Any) -> Any:
    flat = array.reshape(-1).astype(np.float32, copy=False)
    return mx.nd.dot(flat, flat)


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


def _packages(arrays: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Arrays that travel together: few of them cost little more than one, and all would need much memory."""
    together: dict[str, Any] = {}
    room = 0
    for name, array in arrays.items():
        if together and room + _room(array) > PACKAGE:
            yield together
            together, room = {}, 0
        together[name] = array
        room += _room(array)
    yield together


def _room(array: Any) -> int:
    """Bytes of an array in a package, in which each begins where a line of the cache does."""
    return -(-int(array.size) * np.dtype(array.dtype).itemsize // 64) * 64


def _views(arrays: Mapping[str, Any], package: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Room in a package for each array that travels in it."""
    views, begin = {}, 0
    for name, array in arrays.items():
        dtype = np.dtype(array.dtype)
        views[name] = package[begin : begin + array.size * dtype.itemsize].view(dtype).reshape(array.shape)
        begin += _room(array)
    return views


def _flatten(name: str, array: Any) -> Iterator[tuple[str, Any]]:
    if array is None:
        return
    if isinstance(array, list | tuple):
        for index, inner in enumerate(array):
            yield from _flatten(f"{name}/{index}", inner)
    else:
        yield name if "/" in name else f"{name}/0", array
