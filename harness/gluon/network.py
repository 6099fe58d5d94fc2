"""A user's network and loss, made ready to train: shapes settled, code tried, graph compiled, parameters sorted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.comm import World
from harness.data import Batch, GlobalBatch
from harness.data.leaves import Data
from harness.errors import ConfigError
from harness.gluon.forward import Forward
from harness.gluon.gradient_buffer import leave_out, take_in
from harness.gluon.graph import Graph
from harness.gluon.options import UpdateOptions
from harness.gluon.probe import probe
from harness.gluon.trial import Trial, data_and_label
from harness.gluon.weighing import MOST_SHARDS
from harness.model.calls import Calls
from harness.model.carried import FirstState
from harness.model.freezing import part_of
from harness.model.inputs import settle
from harness.model.operators import refuse_blocks_across_devices
from harness.model.parameters import has_rows, parameters_of, refuse_unreducible, refuse_untrained_loss


@dataclass(frozen=True)
class Network:
    """A network and its loss, on every device of this rank.

    Attributes:
        parameters: all parameters by structural name.
        trainable: those that are trained; their order is the optimizer's index.
        statistics: those that a training forward changes.
        untouched: statistics that stay as they are nevertheless.
        is_part: whether only a part of the parameters is trained, so that others may be another learner's.
        graph: what is known of both before they train.
        forward: runs both.
        terms_per_sample: how many numerators a loss gives for a sample with its weights; `None` for other losses.
        totals: names of the sums that a loss is told, of weights that it gives before the forward pass.
        first_state: of a shard; `None` for a network that carries none.
    """

    parameters: dict[str, Any]
    trainable: dict[str, Any]
    statistics: dict[str, Any]
    untouched: frozenset[str]
    is_part: bool
    graph: Graph
    forward: Forward
    terms_per_sample: float | None
    totals: tuple[str, ...]
    first_state: FirstState | None = None

    @property
    def tables(self) -> dict[str, Any]:
        """The trainable parameters whose gradients are rows."""
        return {name: one for name, one in self.trainable.items() if has_rows(one)}

    @property
    def is_weighted(self) -> bool:
        """Whether the loss has weights of either kind, so that the number of samples is not what is divided by."""
        return self.terms_per_sample is not None or bool(self.totals)

    @property
    def form_of_loss(self) -> list[str]:
        """What ranks compare of the loss's form: nothing where it is one value a sample. And which part is trained."""
        told = [f"the loss is told totals of {', '.join(self.totals)}"] if self.totals else []
        part = [f"{', '.join(self.trainable)} are trained"] if self.is_part else []
        return [*part, *(["the loss gives numerators and weights"] if self.terms_per_sample is not None else []), *told]

    def samples_of(self, num_samples: int) -> int:
        """As how many samples' losses a sum of gradients is scaled, where it travels in 16 bits."""
        return 1 if self.totals else math.ceil(num_samples * (self.terms_per_sample or 1))

    def refuse_many(self, shards: int) -> None:
        """Refuse more shards than a weighted loss may have.

        Raises:
            ConfigError: with the limit.
        """
        if self.terms_per_sample is not None and shards > MOST_SHARDS:
            raise ConfigError(
                f"batch.shards: {shards} are too many for a loss that gives weights, whose sum is exact up to "
                f"{MOST_SHARDS}; choose fewer, larger shards (batch.size)"
            )


def prepare_network(
    calls: Calls,
    world: World,
    contexts: Sequence[Any],
    sample: GlobalBatch | Batch | Data,
    options: UpdateOptions,
    patterns: Sequence[str] | None = None,
) -> Network:
    """Settle shapes, refuse what cannot be trained alike on every rank, and compile; `world.agreed` is the collective.

    Args:
        calls: a `gluon.Block` whose parameters have been initialised (shapes may be deferred), and its loss.
        world: the ranks.
        contexts: the devices of this rank.
        sample: a few samples, perhaps with labels.
        options: of an update.
        patterns: of the parameters that are trained; by default all that have a gradient.

    Raises:
        ConfigError: for parameters that cannot be reduced, patterns that name none, or code that is not a function of
            its seed; the latter on every rank.
    """
    data, label = data_and_label(sample)
    net, loss = calls.net, calls.loss
    refuse_blocks_across_devices(net, loss)
    refuse_untrained_loss(loss)
    # Shapes first: whatever comes next looks at arrays.
    for ctx in contexts:
        settle(calls, data, label, ctx)
    parameters = parameters_of(net)
    refuse_unreducible(parameters, len(contexts))
    part = part_of(parameters, patterns)
    trainable = {name: parameters[name] for name in part if parameters[name].grad_req != "null"}
    others = [one for name, one in parameters.items() if name not in part]
    for ctx in contexts:
        take_in(list(trainable.values()), ctx)
        leave_out(others, ctx)
    # Then the graph as MXNet sees it, and a trial of what no graph shows, which fails on every rank if it does on one.
    trial = Trial.of(calls, parameters, trainable, contexts[0], data, label, options.seed)
    graph = trial.graph
    moved, terms = world.agreed("probe", lambda: (probe(trial, options.hybridize), trial.terms_per_sample()))
    graph.statistics |= moved
    # Compiled last: a compiled network would keep what the trial drew.
    is_on_cpu = all(ctx.device_type == "cpu" for ctx in contexts)
    forward = Forward(calls, graph, options.hybridize, is_on_cpu, is_weighted=terms is not None)
    return Network(
        parameters,
        trainable,
        {name: parameter for name, parameter in parameters.items() if parameter.name in graph.statistics},
        frozenset(options.frozen) | (parameters.keys() - set(part)),
        patterns is not None,
        graph,
        forward,
        terms,
        tuple(trial.totals or ()),
        calls.first_state,
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
