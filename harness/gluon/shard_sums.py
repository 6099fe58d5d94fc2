"""What an update sums up: this rank's shards, forward and backward on its devices, then over all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.comm import World
from harness.comm.half import HalfPrecision
from harness.comm.rows import Term, finish, pack, unpack
from harness.comm.tree import assign, take_turns
from harness.data import GlobalBatch
from harness.errors import ConfigError
from harness.gluon.carried import Carried
from harness.gluon.device_sum import DeviceAllreduce
from harness.gluon.network import Network, workers_that_share
from harness.gluon.options import Placement, UpdateOptions
from harness.gluon.replica import DeviceReplica, Floats
from harness.gluon.timing import Timing
from harness.model.calls import Called
from harness.model.carried import each_array


class ShardSums:
    """Leaves the sums over all shards of a global batch in the buffer of every device.

    Attributes:
        buffer: of the first device; control values are written to it.
        rows: the sums of gradients that are rows, in the order of `Network.tables`.
        replicas: one for each device of this rank.
        carried: the states of this rank's shards; `None` for a network that carries none.
    """

    def __init__(
        self,
        network: Network,
        world: World,
        contexts: Sequence[Any],
        shards: int,
        placement: Placement,
        options: UpdateOptions,
    ) -> None:
        """Deal the shards, and make a replica for each device.

        Args:
            network: ready to train.
            world: the ranks.
            contexts: the devices of this rank.
            shards: S.
            placement: says where several devices are summed.
            options: of an update.

        Raises:
            ConfigError: for fewer shards than workers, or more than a weighted loss may have.
        """
        network.refuse_many(shards)
        self._contexts, self._shards = contexts, shards
        merges = self._divide(world)
        keeps = shards > self._assignment.workers or options.skip_nonfinite or network.is_weighted
        keeps = keeps or world.membership is not None
        self.replicas = [
            DeviceReplica(network, ctx, options, own, keeps_statistics=keeps)
            for ctx, own in zip(contexts, merges, strict=True)
        ]
        self.buffer = self.replicas[0].buffer
        self.rows: Term = ()
        self.carried: Carried | None = None
        if network.first_state is not None:
            self.carried = Carried(network.first_state, world, self._places, shards)
        self._sum_devices: DeviceAllreduce | None = None
        if len(self.replicas) > 1:
            self._sum_devices = DeviceAllreduce(placement.kvstore, self.replicas, self._assignment)
        self._has_predicted = True  # to settle its shapes
        moving = set(network.statistics) - network.untouched
        self._others = [one for name, one in network.parameters.items() if name not in {*network.trainable, *moving}]
        self._parameters = list(network.parameters.values())
        self._timing = Timing()
        self._token = object()
        for parameter in self._parameters:
            parameter._harness_owner = self._token

    def time_by(self, timing: Timing) -> None:
        """Tell `timing` from now on which part of an update this rank is in."""
        self._timing = timing
        for replica in self.replicas:
            replica.timing = timing

    def _divide(self, world: World) -> Sequence[Sequence[int]]:
        """Who has which shard among these ranks; returns the `merges` of this rank's devices."""
        num_devices = len(self._contexts)
        self._world = world
        self._assignment = assign(self._shards, workers_that_share(world, num_devices, self._shards))
        own = slice(world.rank * num_devices, (world.rank + 1) * num_devices)
        self._turns = take_turns(self._assignment.shards[own])
        return self._assignment.merges[own]

    @property
    def _places(self) -> dict[int, Any]:
        """The device of each shard of this rank."""
        return {shard: self._contexts[device] for device, shard in self._turns}

    def deal(self, world: World, *, is_broken: bool) -> None:
        """Share the shards with other ranks from now on.

        Args:
            world: the ranks.
            is_broken: whether an update was begun, and is not finished: then it has not been.
        """
        if is_broken:
            self.put_back()
        for replica, merges in zip(self.replicas, self._divide(world), strict=True):
            replica.deal(merges)
        if self.carried is not None:
            self.carried.deal(world, self._places)

    def __call__(
        self,
        batch: GlobalBatch,
        control: Sequence[float],
        half: HalfPrecision | None,
        totals: Mapping[str, float] | None,
    ) -> None:
        """Sum; may return before it is done.

        Args:
            batch: this rank's part of a global batch.
            control: the control values of this rank, written while nothing pending uses the buffer.
            half: to what gradients are rounded, if they are.
            totals: of the global batch, for a loss that is told them.

        Raises:
            ConfigError: for other shards than this rank processes.
        """
        # In a world of one there is nobody to tell.
        if self._world.size > 1:
            self.buffer.write_control(control)

        # Forward and backward of every shard, folded on every device in the order of `harness.comm.tree`. Then the sum
        # over devices, or over ranks (of several ranks each has one device): gradients, running statistics and control
        # values in one message.
        self._process(batch, half, totals)
        if self.carried is not None:
            self.carried.spread()
        if self._sum_devices is not None:
            self._sum_devices()
        if self._world.size > 1:
            self._timing.enter("wait")  # whoever times waits here until all ranks have come
            self._timing.enter("sum")
            self._world.sum_parts(self.replicas[0].parts, self._assignment, "update", half)
        else:
            for replica in self.replicas:
                replica.round_gradients()
        widths = self.replicas[0].widths
        if widths:
            self.rows = self._sum_rows(widths)

    def _sum_rows(self, widths: Sequence[int]) -> Term:
        """The sums of rows over all shards: every rank gathers what all have, and finishes the tree by itself."""
        parts = [part for replica in self.replicas for part in replica.parts_of_rows]
        if self._world.size > 1:
            received = self._world.allgather_bytes(pack(parts), "update.rows")
            numbers = zip(received, self._assignment.held, strict=True)
            parts = [part for message, held in numbers for part in unpack(message, widths, held)]
        return finish(parts, self._assignment)

    def take_back(self) -> bool:
        """Take the parameters back if another learner has had some of them since; returns whether one had."""
        if self._has_them:
            return False
        for replica in self.replicas:
            replica.take_back(self._others)
        for parameter in self._parameters:
            parameter._harness_owner = self._token
        return True

    @property
    def _has_them(self) -> bool:
        """Whether the parameters are this learner's now."""
        return all(parameter._harness_owner is self._token for parameter in self._parameters)

    def forward_only(self, batch: GlobalBatch, totals: Mapping[str, float] | None) -> list[Any]:
        """What the network gives for this rank's shards, as in an update of the same iteration; `None` for empty ones.

        Raises:
            ConfigError: for other shards than this rank processes.
        """
        self._refuse_other_shards(batch)
        found = []
        for (device, _), shard in zip(self._turns, batch.batches, strict=True):
            state = None
            if self.carried is not None and shard.count:
                state = self.carried.before(batch.t, shard.shard, shard.count, batch.begins)
            one = self.replicas[device].forward_only(batch.t, shard, totals, state) if shard.count else None
            found.append(one)
        return found

    def batch_statistics(
        self,
        batch: GlobalBatch,
        totals: Mapping[str, float] | None,
        states: dict[int, Any],
        shares: Mapping[str, float],
    ) -> dict[int, Floats]:
        """What batch normalisations find in this rank's shards that are not empty, by shard.

        Args:
            batch: this rank's part of a global batch.
            totals: of the global batch, for a loss that is told them.
            states: that shards carry from one call to the next, and not in training; changed here.
            shares: as for `DeviceReplica.batch_statistics`.

        Raises:
            ConfigError: for other shards than this rank processes.
        """
        self._refuse_other_shards(batch)
        if batch.begins:
            states.clear()
        found = {}
        for (device, number), shard in zip(self._turns, batch.batches, strict=True):
            if not shard.count:
                continue
            state = states.get(number)
            if self.carried is not None and state is None:
                state = self.carried.before(batch.t, number, shard.count, begins=True)
            replica = self.replicas[device]
            found[number], following = replica.batch_statistics(batch.t, shard, totals, state, shares)
            if self.carried is not None:
                states[number] = each_array(lambda array: array.detach(), following)
        return found

    def _refuse_other_shards(self, batch: GlobalBatch) -> None:
        found, own = [shard.shard for shard in batch.batches], [shard for _, shard in self._turns]
        if found != own:
            raise ConfigError(
                f"iteration {batch.t}: the batch has the shards {found}, but this rank processes {own}, in this order; "
                "read the shards that `shards_of_rank` gives"
            )

    def _process(self, batch: GlobalBatch, half: HalfPrecision | None, totals: Mapping[str, float] | None) -> None:
        """Leave every device with the partial sums of its shards."""
        self._refuse_other_shards(batch)
        # After a prediction oneDNN has laid weights out for itself; training would turn them round in every update.
        if self._has_predicted:
            for replica in self.replicas:
                replica.buffer.lay_out_weights()
            self._has_predicted = False
        for replica in self.replicas:
            replica.begin(half, has_control=replica.buffer is self.buffer)
        # Devices take turns: none of these calls waits, so the devices compute at the same time.
        carried, state = self.carried, None
        if carried is not None:
            carried.begin(batch.begins)
        for (device, _), shard in zip(self._turns, batch.batches, strict=True):
            if carried is not None and shard.count:
                state = carried.before(batch.t, shard.shard, shard.count, batch.begins)
            following = self.replicas[device].process(batch.t, shard, totals, state)
            if carried is not None and shard.count:
                carried.after(shard.shard, following)
        for replica in self.replicas:
            replica.restore_untouched()

    def predict(self, data: Any, label: Any, totals: Mapping[str, float] | None, state: Any = None) -> Called:
        """Prediction, losses and next state of samples, in predict mode; wait for them."""
        self._has_predicted = True
        return self.replicas[0].predict(data, label, totals, state)

    def apply(self, num_shards: float) -> None:
        """Turn the sums of running statistics into their means, over the shards that have any, and carry states on."""
        for replica in self.replicas:
            replica.average_statistics(num_shards)
        if self.carried is not None:
            self.carried.commit()

    def put_back(self) -> None:
        """Put running statistics and carried states back to what they were before the update."""
        for replica in self.replicas:
            replica.restore_statistics()
        if self.carried is not None:
            self.carried.drop()

    def refuse_rebound_gradients(self) -> None:
        """Notice gradients that no longer go into the sums, unless another learner has taken the parameters since.

        Raises:
            ConfigError: naming their parameters.
        """
        for replica in self.replicas if self._has_them else ():
            replica.buffer.refuse_rebound_gradients()
