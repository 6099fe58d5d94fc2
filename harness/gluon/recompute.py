"""Running statistics of batch normalisations for weights that no update has had, such as averaged ones.

Training batches go through the network in training mode, and the statistics become the mean of what each shard gives,
which is the mean over batches that `torch.optim.swa_utils.update_bn` takes. Shards are added up in one order whoever
processes them, so the bits do not depend on the number of ranks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.comm import World
from harness.data import GlobalBatch
from harness.errors import DivergedError
from harness.gluon.graph import graphs_inside
from harness.gluon.network import Network
from harness.gluon.replica import Floats
from harness.model.parameters import blocks_of

_MOMENTUM = 0.9  # MXNet's, where a graph does not say it
_OPERATORS = ("BatchNorm", "_contrib_SyncBatchNorm", "_contrib_BatchNormWithReLU")
_STATISTICS = slice(3, 5)  # of the inputs: data, gamma, beta, mean, variance


class BatchStatistics(Protocol):
    """Processes the shards of a rank."""

    def batch_statistics(
        self,
        batch: GlobalBatch,
        totals: Mapping[str, float] | None,
        states: dict[int, Any],
        shares: Mapping[str, float],
    ) -> dict[int, Floats]:
        """As `ShardSums.batch_statistics`."""


def shares_of(net: Any, network: Network) -> dict[str, float]:
    """By structural name, which part of a running statistic a training forward replaces: `1 - momentum`.

    Those of batch normalisations that training moves, in the order of the network; not statistics of a user's own.

    Args:
        net: the network, initialised.
        network: what is known of it.
    """
    graphs = list(graphs_inside(net))
    if network.graph.symbol is not None:
        graphs.append(network.graph.symbol)
    by_full_name = dict(_of_blocks(net))
    for graph in graphs:
        by_full_name.update(_of_graph(graph))
    moving = {name: one.name for name, one in network.statistics.items() if name not in network.untouched}
    shares = {name: by_full_name[full] for name, full in moving.items() if full in by_full_name}
    return {name: share for name, share in shares.items() if share}


class Recomputing:
    """Recomputes the statistics of a learner's network, for the weights that it has then."""

    def __init__(self, net: Any, network: Network, sums: BatchStatistics, world: World, num_shards: int) -> None:
        """Bind the network.

        Args:
            net: the network, initialised.
            network: what is known of it.
            sums: processes the shards of this rank.
            world: the ranks.
            num_shards: S.
        """
        self._sums, self.world, self._num_shards = sums, world, num_shards
        self.shares = shares_of(net, network)
        self._shapes = {name: network.parameters[name].shape for name in self.shares}

    def __call__(
        self,
        stream: Callable[[int], GlobalBatch],
        count: int,
        totals_of: Callable[[GlobalBatch], Mapping[str, float] | None],
        stop: Callable[[], bool],
    ) -> dict[str, npt.NDArray[Any]] | None:
        """Means over all shards of the first global batches; a collective, and so is every batch.

        The statistics of the network are changed on the way.

        Args:
            stream: gives this rank's part of global batch t.
            count: of global batches.
            totals_of: what the loss is told of one.
            stop: is asked with every batch.

        Returns:
            Running statistics by structural name; `None` on every rank if any was told to stop.

        Raises:
            DivergedError: on every rank, if they are not finite.
        """
        # A row for each shard, which one rank has, and the others leave at 0; the last number counts.
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        table: Floats = np.zeros((self._num_shards, sum(sizes) + 1))
        states: dict[int, Any] = {}
        for t in range(1, count + 1):
            if self.world.allreduce(np.array([stop()], np.int32), "statistics.stop")[0]:
                return None
            batch = stream(t)
            for shard, row in self._sums.batch_statistics(batch, totals_of(batch), states, self.shares).items():
                table[shard, :-1] += row
                table[shard, -1] += 1
        table = self.world.allreduce(table, "statistics")
        total = table[0]
        for row in table[1:]:
            total = total + row
        means = (total[:-1] / total[-1]).astype(np.float32)
        if not np.isfinite(means).all():
            raise DivergedError(
                "the running statistics of the averaged weights are not finite; lower the learning rate, or begin the "
                "average later (swa.after)"
            )
        parts = zip(self._shapes.items(), np.split(means, np.cumsum(sizes)[:-1]), strict=True)
        # those of a batch normalisation that no gradient passes do not move in training either, and stay as they are
        return {name: part.reshape(shape) for (name, shape), part in parts if part.any()}


def _of_blocks(net: Any) -> Iterator[tuple[str, float]]:
    for block in blocks_of(net).values():
        if isinstance(block, mx.gluon.nn.basic_layers._BatchNorm) and not block._kwargs["use_global_stats"]:
            for name in ("running_mean", "running_var"):
                yield block._reg_params[name].name, _share(block._kwargs["momentum"])


def _of_graph(symbol: Any) -> Iterator[tuple[str, float]]:
    nodes = json.loads(symbol.tojson())["nodes"]
    for node in nodes:
        attributes = node.get("attrs", {})
        if node["op"] in _OPERATORS and attributes.get("use_global_stats", "False") in ("False", "0"):
            for entry in node["inputs"][_STATISTICS]:
                yield nodes[entry[0]]["name"], _share(float(attributes.get("momentum", _MOMENTUM)))


def _share(momentum: float) -> float:
    """As MXNet computes it, in float32."""
    return float(np.float32(1) - np.float32(momentum))
