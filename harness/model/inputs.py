"""What a network and its loss take: arrays on a device, labels, seeds; and the first forward, which settles shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import mxnet as mx
import numpy as np

from harness.data import each_leaf
from harness.data.leaves import Array, Data
from harness.errors import ConfigError
from harness.model.calls import Calls, structure_of
from harness.model.host_memory import in_host_memory
from harness.model.operators import calls_across_devices_refused
from harness.model.parameters import parameters_of, refuse_sparse


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
    if array.dtype == np.int8:  # which DLPack's types in MXNet lack
        return mx.nd.array(array, ctx=ctx, dtype=np.int8)
    return in_host_memory(array).as_in_context(ctx)


def nested_on_device(data: Data, ctx: Any) -> Any:
    """An array, or a tuple or dict of arrays, on a device; see `on_device`."""
    if isinstance(data, np.ndarray):
        return on_device(data, ctx)
    return each_leaf(lambda leaf: on_device(leaf, ctx), data)


def copies_on_device(data: Data, ctx: Any) -> Any:
    """The same for arrays that stay the caller's to write to; wait for what is computed of them."""
    return each_leaf(lambda leaf: on_device(leaf[:], ctx), data)


def settle(calls: Calls, data: Data, label: Data | None, ctx: Any) -> Any:
    """End deferred initialisation by a forward in predict mode, which changes nothing else; returns its prediction.

    Args:
        calls: a network, and its loss where a function of the user's own calls both.
        data: a few samples.
        label: theirs, which only such a function needs.
        ctx: the device.

    Raises:
        ConfigError: for data or weights that nothing here can compute with.
    """
    calls.refuse_data(data, label)
    refuse_sparse(parameters_of(calls.net))
    inputs = copies_on_device(data, ctx)
    labels = None if label is None else copies_on_device(label, ctx)
    totals = dict.fromkeys(calls.weights_of(labels), 1.0) if calls.is_told_totals and labels is not None else None
    with mx.autograd.pause(train_mode=False), calls_across_devices_refused(calls.net):
        prediction = calls.predict(inputs) if calls.forward is None else calls(inputs, labels, totals).prediction
    mx.nd.waitall()
    return prediction


def arguments_of(
    calls: Calls, data: Any, label: Any, totals: Mapping[str, float] | None = None
) -> tuple[Any, ...] | None:
    """What the network is called with, for samples on a device whose shapes are settled.

    Returns:
        Its arguments, arrays or nested lists of them; `None` if a function of the user's own does not call the network
        itself, or not always alike.
    """
    if calls.forward is None:
        return calls.arguments(data)
    seen: list[tuple[Any, ...]] = []
    handle = calls.net.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    try:
        with mx.autograd.pause(train_mode=False), calls_across_devices_refused(calls.net):
            calls(data, label, totals)
    finally:
        handle.detach()
    mx.nd.waitall()
    return seen[0] if len({structure_of(one) for one in seen}) == 1 else None


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
