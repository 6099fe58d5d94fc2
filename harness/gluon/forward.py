"""A network and its loss as one graph, where they are one, or as the user's own code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx

from harness.data.leaves import Array
from harness.gluon.graph import Graph, runs_python
from harness.gluon.rewriting import channel_block, rewrite
from harness.model.inputs import labels_for
from harness.model.parameters import list_held


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


def _not_compiled(net: Any, why: str) -> str:
    """What the user is told of a network that is no graph."""
    return (
        f"network: {type(net).__name__} cannot be compiled ({why}), so it runs operator by operator, which is slower; "
        "use only what symbols have in hybrid_forward (x.reshape((0, -1)) for x.shape, F.slice_like, F.where), or set "
        "network.hybridize: false, which says that this is meant"
    )
