"""The states that the shards of a global batch carry from one update to the next (truncated back-propagation).

A state belongs to its shard, whoever processes that: it lies on the shard's device, is cut off from what it was
computed by, and moves with the shard to another rank when a run resumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.comm import World
from harness.data import described_shapes
from harness.errors import ConfigError
from harness.model.carried import FirstState, arrays_in, each_array, form_of_state, rebuilt

Arrays = dict[str, npt.NDArray[Any]]
_MESSAGE_BYTES = 1 << 24
_SAMPLES = 2  # rows of the state that ranks compare


class Carried:
    """The states of this rank's shards; a state is committed when its update is applied.

    In an update: `begin`; for each shard that has samples `before`, then `after`; `spread`; in the end `commit` or
    `drop`. Where ranks may be lost, every rank knows the states of all shards: `spread` gives them those that an update
    makes before any rank can have finished it.
    """

    def __init__(self, first: FirstState, world: World, places: Mapping[int, Any], shards: int) -> None:
        """Nothing is carried yet.

        Args:
            first: the first state of a shard.
            world: the ranks.
            places: the device of each shard that this rank processes.
            shards: S.
        """
        self._first, self._world, self._places, self._shards = first, world, places, shards
        self._held: dict[int, Any] = {}
        self._following: dict[int, Any] = {}
        self._is_spread = world.membership is not None
        self._all: Arrays = {}  # where they are spread: of all shards
        self._all_following: Arrays = {}
        self._begins = False
        self._everyone: Arrays | None = {}  # of the shards of all ranks, if nothing has changed since

    @property
    def description(self) -> str:
        """What has to be the same on every rank."""
        return f"every shard carries {self._first.describe(_SAMPLES)} for {_SAMPLES} rows"

    def begin(self, begins: bool) -> None:
        """Begin an update, with the first states if all of them `begin` anew."""
        self._everyone = None
        self._following.clear()
        self._begins = begins
        if begins:
            self._held.clear()

    def before(self, t: int, shard: int, rows: int, begins: bool) -> Any:
        """The state that a shard is processed with in iteration `t`, which may begin anew.

        Raises:
            ConfigError: if it is that of another number of rows.
        """
        state = None if begins else self._held.get(shard)
        if state is None:
            return self._first.on_device(rows, self._places[shard])
        if form_of_state(state) != form_of_state(self._first(rows)):
            raise ConfigError(
                f"iteration {t}, shard {shard}: network.state: it carries the state {described_shapes(state)}, but a "
                f"batch of {rows} rows has {described_shapes(self._first(rows))}; a shard keeps its number of rows "
                "until states begin anew (GlobalBatch.begins, at the start of an epoch)"
            )
        return state

    def after(self, shard: int, state: Any) -> None:
        """Take what the network has returned as a shard's next state, without the way to it."""
        self._following[shard] = each_array(lambda array: array.detach(), state)

    def spread(self) -> None:
        """Let every rank know what all shards will carry; a collective, where ranks may be lost."""
        if self._is_spread:
            self._all_following = self._known_to_all(self._arrays_of(self._following), "carried.following")

    def commit(self) -> None:
        """Make what `after` has taken the states of the next update."""
        self._held.update(self._following)
        self._following.clear()
        if self._is_spread:
            self._all = {**({} if self._begins else self._all), **self._all_following}

    def deal(self, world: World, places: Mapping[int, Any]) -> None:
        """Take the states of other shards from now on; every rank knows all.

        Args:
            world: the ranks.
            places: the device of each shard that this rank processes.
        """
        self._world, self._places = world, places
        self.load(self._all)

    def drop(self) -> None:
        """Forget it, because the update is not applied."""
        self._following.clear()

    def gather(self) -> None:
        """Let this rank know the states of all shards; a collective."""
        if self._is_spread:
            self._everyone = _in_order(self._all)
        elif self._world.size > 1 and self._everyone is None:
            self._everyone = self._known_to_all(self._own(), "carried.forms")

    def _known_to_all(self, own: Arrays, name: str) -> Arrays:
        """The arrays of all ranks, on every rank."""
        if self._world.size == 1:
            return own
        forms = self._world.allgather_object(_forms_of(own), name)
        return self._sum_of({key: form for one in forms for key, form in one.items()}, own)

    def share(self, root: int = 0) -> None:
        """Take the states that a rank knows, or else every rank's own; a collective."""
        if self._is_spread:
            self._everyone = _in_order(self._all)
        told = None if self._everyone is None else _forms_of(self._everyone)
        forms = self._world.broadcast_object(told, "carried.forms.root", root)
        if forms is None:
            self.gather()
        else:
            own = self._everyone if self._world.rank == root else None
            self.load(self._sum_of(forms, own or {}))

    def arrays(self, what: str) -> Arrays:
        """The states of all shards by `shard/name`, in the order of the shards.

        Args:
            what: who asks, for the message.

        Raises:
            ConfigError: if this rank does not know those of others.
        """
        if self._world.size == 1:
            return self._own()
        if self._everyone is None:
            raise ConfigError(
                f"{what}: shards of other ranks carry state that this one does not know; call learner.gather_state() "
                "on every rank before"
            )
        return self._everyone

    def mismatches(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[str]:
        """A sentence for every array that no shard can carry; of shapes the number of dimensions is looked at."""
        wanted = {name: (kind, len(shape)) for name, kind, shape in form_of_state(self._first(_SAMPLES))}
        shards = {name.partition("/")[0]: None for name in arrays}
        allowed = {f"{shard}/{name}": form for shard in range(self._shards) for name, form in wanted.items()}
        return [
            *(f"carried {name} is not expected" for name in arrays if name not in allowed),
            *(
                f"carried {shard}/{name} is missing"
                for shard in shards
                for name in wanted
                if f"{shard}/{name}" not in arrays
            ),
            *(
                f"carried {name} is {array.dtype} {array.shape}, expected {kind} with {dimensions} dimensions"
                for name, array in arrays.items()
                for kind, dimensions in [allowed.get(name, (array.dtype.name, array.ndim))]
                if (array.dtype.name, array.ndim) != (kind, dimensions)
            ),
        ]

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Let shards carry these from now on, of which this rank keeps those of its own shards."""
        self._held, self._following, self._everyone = {}, {}, dict(arrays)
        self._all = dict(arrays) if self._is_spread else {}
        template = self._first(_SAMPLES)
        names = [name for name, _ in arrays_in(template)]
        for shard, ctx in self._places.items():
            own = [arrays[f"{shard}/{name}"] for name in names if f"{shard}/{name}" in arrays]
            if own:
                on_device = [mx.nd.array(one, ctx=ctx, dtype=one.dtype) for one in own]
                self._held[shard] = rebuilt(template, on_device)

    def _own(self) -> Arrays:
        return self._arrays_of(self._held)

    @staticmethod
    def _arrays_of(states: Mapping[int, Any]) -> Arrays:
        return {
            f"{shard}/{name}": array.asnumpy()
            for shard, state in sorted(states.items())
            for name, array in arrays_in(state)
        }

    def _sum_of(self, forms: Mapping[str, Any], own: Arrays) -> Arrays:
        """Arrays of which each is known to one rank, on every rank; in the order of the shards."""
        ordered = sorted(forms, key=_shard_of)
        arrays = {name: np.zeros(forms[name][1], forms[name][0]) for name in ordered}
        sizes = [array.nbytes for array in arrays.values()]
        ends = np.cumsum(sizes, dtype=np.int64).tolist()
        joined = np.zeros(sum(sizes), np.uint8)
        for (name, array), end in zip(arrays.items(), ends, strict=True):
            if name in own:
                joined[end - array.nbytes : end] = np.ascontiguousarray(own[name]).reshape(-1).view(np.uint8)
        for start in range(0, joined.size, _MESSAGE_BYTES):  # the other ranks' bytes are 0
            part = slice(start, start + _MESSAGE_BYTES)
            joined[part] = self._world.allreduce(joined[part], "carried")
        for array, end in zip(arrays.values(), ends, strict=True):
            array.reshape(-1).view(np.uint8)[:] = joined[end - array.nbytes : end]
        return arrays


def _shard_of(name: str) -> int:
    return int(name.partition("/")[0])


def _in_order(arrays: Arrays) -> Arrays:
    return {name: arrays[name] for name in sorted(arrays, key=_shard_of)}


def _forms_of(arrays: Arrays) -> dict[str, Any]:
    return {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
