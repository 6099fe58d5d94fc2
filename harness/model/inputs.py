"""What a network and its loss take: arrays on a device, labels, seeds; and the first forward, which settles shapes."""

from __future__ import annotations

import hashlib
from typing import Any

import mxnet as mx
import numpy as np

from harness.data import leaves_of
from harness.data.dtypes import as_float32, counted
from harness.data.leaves import Array, Data
from harness.errors import ConfigError
from harness.model.operators import calls_across_devices_refused


def seed_of(seed: int, t: int, shard: int) -> int:
    """The seed of a shard's random operations in iteration `t`, 31 bits, because MXNet cuts at 32."""
    digest = hashlib.blake2b(f"{seed}/{t}/{shard}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_generator(number: int) -> None:
    """Seed MXNet's generator, 1.3 ms on a CPU; what was asked for before draws as it would have."""
    mx.random.seed(number)


def on_device(array: Array, ctx: Any) -> Any:
    """An array that nobody writes to again, on a device; on `cpu(0)` it is the same memory, and read-only from now on.

    `mx.nd.array` would wait until everything is computed that was asked for before, and Python stand still meanwhile.
    Who waits for the result passes a view, and leaves the caller's array writeable.
    """
    array = np.ascontiguousarray(array)
    if array.dtype == np.int8:  # which `from_numpy` does not know
        return mx.nd.array(array, ctx=ctx, dtype=np.int8)
    return mx.nd.from_numpy(array).as_in_context(ctx)


def labels_for(loss: Any, label: Array, begin: str) -> Array:
    """Labels as a loss takes them; see `Forward.labels`. A loss of the user's own takes integers as they are."""
    is_of_gluon = type(loss).__module__ == mx.gluon.loss.__name__
    picks = isinstance(loss, mx.gluon.loss.SoftmaxCrossEntropyLoss) and loss._sparse_label
    if label.dtype.kind not in "iu" or not is_of_gluon or picks:
        return label
    return as_float32(label, counted(begin))


def settle(net: Any, samples: Data, ctx: Any) -> Any:
    """End deferred initialisation by a forward in predict mode, which changes nothing else; returns its prediction."""
    with mx.autograd.pause(train_mode=False), calls_across_devices_refused(net):
        prediction = net(*[on_device(leaf[:], ctx) for leaf in leaves_of(samples)])
    mx.nd.waitall()
    return prediction


def check_losses(losses: Any, num_samples: int) -> None:
    """Refuse a loss that is not one value a sample; the mean over all samples of all ranks is the harness's to take.

    Raises:
        ConfigError: with the shape that was found.
    """
    if losses.shape != (num_samples,):
        raise ConfigError(
            f"network.loss: must give one value a sample, shape ({num_samples},); found shape {losses.shape}. "
            "The harness averages over the samples of all workers itself"
        )
