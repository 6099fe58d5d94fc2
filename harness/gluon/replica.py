"""One device of a rank: it plays shards, and leaves their sums in memory of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx

from harness.data import Batch
from harness.gluon.forward import ShardPlayer
from harness.gluon.gradient_buffer import Fold, GradientBuffer
from harness.model.parameters import held


class DeviceReplica:
    """Folds the shards that are played here, one after another, within an update.

    Attributes:
        sums: where gradients, running statistics and words lie.
        player: runs the network.
    """

    def __init__(
        self,
        player: ShardPlayer,
        trainable: Mapping[str, Any],
        statistics: Sequence[Any],
        ctx: Any,
        *,
        num_words: int,
        keep_statistics: bool,
        has_own_arrays: bool = False,
        kept: Sequence[Any] = (),
    ) -> None:
        """Move gradients and statistics of this device into one buffer.

        Args:
            player: of this device.
            trainable: parameters with a gradient, by structural name.
            statistics: parameters that a training forward changes.
            ctx: the device.
            num_words: what ranks say of an update.
            keep_statistics: whether the statistics before an update may be needed again within it.
            has_own_arrays: whether a backward may write to no part of a larger array; see `GradientBuffer`.
            kept: frozen statistics, which an update leaves as they are.
        """
        self.player = player
        self.sums = GradientBuffer(trainable, statistics, ctx, num_words, has_own_arrays)
        self._fold = Fold([self.sums.buffer.array])
        self._statistics: Any = self.sums.statistics
        self._before: Any = None
        if self._statistics is not None and keep_statistics:
            self._before = self._statistics.copy()
        self._kept = [(held(parameter, ctx), held(parameter, ctx).copy()) for parameter in kept]
        self._is_first = True

    def begin(self) -> None:
        """Begin an update."""
        for statistic, copy in self._kept:
            statistic.copyto(copy)
        if self._before is not None:
            self._statistics.copyto(self._before)
        self._is_first = True

    def play(self, t: int, shard: Batch) -> None:
        """Add a shard's gradients, running statistics and loss to the sums."""
        if not self._is_first:
            self._fold.make_room()
            self.restore_statistics()
            self.sums.words[:] = 0
        self._is_first = False
        if shard.count:
            loss_sum = self.player.play(t, shard.shard, shard.data, shard.label)
            self.sums.gather()
            loss_sum.copyto(self.sums.words[0:1])
        else:  # MXNet has no arrays without elements; zeros, which the mean does not count
            self.sums.clear()
        self._fold.push()

    def finish(self) -> None:
        """Leave the sums of everything played in their place, and frozen statistics as they were."""
        self._fold.finish()
        for statistic, copy in self._kept:
            copy.copyto(statistic)

    def average_statistics(self, num_shards: float) -> None:
        """Turn the sum of the shards' running statistics into their mean."""
        if self._statistics is not None and num_shards > 1:
            self._statistics /= num_shards

    def restore_statistics(self) -> None:
        """Put the running statistics back to what they were when the update began."""
        if self._before is not None:
            self._before.copyto(self._statistics)


class DeviceAllreduce:
    """Sums over the devices of one process, through a Gluon kvstore; every device then has the sum."""

    def __init__(self, kind: str, seats: Sequence[DeviceReplica]) -> None:
        """Prepare the store.

        Args:
            kind: `"local"` adds on the CPU, `"device"` on the devices.
            seats: at least two.
        """
        self._buffers = [seat.sums.buffer.array for seat in seats]
        self._store = mx.kv.create(kind)
        self._store.init("sums", self._buffers[0])

    def __call__(self) -> None:
        """Sum; may return before it is done."""
        self._store.pushpull("sums", self._buffers, out=self._buffers)
