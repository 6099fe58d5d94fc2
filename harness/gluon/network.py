"""A user's network and loss, made ready to train: shapes settled, code tried, graph compiled, parameters sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.comm import World
from harness.data import Batch, GlobalBatch, leaves_of
from harness.data.leaves import Data
from harness.errors import ConfigError
from harness.gluon.forward import Forward
from harness.gluon.graph import Graph
from harness.gluon.options import UpdateOptions
from harness.gluon.probe import probe
from harness.gluon.trial import Trial, data_and_label
from harness.model.inputs import settle
from harness.model.operators import refuse_blocks_across_devices
from harness.model.parameters import parameters_of, refuse_unreducible, refuse_untrained_loss


@dataclass(frozen=True)
class Network:
    """A network and its loss, on every device of this rank.

    Attributes:
        parameters: all parameters by structural name.
        trainable: those with a gradient; their order is the optimizer's index.
        statistics: those that a training forward changes.
        graph: what is known of both before they train.
        forward: runs both.
    """

    parameters: dict[str, Any]
    trainable: dict[str, Any]
    statistics: dict[str, Any]
    graph: Graph
    forward: Forward


def prepare_network(
    net: Any,
    loss: Any,
    world: World,
    contexts: Sequence[Any],
    sample: GlobalBatch | Batch | Data,
    options: UpdateOptions,
) -> Network:
    """Settle shapes, refuse what cannot be trained alike on every rank, and compile; `world.agreed` is the collective.

    Args:
        net: a `gluon.Block` whose parameters have been initialised (shapes may be deferred).
        loss: maps (prediction, label) to one value a sample.
        world: the ranks.
        contexts: the devices of this rank.
        sample: a few samples, perhaps with labels.
        options: of an update.

    Raises:
        ConfigError: for parameters that cannot be reduced, or code that is not a function of its seed; the latter on
            every rank.
    """
    data, label = data_and_label(sample)
    refuse_blocks_across_devices(net, loss)
    refuse_untrained_loss(loss)
    # Shapes first: whatever comes next looks at arrays.
    for ctx in contexts:
        settle(net, data, ctx)
    parameters = parameters_of(net)
    refuse_unreducible(parameters, len(contexts))
    # Then the graph as MXNet sees it, and a trial of what no graph shows, which fails on every rank if it does on one.
    graph = Graph(net, parameters, loss, len(leaves_of(data)))
    trial = Trial.of(net, loss, parameters, graph, contexts[0], data, label, options.seed)
    graph.statistics |= world.agreed("probe", lambda: probe(trial, options.hybridize))
    # Compiled last: a compiled network would keep what the trial drew.
    is_on_cpu = all(ctx.device_type == "cpu" for ctx in contexts)
    forward = Forward(net, loss, graph, options.hybridize, is_on_cpu)
    return Network(
        parameters,
        {name: parameter for name, parameter in parameters.items() if parameter.grad_req != "null"},
        {name: parameter for name, parameter in parameters.items() if parameter.name in graph.statistics},
        graph,
        forward,
    )


def workers_that_share(world: World, num_devices: int, shards: int) -> int:
    """The devices of all ranks, among which the shards are divided.

    Raises:
        ConfigError: if there are fewer shards than devices, or if each of several ranks has several devices.
    """
    if world.size > 1 and num_devices > 1:
        raise ConfigError("devices: several are for one process; each of several ranks computes on one")
    workers = world.size * num_devices
    if shards < workers:
        raise ConfigError(
            f"batch.shards: {shards} shards are fewer than the {workers} workers, each of which needs one"
        )
    return workers
