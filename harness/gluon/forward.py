"""A network and its loss as one graph, where they are one, or as the user's own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx

from harness.data.leaves import Data, leaves_of
from harness.errors import ConfigError
from harness.gluon.graph import Graph, runs_python
from harness.gluon.rewriting import channel_block, rewrite
from harness.gluon.weighing import check_told, check_weighted
from harness.model.calls import Called, Calls, flat
from harness.model.carried import new_state, rebuilt
from harness.model.parameters import has_rows, list_held


class Forward:
    """A network and its loss, compiled where they can be.

    Attributes:
        remark: what the user should know if it was to be compiled and cannot be.
    """

    def __init__(self, calls: Calls, graph: Graph, hybridize: bool, is_on_cpu: bool, is_weighted: bool = False) -> None:
        """Compile.

        Args:
            calls: an initialised network and its loss.
            graph: of both.
            hybridize: whether to compile at all.
            is_on_cpu: whether it will run there.
            is_weighted: whether the loss gives numerators and weights, instead of one value a sample.
        """
        net = calls.net
        self._calls = calls
        self._is_weighted = is_weighted
        self._net = net
        self._whole: Any = None
        self.remark: str | None = None
        if not hybridize or not isinstance(net, mx.gluon.HybridBlock):
            return
        if graph.refusal is not None:
            self.remark = _not_compiled(net, graph.refusal)
            return
        net.hybridize(static_alloc=True)
        # a user's loss, or `forward` in place of `hybrid_forward`, is Python that may do another thing at each call
        if not runs_python(calls) and not graph.opaque:  # one call saves Python a fiftieth of an iteration of LeNet
            block = channel_block() if is_on_cpu else 1
            self._whole = mx.gluon.nn.HybridLambda(lambda _, *given: self._rewritten(given[:-1], given[-1], block))
            self._whole.register_child(net)
            # static_shape asks less of the engine: a sixteenth of an iteration of `mlp`. But loops then have no
            # gradient, running statistics are written without the engine's knowledge, so that reads do not wait, and
            # gradients by rows have another size in every update
            has_tables = any(map(has_rows, net.collect_params().values()))
            is_static = not (graph.nested or graph.statistics or has_tables)
            self._whole.hybridize(static_alloc=True, static_shape=is_static)

    def labels(self, label: Data, begin: str) -> Data:
        """Labels as the loss takes them."""
        return self._calls.labels(label, begin)

    @property
    def is_compiled(self) -> bool:
        """Whether network and loss are one graph, and no code of a user's runs."""
        return self._whole is not None

    def losses(
        self, data: Any, labels: Any, totals: Mapping[str, float] | None = None, state: Any = None
    ) -> tuple[Any, Any, Any]:
        """The samples' losses and their sum `(1,)`; of a weighted loss the numerators and the weights. Then the state.

        Args:
            data: an array on a device, or nested as in a batch.
            labels: likewise.
            totals: of the global batch, for a loss that is told them.
            state: that is carried.
        """
        net = self._net
        if self._whole is None or net._forward_hooks or net._forward_pre_hooks or not net._active:
            called = self._calls(data, labels, totals, state)
            return *self._judged(called.losses, totals), called.state
        if state is None:
            return *self._whole(*leaves_of(data), labels), None
        losses, loss_sum, following = self._whole(*leaves_of(data), state, labels)
        return losses, loss_sum, new_state(following, state)

    def _rewritten(self, inputs: Sequence[Any], labels: Any, block: int) -> tuple[Any, ...]:
        """The graph of both, from symbols: losses, their sum, the state that is carried on."""
        shapes = {name: list_held(one)[0].shape for name, one in self._net.collect_params().items()}
        returned = self._net(*inputs)
        if self._calls.first_state is None:
            losses = self._calls.loss(rewrite(returned, shapes, block), labels)
            return losses, losses.sum()
        prediction, state = returned
        rewritten = iter(rewrite(mx.sym.Group([prediction, *flat(state)]), shapes, block))
        losses = self._calls.loss(next(rewritten), labels)
        return losses, losses.sum(), rebuilt(state, rewritten)

    def _judged(self, losses: Any, totals: Mapping[str, float] | None) -> tuple[Any, Any]:
        if totals is not None:
            return check_told(losses), losses.sum()
        if self._is_weighted or not isinstance(losses, mx.nd.NDArray):
            numerators, weights = check_weighted(losses)
            if not self._is_weighted:
                raise ConfigError(
                    "network.loss: gave numerators and weights, which nobody expected: it gave one value a sample for "
                    "the first samples, or the learner's sample has no labels; give it a batch: sample=stream(1)"
                )
            return numerators, weights
        return losses, losses.sum()

    def prediction(
        self, data: Any, labels: Any, totals: Mapping[str, float] | None = None, state: Any = None
    ) -> Called:
        """The prediction, the samples' losses and the state that is carried on, by default from the first."""
        return self._calls(data, labels, totals, state)


def _not_compiled(net: Any, why: str) -> str:
    """What the user is told of a network that is no graph."""
    return (
        f"network: {type(net).__name__} cannot be compiled ({why}), so it runs operator by operator, which is slower; "
        "use only what symbols have in hybrid_forward (x.reshape((0, -1)) for x.shape, F.slice_like, F.where), or set "
        "network.hybridize: false, which says that this is meant"
    )
