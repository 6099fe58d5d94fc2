"""The learner: everything that one update is, on however many shards this rank plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mxnet as mx
import numpy.typing as npt

from harness.checkpoint.matching import Matched
from harness.comm import World
from harness.data import Batch, GlobalBatch, leaves_of
from harness.data.leaves import Array, Data
from harness.errors import ConfigError, DisagreementError, DivergedError
from harness.gluon.control import Control, Loss, NormCheck, Requests, Update, UpdateStats
from harness.gluon.forward import Forward, ShardPlayer
from harness.gluon.graph import Graph
from harness.gluon.options import Placement, UpdateOptions
from harness.gluon.probe import probe
from harness.gluon.replica import DeviceAllreduce, DeviceReplica
from harness.gluon.state import State
from harness.gluon.state_keeper import StateKeeper
from harness.gluon.step import OptimizerStep
from harness.gluon.trial import Trial, data_and_label
from harness.gluon.weights import choose_weights, write_params
from harness.model.inputs import settle
from harness.model.operators import refuse_blocks_across_devices
from harness.model.parameters import form_of, held, parameters_of, refuse_unreducible

_ON_CPU, _DEFAULTS = Placement(), UpdateOptions()


class Learner:
    """A network, its optimizer and its shards; `update` does one update, the same on every rank.

    Attributes:
        parameters: the network's parameters by structural name.
        gradient_norm: Euclidean norm of the mean gradient, before clipping, of the last update that was checked.
        loss: the mean loss of that update's global batch, in float64.
        skipped: how many updates were left out because they were not finite.
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
    ) -> None:
        """Settle the network's shapes and try it; the first update compares ranks and broadcasts rank 0's weights.

        Args:
            net: a `gluon.Block` whose parameters have been initialised (shapes may be deferred).
            loss: maps (prediction, label) to one value a sample.
            optimizer: an `mx.optimizer.Optimizer` without a scheduler.
            world: the ranks.
            shards: S, a multiple of the number of ranks times devices.
            sample: a few samples that settle deferred shapes: a batch such as `stream(1)`, or data alone, `(n, ...)` or
                a tuple of such arrays; without labels the loss is not tried before the first update.
            placement: the devices; by default the CPU.
            options: what an update does besides the step.

        Raises:
            ConfigError: for parameters that cannot be reduced, or shards that ranks cannot share evenly.
        """
        self._contexts = list(placement.contexts) or [mx.cpu()]
        if world.size > 1 and len(self._contexts) > 1:
            raise ConfigError("devices: several are for one process; each of several ranks computes on one")
        workers = world.size * len(self._contexts)
        if shards % workers:
            raise ConfigError(f"batch.shards: {shards} is not divisible by the {workers} workers")
        self.world = world
        data, label = data_and_label(sample)
        refuse_blocks_across_devices(net, loss)
        for ctx in self._contexts:
            settle(net, data, ctx)
        self.parameters = parameters_of(net)
        refuse_unreducible(self.parameters, len(self._contexts))
        graph = Graph(net, self.parameters, loss, len(leaves_of(data)))
        tried = Trial.of(net, loss, self.parameters, graph, self._contexts[0], data, label, options.seed)
        graph.statistics |= world.agreed("probe", lambda: probe(tried, options.hybridize))
        is_on_cpu = all(ctx.device_type == "cpu" for ctx in self._contexts)
        forward = Forward(net, loss, graph, options.hybridize, is_on_cpu)
        trainable = {name: p for name, p in self.parameters.items() if p.grad_req != "null"}
        statistics = {name: p for name, p in self.parameters.items() if p.name in graph.statistics}
        self._seats = [
            DeviceReplica(
                ShardPlayer(forward, ctx, trainable, options.seed, graph),
                trainable,
                [p for name, p in statistics.items() if name not in options.frozen],
                ctx,
                kept=[p for name, p in statistics.items() if name in options.frozen],
                num_words=len(Control._fields),
                keep_statistics=shards > workers or options.skip_nonfinite,
                has_own_arrays=ctx.device_type == "cpu" and graph.may_deconvolve,
            )
            for ctx in self._contexts
        ]
        self._sums = self._seats[0].sums
        self._sum_seats = DeviceAllreduce(placement.kvstore, self._seats) if len(self._seats) > 1 else None
        self._has_predicted = True
        waits = world.size > 1 or options.skip_nonfinite or options.clip_norm is not None
        self._optimizer = OptimizerStep(
            optimizer,
            trainable,
            momentum_correction=options.momentum_correction,
            seed=options.seed,
            kvstore=placement.kvstore if placement.update_on_kvstore else None,
            is_waited_for=waits,
        )
        self._waits = waits or self._optimizer.must_wait
        self._clip_norm = options.clip_norm
        self.remarks = [forward.remark] if forward.remark else []
        self.began_with: dict[str, Any] | None = None
        self._keeper = StateKeeper(self.parameters, trainable, self._optimizer, self._contexts)
        self._skip_nonfinite = options.skip_nonfinite
        self._gauge = NormCheck(self._sums)
        self._unread: Update | None = None
        self.gradient_norm: float | None = None
        self.loss: float | None = None
        self.skipped = 0
        self._requests = Requests()
        self._is_shared = world.size == 1

    def update(self, batch: GlobalBatch, lr: float, momentum: float | None = None, ask: Requests | None = None) -> Loss:
        """Do the update of iteration `batch.t`, over the samples of all ranks.

        Args:
            batch: this rank's part of the global batch, its shards in the order of `shards_of_rank`. The CPU computes
                on its arrays themselves, so they become read-only, and nobody may write to their memory again.
            lr: the learning rate.
            momentum: the momentum; by default the optimizer's own.
            ask: what this rank asks of all ranks; `pop_requests` then tells it on each of them, after the same update.

        Returns:
            The mean loss of the global batch before the update; `float()` of it waits for it.

        Raises:
            DivergedError: if loss, gradient or running statistics are not finite, in this update or (where nothing
                waits for it) in the one before.
            DisagreementError: if the ranks' samples do not add up to the global batch, or, in the first update, if the
                ranks' networks differ.
        """
        t = batch.t
        self.ensure_shared()
        if self._has_predicted:
            for seat in self._seats:
                seat.sums.lay_out_weights()
            self._has_predicted = False
        said = self._say(batch, ask or Requests())
        for seat in self._seats:
            seat.begin()
        for position, shard in enumerate(batch.batches):
            self._seats[position % len(self._seats)].play(t, shard)
        for seat in self._seats:
            seat.finish()
        if self._sum_seats is not None:
            self._sum_seats()
        if self.world.size > 1:
            self.world.sum_buffer(self._sums.buffer, "update")
        update = Update(t, batch.num_samples, said, self._gauge.take())
        loss, divisor, num_shards = Loss(update.taken, batch.num_samples), float(batch.num_samples), said[1]
        if self._waits:
            verdict = self._judge(update)
            if not verdict.is_finite:
                for seat in self._seats:
                    seat.restore_statistics()
                return loss
            num_shards = verdict.control.num_shards
            if self._clip_norm is not None:
                divisor *= max(1.0, verdict.gradient_norm / self._clip_norm)
        else:
            self.finish()
            self._unread = update
        for seat in self._seats:
            seat.average_statistics(num_shards)
        self._optimizer.step(t, lr, momentum, divisor)
        return loss

    def finish(self) -> None:
        """Check the last update where its check was put off; call it before the weights are used for anything."""
        if self._unread is not None:
            update, self._unread = self._unread, None
            self._judge(update)

    def check_weights(self, t: int) -> None:
        """Refuse weights or optimizer state that update `t` has made not finite; the next update would notice too late.

        Raises:
            DivergedError: on every rank alike.
        """
        self.finish()
        if not self._keeper.is_finite():
            raise DivergedError(
                f"iteration {t}: its update made weights or optimizer state that are not finite, though the loss "
                "before it was; lower the learning rate, or clip the gradient (optimizer.clip_norm)"
            ).at(t)

    def predict(self, data: Data, label: Array) -> tuple[Array, Array]:
        """Predictions `(n, ...)` and losses `(n,)` of samples (one array or a tuple of them), in predict mode."""
        self.ensure_shared()
        self.finish()
        self._has_predicted = True
        prediction, losses = self._seats[0].player.predict(data, label)
        return prediction.asnumpy(), losses.asnumpy()

    @property
    def reduced_bytes(self) -> int:
        """What ranks sum in an update: gradients, running statistics and the control vector."""
        return int(self._sums.buffer.array.size) * 4

    def pop_requests(self) -> Requests:
        """What any rank has asked since the last call: the same on every rank, one update late where none waits."""
        asked, self._requests = self._requests, Requests()
        return asked

    def snapshot(self, reuse: State | None = None) -> State:
        """The whole state, on the host; written over an earlier snapshot that nobody needs any more."""
        self.finish()
        return self._keeper.snapshot(reuse)

    def numbers(self) -> dict[str, Any]:
        """What of the state is no array."""
        return self._keeper.numbers()

    def mismatches(self, state: State) -> list[str]:
        """Every array by which a state does not fit, a sentence each."""
        return self._keeper.mismatches(state)

    def restore(self, state: State) -> None:
        """Put a state back, bit for bit."""
        self._unread = None
        self._keeper.restore(state)

    def digest(self) -> str:
        """sha256 of the whole state; equal on every rank."""
        self.finish()
        return self._keeper.digest()

    def checksums(self) -> dict[str, int]:
        """A CRC-32 of every parameter, running statistic and optimizer array by name; equal on every rank."""
        self.finish()
        return self._keeper.checksums()

    def save_weights(self, path: Path) -> None:
        """Write weights and running statistics as a Gluon `.params` file."""
        self.finish()
        write_params(path, {name: held(parameter, self._contexts[0]) for name, parameter in self.parameters.items()})

    def load_weights(self, path: str, policy: str = "all") -> Matched:
        """Take weights and statistics from a file or checkpoint (`find_weights`), if as much fits as `accept` wants.

        Raises:
            CheckpointError: if it cannot be read or does not fit; nothing has been changed then.
        """
        matched, arrays = choose_weights(path, self.parameters, self._contexts[0], policy)
        self._keeper.write(arrays)
        return matched

    def describe_parameters(self) -> list[str]:
        """A sentence for each parameter, with name, shape and dtype: what must be the same on every rank."""
        return [f"{name} {form_of(parameter)}" for name, parameter in self.parameters.items()]

    def ensure_shared(self) -> None:
        """Compare the ranks' networks and give them rank 0's weights, unless that was done; called by every rank.

        The first update does it, as does whatever else needs equal weights: `predict`, `evaluate`, `find_lr`.
        """
        if not self._is_shared:
            self.broadcast_weights()

    def broadcast_weights(self) -> None:
        """Give every rank the weights and running statistics of rank 0; the first time, compare the networks before.

        Raises:
            DisagreementError: if the ranks' networks differ in names, shapes or dtypes.
        """
        self._compare()
        if self.world.size > 1:
            self._keeper.share_parameters(self._broadcast)

    def broadcast_state(self) -> None:
        """Give every rank the whole state of rank 0; the first time, compare the networks before (see above)."""
        self._compare()
        if self.world.size > 1:
            self._keeper.share(self._broadcast, self.world.broadcast_object)

    def _compare(self) -> None:
        """Once, compare what broadcasts rely on: between different shapes a broadcast would hang, or give nonsense."""
        if not self._is_shared:
            facts = {"parameters": self.describe_parameters()}
            self.world.must_be_equal("parameters", facts, "build the same network on every rank")
            self._is_shared = True

    def _broadcast(self, name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self.world.broadcast(value, f"learner.{name}")

    def _say(self, batch: GlobalBatch, ask: Requests) -> tuple[float, ...]:
        """Put this rank's words beside its first shard's sums; in a world of one there is nobody to tell."""
        own = [shard.count for shard in batch.batches]
        said = (sum(own), sum(map(bool, own)), *ask)
        if self.world.size > 1:
            self._sums.write_words([0, *said])
        return said

    def _judge(self, update: Update) -> UpdateStats:
        """Whether an update may be applied; every rank reads the same numbers and decides alike."""
        t, num_samples, said, taken = update
        rebound_gradients = [name for seat in self._seats for name in seat.sums.rebound_gradients()]
        if rebound_gradients:
            raise ConfigError(
                f"network: the gradient of {', '.join(rebound_gradients)} was replaced (a change of grad_req, cast or "
                "reset_ctx) after the learner was built; do that before"
            )
        measured = self._gauge.read(taken)
        control = Control(*measured.words) if self.world.size > 1 else Control(measured.words[0], *said)
        if control.num_samples != num_samples:
            raise DisagreementError(
                f"iteration {t}: the ranks played {control.num_samples:g} samples, but the global batch has "
                f"{num_samples}; some rank plays other shards than the order says"
            ).on_all_ranks()
        asked = (control.save > 0, control.failure > 0, control.stop > 0)
        self._requests = Requests(*(old or new for old, new in zip(self._requests, asked, strict=True)))
        self.loss = control.loss_sum / num_samples
        self.gradient_norm = measured.gradient_norm / num_samples
        verdict = UpdateStats(t, control, self.loss, self.gradient_norm, measured.statistics_finite)
        if not verdict.is_finite:
            if not self._skip_nonfinite:
                raise DivergedError(str(verdict)).at(t)
            self.skipped += 1
        return verdict
