"""One shard of a global batch: seed, forward, backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx

from harness.data import count_of, leaves_of
from harness.data.leaves import Array, Data
from harness.errors import ConfigError
from harness.gluon.graph import Graph, runs_python
from harness.gluon.rewriting import channel_block, rewrite
from harness.model.inputs import check_losses, labels_for, on_device, seed_of
from harness.model.parameters import held, list_held, seed_python


class Forward:
    """A network and its loss, compiled where they can be.

    Attributes:
        remark: what the user should know if it was to be compiled and cannot be.
    """

    def __init__(self, net: Any, loss: Any, graph: Graph, hybridize: bool, is_on_cpu: bool) -> None:
        """Compile.

        Args:
            net: an initialised `gluon.Block`.
            loss: maps (prediction, label) to one value a sample.
            graph: of both.
            hybridize: whether to compile at all.
            is_on_cpu: whether it will run there.
        """
        self._net = net
        self._loss = loss
        self._whole: Any = None
        self.remark: str | None = None
        if not hybridize or not isinstance(net, mx.gluon.HybridBlock):
            return
        if graph.refusal is not None:
            self.remark = _not_compiled(net, graph.refusal)
            return
        net.hybridize(static_alloc=True)
        # a user's loss, or `forward` in place of `hybrid_forward`, is Python that may do another thing at each call
        if not runs_python(net, loss) and not graph.opaque:  # one call saves Python a fiftieth of an iteration of LeNet
            block = channel_block() if is_on_cpu else 1
            self._whole = mx.gluon.nn.HybridLambda(lambda _, *arrays: self._rewritten(arrays[:-1], arrays[-1], block))
            self._whole.register_child(net)
            # static_shape asks less of the engine: a sixteenth of an iteration of `mlp`. But loops then have no
            # gradient, and running statistics are written without the engine's knowledge, so that reads do not wait
            self._whole.hybridize(static_alloc=True, static_shape=not (graph.nested or graph.statistics))

    def labels(self, label: Array, begin: str) -> Array:
        """Labels as the loss takes them: Gluon's losses that compute with integers want them as float32.

        Args:
            label: `(n, ...)`.
            begin: what messages say before the number of a row.

        Raises:
            DataError: if float32 cannot hold one.
        """
        return labels_for(self._loss, label, begin)

    @property
    def is_compiled(self) -> bool:
        """Whether network and loss are one graph, and no code of a user's runs."""
        return self._whole is not None

    def losses(self, inputs: Any, labels: Any) -> tuple[Any, Any]:
        """The samples' losses and their sum `(1,)`, from one array or a sequence of them."""
        inputs = inputs if isinstance(inputs, list | tuple) else [inputs]
        net = self._net
        if self._whole is None or net._forward_hooks or net._forward_pre_hooks or not net._active:
            return self._separately(inputs, labels)
        losses, loss_sum = self._whole(*inputs, labels)
        return losses, loss_sum

    def _rewritten(self, inputs: Sequence[Any], labels: Any, block: int) -> tuple[Any, Any]:
        """The graph of both, from symbols."""
        shapes = {name: list_held(one)[0].shape for name, one in self._net.collect_params().items()}
        losses = self._loss(rewrite(self._net(*inputs), shapes, block), labels)
        return losses, losses.sum()

    def _separately(self, inputs: Sequence[Any], labels: Any) -> tuple[Any, Any]:
        losses = self.prediction(inputs, labels)[1]
        return losses, losses.sum()

    def prediction(self, inputs: Sequence[Any], labels: Any) -> tuple[Any, Any]:
        """The prediction and the samples' losses."""
        prediction = self._net(*inputs)
        return prediction, self._loss(prediction, labels)


class ShardPlayer:
    """Plays shards on one device: after `play`, each parameter's gradient holds the sum over the shard's samples."""

    def __init__(self, forward: Forward, ctx: Any, trainable: Mapping[str, Any], seed: int, graph: Graph) -> None:
        """Bind a network and its loss.

        Args:
            forward: both.
            ctx: the device.
            trainable: parameters with a gradient, by structural name.
            seed: the run's seed.
            graph: tells whether random numbers are drawn.
        """
        self._forward = forward
        self._ctx = ctx
        self._trainable = trainable
        self._seed = seed
        self._graph = graph

    def play(self, t: int, shard: int, data: Data, label: Array) -> Any:
        """Forward and backward of one shard.

        Args:
            t: the iteration.
            shard: the shard's number in the global batch.
            data: samples, `(n, ...)`, or a tuple of such arrays, one for each input of the network.
            label: labels, `(n, ...)`.

        Returns:
            The sum of the samples' losses, `(1,)`, on the device.

        Raises:
            ConfigError: if the loss is not one value a sample, or a parameter took no part in it.
        """
        if self._graph.random:
            mx.random.seed(seed_of(self._seed, t, shard), ctx=self._ctx)
        if self._graph.opaque or (self._graph.has_code and not self._forward.is_compiled):
            seed_python(seed_of(self._seed, t, shard))
        inputs = [on_device(leaf, self._ctx) for leaf in leaves_of(data)]
        labels = on_device(self._forward.labels(label, f"iteration {t}, shard {shard}: label"), self._ctx)
        with mx.autograd.record():
            losses, loss_sum = self._forward.losses(inputs, labels)
        check_losses(losses, count_of(data))
        losses.backward()
        self._check_all_took_part(shard)
        return loss_sum

    def predict(self, data: Data, label: Array) -> tuple[Any, Any]:
        """Prediction and losses of samples without training: `(n, ...)` and `(n,)`; wait for both."""
        inputs = [on_device(leaf[:], self._ctx) for leaf in leaves_of(data)]
        return self._forward.prediction(inputs, on_device(self._forward.labels(label[:], "label"), self._ctx))

    def _check_all_took_part(self, shard: int) -> None:
        weights = [held(parameter, self._ctx) for parameter in self._trainable.values()]
        stale = [name for name, weight in zip(self._trainable, weights, strict=True) if not weight._fresh_grad]
        if stale:
            raise ConfigError(
                f"network: {', '.join(stale)} got no gradient from shard {shard}, because the forward pass does "
                "not use it; "
                "use it, or set its grad_req to 'null'"
            )
        for weight in weights:
            weight._fresh_grad = False


def _not_compiled(net: Any, why: str) -> str:
    """What the user is told of a network that is no graph."""
    return (
        f"network: {type(net).__name__} cannot be compiled ({why}), so it runs operator by operator, which is slower; "
        "use only what symbols have in hybrid_forward (x.reshape((0, -1)) for x.shape, F.slice_like, F.where), or set "
        "network.hybridize: false, which says that this is meant"
    )
