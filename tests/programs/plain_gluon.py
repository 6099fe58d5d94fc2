"""A learner on its ranks beside one process of plain Gluon that sees every global batch as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import mxnet as mx
import numpy as np

from harness.comm import connect
from harness.data import Batch, GlobalBatch
from harness.gluon import Learner, shards_of_rank


def compare(
    network: Callable[[], Any],
    loss: Any,
    shard: Callable[[int, int], Batch],
    sizes: Sequence[int],
    updates: int,
    mean: Callable[[Any, Any], Any],
) -> None:
    """Train by Adam; rank 0 prints the losses, the digest and how far the weights are from plain Gluon's, relatively.

    Args:
        network: makes a network, with the same weights every time.
        loss: of the learner.
        shard: of an iteration, by its number.
        sizes: of the shards.
        updates: how many.
        mean: of (prediction, label) of a whole global batch, as plain Gluon computes it.
    """
    world = connect()
    own = shards_of_rank(len(sizes), world)
    learner = Learner(network(), loss, mx.optimizer.Adam(), world, shards=len(sizes), sample=shard(1, 0))
    losses = []
    for t in range(1, updates + 1):
        batch = GlobalBatch(t, tuple(shard(t, number) for number in own), sum(sizes))
        losses.append(float(learner.update(batch, 0.01)))
    digest, state = learner.digest(), learner.snapshot()
    if world.rank == 0:
        batches = [[shard(t, number) for number, size in enumerate(sizes) if size] for t in range(1, updates + 1)]
        expected = _plainly(network(), batches, mean)
        one, other = (
            np.concatenate([np.ravel(of[name]) for name in state.parameters]) for of in (state.parameters, expected)
        )
        away = float(np.linalg.norm(one - other) / np.linalg.norm(other))
        print("FOUND", json.dumps([losses, digest, away]), flush=True)
    world.close()


def _plainly(net: Any, batches: Sequence[Sequence[Batch]], mean: Callable[[Any, Any], Any]) -> dict[str, np.ndarray]:
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
    for shards in batches:
        data = _joined([one.data for one in shards])
        label = {key: _joined([one.label[key] for one in shards]) for key in shards[0].label}
        with mx.autograd.record():
            loss = mean(net(data), label)
        loss.backward()
        trainer.step(1)
    return {name: one.data().asnumpy() for name, one in net._collect_params_with_prefix().items()}


def _joined(arrays: Sequence[np.ndarray]) -> Any:
    """Rows below each other, padded to the longest."""
    longest = max(array.shape[1] for array in arrays) if arrays[0].ndim > 1 else 0
    wide = [np.pad(one, ((0, 0), (0, longest - one.shape[1]))) if longest else one for one in arrays]
    return mx.nd.array(np.concatenate(wide))
