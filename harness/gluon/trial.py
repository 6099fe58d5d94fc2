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

from harness.data import Batch, GlobalBatch, leaves_of, rows_of
from harness.data.leaves import Array, Data
from harness.errors import ConfigError
from harness.gluon.graph import Graph, flat
from harness.model.inputs import check_losses, labels_for, on_device, seed_of
from harness.model.parameters import held, seed_python


class Trial(NamedTuple):
    """What is tried.

    Attributes:
        net: an initialised network, not compiled yet.
        loss: of it; `None` where no labels are at hand, and then predictions are looked at.
        parameters: its parameters by structural name.
        graph: of both.
        ctx: the device.
        inputs: a few samples, on the device.
        labels: theirs.
        seed: of what is drawn.
    """

    net: Any
    loss: Any
    parameters: Mapping[str, Any]
    graph: Graph
    ctx: Any
    inputs: tuple[Any, ...]
    labels: Any
    seed: int

    @classmethod
    def of(
        cls,
        net: Any,
        loss: Any,
        parameters: Mapping[str, Any],
        graph: Graph,
        ctx: Any,
        sample: Data,
        label: Array | None,
        seed: int,
    ) -> Trial:
        """Put a few samples of the host on a device; the rest is taken as it is, and `seed` is the run's."""
        labels = None if label is None else on_device(labels_for(loss, label[:], "label"), ctx)
        inputs = tuple(on_device(leaf[:], ctx) for leaf in leaves_of(sample))
        return cls(net, loss, parameters, graph, ctx, inputs, labels, seed_of(seed, 0, 0))

    def forward(self) -> Any:
        """Losses in training, or predictions without labels; nothing is waited for."""
        mx.random.seed(self.seed, ctx=self.ctx)
        seed_python(self.seed)
        with mx.autograd.record():
            outputs = self.net(*self.inputs)
            losses = next(flat(outputs if self.labels is None else self.loss(outputs, self.labels)))
        if self.labels is not None:
            check_losses(losses, len(self.labels))
        return losses

    def predict_others(self) -> None:
        """A forward in predict mode of other samples: the first one, over and over."""
        with mx.autograd.predict_mode():
            self.net(*[mx.nd.concat(*[leaf[:1]] * len(leaf), dim=0) for leaf in self.inputs])

    def run_graph(self, symbol: Any) -> Any:
        """What a graph of the network gives for the samples."""
        values = {parameter.name: parameter.data(self.ctx) for parameter in self.parameters.values()}
        names = ["data"] if len(self.inputs) == 1 else [f"data{number}" for number in range(len(self.inputs))]
        values.update(zip(names, self.inputs, strict=True))
        return mx.nd.CachedOp(symbol)(*[values[name] for name in symbol.list_inputs()])

    def backward(self, losses: Any, head: Array) -> dict[str, Array]:
        """The gradients of the parameters by structural name, from a head gradient."""
        losses.backward(mx.nd.array(head, ctx=losses.context, dtype=losses.dtype))
        mx.nd.waitall()
        return {name: one.grad(self.ctx).asnumpy() for name, one in self.trainable.items()}

    @property
    def trainable(self) -> dict[str, Any]:
        """The parameters with a gradient by structural name."""
        return {name: one for name, one in self.parameters.items() if one.grad_req != "null"}

    @property
    def fixed(self) -> dict[str, Any]:
        """Those without."""
        return {name: one for name, one in self.parameters.items() if one.grad_req == "null"}

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


def data_and_label(sample: GlobalBatch | Batch | Data) -> tuple[Data, Array | None]:
    """Samples to settle shapes with: two of a batch, or what was given."""
    if callable(sample):
        raise ConfigError("sample: a function was given; give samples, such as the first batch: sample=stream(1)")
    if isinstance(sample, GlobalBatch):
        sample = next((batch for batch in sample.batches if batch.count), sample.batches[0])
        sample = Batch(sample.shard, rows_of(sample.data, slice(2)), sample.label[:2])
    return (sample.data, sample.label) if isinstance(sample, Batch) else (sample, None)
