"""A network, its loss and a few samples: forward and backward in training, with everything put back afterwards.

It knows neither what is looked for nor what is refused.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from harness.data import Batch, GlobalBatch, each_leaf, leaves_of, rows_of
from harness.data.leaves import Array, Data
from harness.errors import ConfigError
from harness.gluon.graph import Graph, names_of_inputs
from harness.gluon.weighing import check_told, check_weighted
from harness.gluon.weight_totals import sum_of_weights
from harness.model.calls import Calls, flat
from harness.model.inputs import arguments_of, check_losses, copies_on_device, seed_of
from harness.model.parameters import held, seed_python


class Trial(NamedTuple):
    """What is tried.

    Attributes:
        calls: an initialised network, not compiled yet, and its loss.
        parameters: its parameters by structural name.
        trainable: those of them that are trained.
        graph: of both.
        ctx: the device.
        data: a few samples, on the device.
        labels: theirs; `None` where there are none at hand, and then predictions are looked at.
        arguments: what the network is called with for them; `None` if nobody can tell.
        totals: of their weights, where the loss is told them.
        seed: of what is drawn.
    """

    calls: Calls
    parameters: Mapping[str, Any]
    trainable: Mapping[str, Any]
    graph: Graph
    ctx: Any
    data: Any
    labels: Any
    arguments: tuple[Any, ...] | None
    totals: dict[str, float] | None
    seed: int

    @classmethod
    def of(
        cls,
        calls: Calls,
        parameters: Mapping[str, Any],
        trainable: Mapping[str, Any],
        ctx: Any,
        sample: Data,
        label: Data | None,
        seed: int,
    ) -> Trial:
        """Put a few samples of the host on a device, and look at the graph; `seed` is the run's."""
        labels = None if label is None else copies_on_device(calls.labels(label, "label"), ctx)
        data = copies_on_device(sample, ctx)
        totals = None
        if calls.is_told_totals and labels is not None:
            totals = {name: sum_of_weights(one) for name, one in calls.weights_of(labels).items()}
        arguments = arguments_of(calls, data, labels, totals)
        graph = Graph(calls, parameters, arguments, labels)
        return cls(calls, parameters, trainable, graph, ctx, data, labels, arguments, totals, seed_of(seed, 0, 0))

    @property
    def net(self) -> Any:
        """The network."""
        return self.calls.net

    def forward(self) -> tuple[Any, Any]:
        """Losses in training, and their weights or `None`; predictions without labels. Nothing is waited for."""
        mx.random.seed(self.seed, ctx=self.ctx)
        seed_python(self.seed)
        with mx.autograd.record():
            if self.labels is None:
                return next(flat(self.calls.predict(self.data))), None
            losses = self.calls(self.data, self.labels, self.totals).losses
        if self.totals is not None:
            return check_told(losses), None
        if isinstance(losses, tuple | list):
            return check_weighted(losses)
        check_losses(losses, len(leaves_of(self.data)[0]))
        return losses, None

    def terms_per_sample(self) -> float | None:
        """How many numerators a weighted loss gives for a sample; `None` for a loss of one value a sample.

        Raises:
            ConfigError: if its weights do not fit, are below 0 or not finite.
        """
        if (
            self.labels is None
            or self.totals is not None
            or (type(self.calls.loss).__module__ == mx.gluon.loss.__name__ and not self.calls.forward)
        ):
            return None
        with self.put_back(), mx.autograd.train_mode():
            mx.random.seed(self.seed, ctx=self.ctx)
            seed_python(self.seed)
            losses = self.calls(self.data, self.labels).losses
            if not isinstance(losses, tuple | list):
                return None
            numerators, weights = check_weighted(losses)
            found = weights.asnumpy()
        if not np.isfinite(found).all() or (found < 0).any():
            raise ConfigError(
                f"network.loss: gave the weight {found[~(np.isfinite(found) & (found >= 0))][0]:g}; weights are finite "
                "and at least 0, 0 for what does not count"
            )
        return float(numerators.size) / len(leaves_of(self.data)[0])

    def predict_others(self) -> None:
        """A forward in predict mode of other samples: the first one, over and over."""
        data, labels = (
            None if part is None else each_leaf(lambda leaf: mx.nd.concat(*[leaf[:1]] * len(leaf), dim=0), part)
            for part in (self.data, self.labels)
        )
        with mx.autograd.predict_mode():
            if self.calls.forward is None:
                self.calls.predict(data)
            else:
                self.calls(data, labels, self.totals)

    def run_graph(self, symbol: Any) -> Any:
        """What a graph of the network gives for the samples."""
        values = {parameter.name: parameter.data(self.ctx) for parameter in self.parameters.values()}
        arguments = self.arguments or ()
        values.update(zip(names_of_inputs(arguments), flat(arguments), strict=True))
        return mx.nd.CachedOp(symbol)(*[values[name] for name in symbol.list_inputs()])

    def backward(self, losses: Any, head: Array) -> dict[str, Array]:
        """The gradients of the parameters by structural name, from a head gradient."""
        losses.backward(mx.nd.array(head, ctx=losses.context, dtype=losses.dtype))
        mx.nd.waitall()
        return {name: one.grad(self.ctx).asnumpy() for name, one in self.trainable.items()}

    @property
    def fixed(self) -> dict[str, Any]:
        """The parameters that are not trained."""
        return {name: one for name, one in self.parameters.items() if name not in self.trainable}

    def bits(self, parameters: Mapping[str, Any]) -> dict[str, bytes]:
        """What parameters hold now."""
        mx.nd.waitall()
        return {name: held(one, self.ctx).asnumpy().tobytes() for name, one in parameters.items()}

    def restore(self, bits: Mapping[str, bytes]) -> None:
        """Let parameters hold this again."""
        for name, value in bits.items():
            array = held(self.parameters[name], self.ctx)
            array[:] = np.frombuffer(value, array.dtype).reshape(array.shape)
        mx.nd.waitall()

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Leave statistics, gradients and generators as they were; MXNet's, which cannot be read, at the run's seed."""
        numpy_state, python_state = np.random.get_state(), random.getstate()
        statistics = self.bits(self.fixed)
        try:
            yield
        finally:
            self.restore(statistics)
            for parameter in self.trainable.values():
                parameter.zero_grad()
                held(parameter, self.ctx)._fresh_grad = False
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            mx.random.seed(self.seed, ctx=self.ctx)


def data_and_label(sample: GlobalBatch | Batch | Data) -> tuple[Data, Data | None]:
    """Samples to settle shapes with: two of a batch, or what was given."""
    if callable(sample):
        raise ConfigError("sample: a function was given; give samples, such as the first batch: sample=stream(1)")
    if isinstance(sample, GlobalBatch):
        sample = next((batch for batch in sample.batches if batch.count), sample.batches[0])
        sample = Batch(sample.shard, rows_of(sample.data, slice(2)), rows_of(sample.label, slice(2)))
    return (sample.data, sample.label) if isinstance(sample, Batch) else (sample, None)
