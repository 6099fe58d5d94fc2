"""One device of a rank: it processes shards, forward and backward, and folds them into its gradient buffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.comm.half import HalfPrecision, HalfRounder
from harness.comm.rows import RowFold, Rows, Term
from harness.data import Batch, count_of
from harness.data.leaves import Data
from harness.errors import ConfigError, DataError
from harness.gluon.control import ControlValues
from harness.gluon.gradient_buffer import Buffer, Fold, GradientBuffer, take_in
from harness.gluon.network import Network
from harness.gluon.options import UpdateOptions
from harness.gluon.timing import Timing
from harness.gluon.weighing import NUM_VALUES, Weighing
from harness.model.calls import Called, on_host
from harness.model.inputs import check_losses, copies_on_device, nested_on_device, seed_of
from harness.model.parameters import held, seed_python

Floats = npt.NDArray[np.float64]
_OUT_OF_BOUND = "data out of bound"  # in MXNet's error


class DeviceReplica:
    """The network on one device; in an update: `begin`, `process` each shard, `finish`.

    Attributes:
        buffer: holds gradients, running statistics and control values, and after `finish` a sum of them.
        timing: is told which part of an update it is in.
    """

    def __init__(
        self, network: Network, ctx: Any, options: UpdateOptions, merges: Sequence[int], *, keeps_statistics: bool
    ) -> None:
        """Move gradients and statistics of this device into one buffer.

        Args:
            network: ready to train.
            ctx: the device.
            options: of an update.
            merges: `Assignment.merges` of this device.
            keeps_statistics: whether the statistics before an update may be needed again within it.
        """
        self._network = network
        self._ctx = ctx
        self._seed = options.seed
        moving = [one for name, one in network.statistics.items() if name not in network.untouched]
        untouched = [one for name, one in network.statistics.items() if name in network.untouched]
        self._untouched = [(statistic, held(statistic, ctx).copy()) for statistic in untouched]
        self._weigh = None if network.terms_per_sample is None else Weighing(ctx)
        self._tables = network.tables
        self.buffer = GradientBuffer(
            {name: one for name, one in network.trainable.items() if name not in self._tables},
            moving,
            ctx,
            num_control=len(ControlValues._fields) + (0 if self._weigh is None else NUM_VALUES),
            has_own_arrays=ctx.device_type == "cpu" and network.graph.may_deconvolve,
        )
        self.deal(merges)
        self._statistics: Any = self.buffer.statistics
        self._before: Any = None
        if self._statistics is not None and keeps_statistics:
            self._before = self._statistics.copy()
        self._is_first = True
        self._round = HalfRounder()
        self._half: HalfPrecision | None = None
        self.timing = Timing()

    def deal(self, merges: Sequence[int]) -> None:
        """Process other shards from now on.

        Args:
            merges: `Assignment.merges` of this device.
        """
        self._rows, self._fold = RowFold(merges), Fold(self.buffer.memory, merges)

    def take_back(self, others: Sequence[Any]) -> None:
        """Let parameters see this device's buffer again, after another learner has had them.

        Args:
            others: parameters of the network that are not trained.
        """
        self.buffer.take_back(others)
        take_in(list(self._tables.values()), self._ctx)

    def begin(self, half: HalfPrecision | None, *, has_control: bool) -> None:
        """Begin an update: remember the statistics that it starts from.

        Args:
            half: to what its gradients are rounded, if they are.
            has_control: whether the control values of the rank have been written into this device's buffer; those of
                its other devices are 0, because all are added up.
        """
        self._half = half
        if not has_control:
            self.buffer.control[:] = 0
        for statistic, copy in self._untouched:
            held(statistic, self._ctx).copyto(copy)
        if self._before is not None:
            self._statistics.copyto(self._before)
        self._fold.begin()
        self._rows.begin()
        self._is_first = True

    def process(self, t: int, shard: Batch, totals: Mapping[str, float] | None, state: Any = None) -> Any:
        """Add a shard's gradients, running statistics and loss to the sums.

        Args:
            t: the iteration.
            shard: its samples.
            totals: of the global batch, for a loss that is told them.
            state: that the shard carries.

        Returns:
            The state that it carries on.
        """
        # Every shard starts from the statistics before the update. The control values were written for all shards
        # of the rank together, beside those of the first.
        if not self._is_first:
            self._fold.make_room()
            self.restore_statistics()
            self.buffer.control[:] = 0
        self._is_first = False
        following = None
        if shard.count:
            losses, other, following = self._forward_backward(t, shard, totals, state)
            self.timing.enter("sum")
            self.buffer.gather()
            if self._weigh is None:
                other.copyto(self.buffer.control[0:1])
            else:
                losses.sum().copyto(self.buffer.control[0:1])
                self._weigh(other).copyto(self.buffer.control[-NUM_VALUES:])
            self.round_gradients()
            with _ids_explained(self._tables, f"iteration {t}, shard {shard.shard}"):
                rows = tuple(_rows_in(one.grad(self._ctx)) for one in self._tables.values())
        else:  # MXNet has no arrays without elements; zeros, which the mean does not count
            self.buffer.clear()
            if self._weigh is not None:
                self.buffer.control[-NUM_VALUES:] = 0
            rows = tuple(map(Rows.none, self.widths))
        self._fold.push()
        self._rows.push(rows)
        return following

    def restore_untouched(self) -> None:
        """Leave statistics that are not this learner's as they were."""
        for statistic, copy in self._untouched:
            copy.copyto(held(statistic, self._ctx))

    @property
    def parts(self) -> list[Buffer]:
        """The partial sums over this device's shards; the last one is the buffer."""
        return self._fold.parts

    @property
    def parts_of_rows(self) -> list[Term]:
        """The same of the gradients that are rows."""
        return self._rows.parts

    @property
    def widths(self) -> list[int]:
        """Of a row of each parameter whose gradient is rows."""
        return [held(one, self._ctx).size // one.shape[0] for one in self._tables.values()]

    def round_gradients(self) -> None:
        """Round what the buffer holds to 16 bits, where gradients are: every shard's, and the sum over all."""
        if self._half is not None:
            memory = self.buffer.memory
            self._round(memory.array, self._half, memory.host)

    def average_statistics(self, num_shards: float) -> None:
        """Turn the sum of the shards' running statistics into their mean."""
        if self._statistics is not None and num_shards > 1:
            self._statistics /= num_shards

    def restore_statistics(self) -> None:
        """Put the running statistics back to what they were when the update began."""
        if self._before is not None:
            self._before.copyto(self._statistics)

    def predict(self, data: Data, label: Data, totals: Mapping[str, float] | None, state: Any = None) -> Called:
        """Prediction, losses and next state of samples without training; wait for them.

        Args:
            data: `(n, ...)`, or a tuple or dict of such arrays.
            label: likewise.
            totals: for a loss that is told them.
            state: that is carried, on this device; by default the first.
        """
        forward = self._network.forward
        labels = copies_on_device(forward.labels(label, "label"), self._ctx)
        return forward.prediction(copies_on_device(data, self._ctx), labels, totals, state)

    def forward_only(self, t: int, shard: Batch, totals: Mapping[str, float] | None, state: Any = None) -> Any:
        """What the network gives for a shard as in an update, without gradients; running statistics stay as they were.

        Args:
            t: the iteration, which together with the shard determines random numbers.
            shard: its samples.
            totals: for a loss that is told them.
            state: that the shard carries.
        """
        forward, ctx = self._network.forward, self._ctx
        before = [(one, held(one, ctx).copy()) for one in self._network.statistics.values()]
        self._seed_for(t, shard.shard, is_compiled=False)
        labels = copies_on_device(forward.labels(shard.label, f"iteration {t}, shard {shard.shard}: label"), ctx)
        with mx.autograd.pause(train_mode=True):
            called = forward.prediction(copies_on_device(shard.data, ctx), labels, totals, state)
        prediction = on_host(called.prediction)
        for statistic, copy in before:
            copy.copyto(held(statistic, ctx))
        return prediction

    def batch_statistics(
        self, t: int, shard: Batch, totals: Mapping[str, float] | None, state: Any, shares: Mapping[str, float]
    ) -> tuple[Floats, Any]:
        """What batch normalisations find in a shard: means and variances, all in one row of float64.

        A training step leaves `(1 - share) before + share found` in a running statistic, here with 0 before. On CPUs it
        is the backward pass that does. Statistics and gradients that were there are gone afterwards.

        Args:
            t: the iteration.
            shard: its samples.
            totals: of the global batch, for a loss that is told them.
            state: that the shard carries.
            shares: of what is found, by the structural name of the running statistic.

        Returns:
            The row, and the state that the shard carries on.
        """
        statistics = [held(self._network.parameters[name], self._ctx) for name in shares]
        for statistic in statistics:
            statistic[:] = 0
        _, _, following = self._forward_backward(t, shard, totals, state)
        mx.nd.waitall()  # running statistics may be written after what depends on them was told
        found = [statistic.asnumpy().astype(np.float64).reshape(-1) for statistic in statistics]
        return np.concatenate([one / share for one, share in zip(found, shares.values(), strict=True)]), following

    def _seed_for(self, t: int, shard: int, *, is_compiled: bool) -> None:
        """Seeded by iteration and shard, random operations draw the same wherever the shard is processed."""
        graph, seed = self._network.graph, seed_of(self._seed, t, shard)
        if graph.random:
            mx.random.seed(seed, ctx=self._ctx)
        if graph.opaque or (graph.has_code and not is_compiled):
            seed_python(seed)

    def _forward_backward(
        self, t: int, shard: Batch, totals: Mapping[str, float] | None, state: Any
    ) -> tuple[Any, Any, Any]:
        """Leave the sum over the shard's samples in each parameter's gradient.

        Returns:
            What `Forward.losses` does.

        Raises:
            ConfigError: if the loss has another form than it should, or a parameter took no part in it.
        """
        self.timing.enter("forward")
        forward = self._network.forward
        self._seed_for(t, shard.shard, is_compiled=forward.is_compiled)
        data = nested_on_device(shard.data, self._ctx)
        labels = forward.labels(shard.label, f"iteration {t}, shard {shard.shard}: label")
        labels = nested_on_device(labels, self._ctx)
        with mx.autograd.record():
            losses, other, following = forward.losses(data, labels, totals, state)
        if self._weigh is None and totals is None:
            check_losses(losses, count_of(shard.data))
        self.timing.enter("backward")
        losses.backward()
        self._check_all_took_part(shard.shard)
        return losses, other, following

    def _check_all_took_part(self, shard: int) -> None:
        """Refuse a parameter whose gradient is still that of the shard before."""
        weights = {name: held(parameter, self._ctx) for name, parameter in self._network.trainable.items()}
        stale = [name for name, weight in weights.items() if not weight._fresh_grad]
        if stale:
            raise ConfigError(
                f"network: {', '.join(stale)} got no gradient from shard {shard}, because the forward pass does not "
                "use it; use it, or set its grad_req to 'null'"
            )
        for weight in weights.values():
            weight._fresh_grad = False


@contextmanager
def _ids_explained(tables: Mapping[str, Any], where: str) -> Iterator[None]:
    """Say what MXNet's error means of an id for which an embedding has no row; its forward, and dense ones, clip it.

    Raises:
        DataError: naming the embeddings, of which one was asked.
    """
    try:
        yield
    except mx.base.MXNetError as error:
        if not tables or _OUT_OF_BOUND not in str(error):
            raise
        known = ", ".join(f"{name} has rows 0 to {one.shape[0] - 1}" for name, one in tables.items())
        raise DataError(
            f"{where}: an embedding with sparse_grad was asked for a row that it does not have ({known}); give it more "
            "rows, or other ids"
        ) from error


def _rows_in(gradient: Any) -> Rows:
    """The rows of a sparse gradient, on the host; waits for them."""
    return Rows(gradient.indices.asnumpy(), gradient.data.asnumpy().reshape(gradient.indices.size, -1))
