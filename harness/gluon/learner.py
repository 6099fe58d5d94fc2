"""The learner: one update over the shards of a global batch, and the state that it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
from typing_extensions import override

from harness.comm import World
from harness.comm.half import HalfPrecision
from harness.data import Batch, GlobalBatch
from harness.data.leaves import Data
from harness.errors import DivergedError
from harness.gluon.average import WeightAverage
from harness.gluon.control import ControlValues, Loss, NormCheck, PendingUpdate, Requests, UpdateStats
from harness.gluon.kept import KeepsState
from harness.gluon.network import prepare_network, workers_that_share
from harness.gluon.options import Placement, UpdateOptions
from harness.gluon.recompute import Recomputing
from harness.gluon.shard_sums import ShardSums
from harness.gluon.state_keeper import StateKeeper
from harness.gluon.step import OptimizerStep
from harness.gluon.timing import Timing
from harness.gluon.weighing import NOTHING
from harness.gluon.weight_totals import WeightTotals
from harness.model.calls import Calls, ForwardFunction, on_host
from harness.model.carried import FirstState, StateFunction
from harness.model.optimizers import refuse_optimizer
from harness.model.parameters import form_of

_ON_CPU, _DEFAULTS = Placement(), UpdateOptions()


class Learner(KeepsState):
    """A network, its optimizer and its shards; `update` does one update, the same on every rank.

    Attributes:
        parameters: the network's parameters by structural name.
        gradient_norm: Euclidean norm of the mean gradient, before clipping, of the last update that was checked.
        loss: the mean loss of that update's global batch, in float64.
        skipped: how many updates were left out because they were not finite.
        weightless: how many had no effect because the loss gave no weight but 0.
        remarks: what the user should know of how the network is run.
        began_with: which weights it began with, as manifests tell it; `None` for the initializer's.
    """

    def __init__(
        self,
        net: Any,
        loss: Any,
        optimizer: Any,
        world: World,
        *,
        shards: int,
        sample: GlobalBatch | Batch | Data,
        placement: Placement = _ON_CPU,
        options: UpdateOptions = _DEFAULTS,
        forward: ForwardFunction | None = None,
        state: StateFunction | None = None,
        trainable: str | Sequence[str] | None = None,
    ) -> None:
        """Settle the network's shapes and try it; the first update compares ranks and broadcasts rank 0's weights.

        Args:
            net: a `gluon.Block` whose parameters have been initialised (shapes may be deferred).
            loss: maps (prediction, label) to one value a sample, or to numerators and weights of any shape.
            optimizer: an `mx.optimizer.Optimizer` without a scheduler.
            world: the ranks.
            shards: S, at least the number of ranks times devices.
            sample: a few samples that settle deferred shapes: a batch such as `stream(1)`, or data alone, `(n, ...)` or
                a tuple of such arrays; without labels the loss is not tried before the first update.
            placement: the devices; by default the CPU.
            options: what an update does besides the step.
            forward: calls network and loss, `forward(net, loss, data, label) -> (prediction, losses)`; see `Calls`.
            state: rows -> the first state of a shard with so many rows, nested arrays, for a network that carries
                state: `net(data, state) -> (output, state)`, and `forward` with the state last in both. Updates whose
                batch `begins`, and the first, start from it, all others from what the last one returned.
            trainable: patterns of the parameters that this learner changes (`generator.*`), running statistics among
                them; others are as they are. They may be another learner's. By default all.

        Raises:
            ConfigError: for parameters that cannot be reduced, or fewer shards than workers.
        """
        refuse_optimizer(optimizer)
        self.world = world
        self._contexts = list(placement.contexts) or [mx.cpu()]
        workers_that_share(world, len(self._contexts), shards)
        calls = Calls(net, loss, forward, FirstState.of(state))
        patterns = [trainable] if isinstance(trainable, str) else trainable
        network = prepare_network(calls, world, self._contexts, sample, options, patterns)
        self.parameters = network.parameters
        self.remarks = [network.forward.remark] if network.forward.remark else []
        self.began_with: dict[str, Any] | None = None
        self._options = options

        # What processes the shards, a replica on each device.
        self._network = network
        self._sums = ShardSums(network, world, self._contexts, shards, placement, options)
        self._totals = WeightTotals(calls, world, self._contexts[0], network.totals) if network.totals else None
        self._num_shards = shards
        # An update is synchronous, that is, checked before its step, where ranks wait for each other anyway, where the
        # check decides what is applied, or where the step itself cannot be left to the device.
        synchronous = world.size > 1 or options.skip_nonfinite or options.clip_norm is not None
        synchronous = synchronous or network.is_weighted or bool(network.tables) or world.membership is not None
        self._optimizer = OptimizerStep.of(optimizer, network.trainable, placement, options, synchronous=synchronous)
        self._synchronous = synchronous or self._optimizer.synchronous
        self.remarks += self._optimizer.remarks
        is_half = options.compression == "fp16"
        self._norm_check = NormCheck(self._sums.buffer, control_is_summed=world.size > 1, is_compressed=is_half)
        self._average = None
        self._recomputing = Recomputing(net, network, self._sums, world, shards)
        if options.average is not None:
            self._average = WeightAverage(options.average, network.parameters, network.trainable, self._contexts)
        self._keeper = StateKeeper(
            network.parameters, network.trainable, self._optimizer, self._contexts, self._sums.carried, self._average
        )

        self._timing = Timing()
        self._pending: PendingUpdate | None = None
        self._is_updating = False
        self._requests = Requests()
        self._is_shared = world.size == 1
        self.gradient_norm: float | None = None
        self.loss: float | None = None
        self.skipped = self.weightless = 0

    def time_by(self, timing: Timing) -> None:
        """Tell `timing` from now on which part of an update this rank is in; changes no bit."""
        self._timing = timing
        self._sums.time_by(timing)

    def update(self, batch: GlobalBatch, lr: float, momentum: float | None = None, ask: Requests | None = None) -> Loss:
        """Do the update of iteration `batch.t`, over the samples of all ranks.

        Args:
            batch: this rank's part of the global batch, its shards in the order of `shards_of_rank`. The CPU computes
                on its arrays themselves, so they become read-only, and nobody may write to their memory again.
            lr: the learning rate.
            momentum: the momentum; by default the optimizer's own.
            ask: what this rank asks of all ranks; `pop_requests` then tells it on each of them, after the same update.

        Returns:
            The mean loss of the global batch before the update, for which `float()` waits; NaN if every weight is 0.

        Raises:
            DivergedError: if loss, gradient or running statistics are not finite, in this update or the one before.
            DisagreementError: if the samples do not add up to the global batch, or (at first) the networks differ.
        """
        self._timing.enter("forward")
        # Before the first update ranks compare their networks, and take rank 0's weights.
        self.ensure_shared()
        if self._sums.take_back():
            self._optimizer.weights_changed()
        # The sums over all shards of all ranks: gradients, running statistics, control values. A loss with weights is
        # divided by a sum of them, which is among the control values, or which the loss is told before.
        own, network = ControlValues.of(batch, ask or Requests()), self._network
        half, totals, weight = None, None, float(batch.num_samples)
        if self._options.compression == "fp16":
            half = HalfPrecision.of(self._sums.buffer.gradients.size, network.samples_of(batch.num_samples))
        if self._totals is not None:
            self._timing.enter("sum")
            totals = self._totals_of(batch)
            weight = float(any((totals or {}).values()))
        has_digits = network.terms_per_sample is not None
        self._is_updating = True
        self._sums(batch, (*own, *NOTHING) if has_digits else own, half, totals)

        # The check is begun now. It is read now if the update is synchronous, and otherwise in the next one, so that
        # Python runs ahead of the device; whatever uses the weights in between calls `check_pending` first.
        self._timing.enter("check")
        update = PendingUpdate(
            batch.t,
            batch.num_samples,
            own,
            self._norm_check.measure(),
            None if has_digits else weight,
            sum(rows.square for rows in self._sums.rows),
        )
        loss, num_shards = Loss(update.measured, weight), own.num_shards
        if self._synchronous:
            stats = self._judge(update)
            weight = stats.weight
            if has_digits:
                loss = Loss(update.measured, weight)
            self._is_updating = False
            if not (stats.is_finite and weight):
                self._sums.put_back()
                self._take_average(batch.t)
                return loss
            num_shards = stats.control.num_shards
            if self._options.clip_norm is not None:
                weight *= max(1.0, stats.gradient_norm / self._options.clip_norm)
        else:
            self.check_pending()
            self._pending = update
        self._timing.enter("step")
        # The step, with the mean over all samples; running statistics become the mean over the shards that have any.
        self._sums.apply(num_shards)
        self._optimizer.step(batch.t, lr, momentum, weight, self._sums.rows)
        self._take_average(batch.t)
        return loss

    @override
    def _deal(self, world: World, *, is_broken: bool) -> None:
        self._requests = Requests()
        self._sums.deal(world, is_broken=is_broken)
        self._recomputing.world = world
        if self._totals is not None:
            self._totals.world = world
        self._norm_check.control_is_summed = world.size > 1

    def forward_only(self, batch: GlobalBatch) -> list[Any]:
        """What the network gives for this rank's shards in training, without gradients; nothing is changed.

        Every shard draws what it draws in an update of the same iteration, and carries on no state. Under `forward` it
        is the first thing that this returns.

        Args:
            batch: as for `update`.

        Returns:
            For each of `batch.batches` an array of NumPy, or tuples and dicts of them; `None` where it is empty.

        Raises:
            ConfigError: for other shards than this rank processes.
        """
        self.ensure_shared()
        self.check_pending()
        return self._sums.forward_only(batch, self._totals_of(batch))

    def _take_average(self, t: int) -> None:
        """Take the weights after iteration `t` into their average, also where the update was left out."""
        if self._average is not None:
            self._average.update(t)

    def _totals_of(self, batch: GlobalBatch) -> Mapping[str, float] | None:
        """Of a global batch, for a loss that is told them; then a collective."""
        if self._totals is None:
            return None
        labels = {shard.shard: shard.label for shard in batch.batches if shard.count}
        return self._totals(labels, self._num_shards, lambda shard: f"iteration {batch.t}, shard {shard}")

    def check_pending(self) -> None:
        """Check the last update where its check was put off; call it before the weights are used for anything.

        Raises:
            DivergedError: if that update is not finite.
        """
        if self._pending is not None:
            update, self._pending = self._pending, None
            self._judge(update)

    finish = check_pending  # its earlier name

    def predict(self, data: Data, label: Data, totals: Mapping[str, float] | None = None) -> tuple[Any, Any]:
        """What the network returns and the loss gives, in predict mode.

        Args:
            data: `(n, ...)`, or a tuple or dict of such arrays.
            label: likewise.
            totals: for a loss that is told them; by default of these samples alone.

        Returns:
            Predictions `(n, ...)`, or tuples and dicts of such arrays; losses `(n,)`, or numerators and weights.
        """
        return self.predict_from(None, data, label, totals)[:2]

    def predict_from(
        self, state: Any, data: Data, label: Data, totals: Mapping[str, float] | None = None
    ) -> tuple[Any, Any, Any]:
        """`predict` with a network that carries state, from a state that a call before has returned.

        Args:
            state: `None` for the first.
            data: as for `predict`.
            label: likewise.
            totals: likewise.

        Returns:
            What `predict` does, and the next state, on the device; `None` where none is carried.
        """
        self.ensure_shared()
        self.check_pending()
        if self._totals is not None and totals is None:
            totals = self._totals.add_up(np.array([self._totals.row(label)]), lambda _: "samples")
        called = self._sums.predict(data, label, totals, state)
        return on_host(called.prediction), on_host(called.losses), called.state

    @property
    def totals(self) -> WeightTotals | None:
        """What sums the weights that the loss is told; `None` for other losses."""
        return self._totals

    @property
    def carries_state(self) -> bool:
        """Whether shards carry state from one update to the next, so that the order of samples means something."""
        return self._sums.carried is not None

    @property
    def num_shards(self) -> int:
        """Shards of a global batch, S."""
        return self._num_shards

    @property
    def has_weights(self) -> bool:
        """Whether the loss is something else than one value a sample."""
        return self._network.is_weighted

    @property
    def reduced_bytes(self) -> int:
        """What ranks sum in an update: gradients, running statistics and control values."""
        return int(self._sums.buffer.memory.array.size) * 4

    def pop_requests(self) -> Requests:
        """What any rank has asked since the last call: the same on every rank, one update late if not synchronous."""
        asked, self._requests = self._requests, Requests()
        return asked

    def describe_parameters(self) -> list[str]:
        """A sentence for each parameter, with name, shape and dtype: what must be the same on every rank."""
        described = [f"{name} {form_of(parameter)}" for name, parameter in self.parameters.items()]
        carried = [] if self._sums.carried is None else [self._sums.carried.description]
        return [*described, *self._network.form_of_loss, *carried]

    def _judge(self, update: PendingUpdate) -> UpdateStats:
        """Decide whether an update may be applied; every rank reads the same numbers and decides alike."""
        self._sums.refuse_rebound_gradients()
        stats = self._norm_check.read(update)
        self.loss, self.gradient_norm = stats.loss, stats.gradient_norm
        self._requests |= stats.control.requests
        if not stats.is_finite:
            if not self._options.skip_nonfinite:
                raise DivergedError(str(stats)).at(update.t)
            self.skipped += 1
        elif not stats.weight:
            self.weightless += 1
        return stats
