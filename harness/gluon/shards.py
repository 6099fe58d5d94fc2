"""One shard of a global batch: seed, forward, backward; and what a network's graph says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError
from harness.gluon.rewriting import channel_block, rewrite

# how their names begin; _npi_ and what users program (Custom) to be safe
_RANDOM_OPERATORS = ("dropout", "_random", "_sample", "_shuffle", "_npi_", "custom")


def seed_of(seed: int, t: int, shard: int) -> int:
    """The seed of a shard's random operations in iteration `t`, 31 bits, because MXNet cuts at 32."""
    digest = hashlib.blake2b(f"{seed}/{t}/{shard}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


class Graph:
    """What is to be known of a network before it trains.

    Attributes:
        random: whether it draws random numbers, so that every shard has to be seeded (1.3 ms on a CPU).
        opaque: whether it has code that no graph shows, which may draw from NumPy as well.
        nested: whether graphs are seen inside it, as loops and conditions have them.
        statistics: full names of the parameters that a training forward changes, such as running means.
    """

    def __init__(self, net: Any, parameters: Mapping[str, Any], loss: Any = None) -> None:
        """Trace the network and its loss; one that cannot be traced is taken to be random.

        Args:
            net: an initialised `gluon.Block`.
            loss: of it; its random operations count as well.
            parameters: its parameters by structural name.
        """
        symbol = _trace(net)
        self.opaque = self.nested = False
        if symbol is None:
            self.random = self.opaque = True
            self.statistics = {
                p.name
                for name, p in parameters.items()
                if p.grad_req == "null" and name.rpartition(".")[2].startswith(("running_", "moving_"))
            }
            return
        traced = _trace_loss(loss, symbol)
        nodes = [] if traced is None else json.loads(traced.tojson())["nodes"]
        self.opaque = traced is None or any("custom" in node["op"].lower() for node in nodes)
        self.nested = any("subgraphs" in node for node in nodes)
        self.random = self.opaque or any(_is_random(node) for node in nodes)
        self.statistics = set(symbol.list_auxiliary_states())


class Forward:
    """A network and its loss, compiled where they can be."""

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
        if not hybridize or not isinstance(net, mx.gluon.HybridBlock):
            return
        net.hybridize(static_alloc=True)
        # a user's loss, or `forward` in place of `hybrid_forward`, is Python that may do another thing at each call
        fixed = type(loss).__module__ == mx.gluon.loss.__name__ and type(net).forward is mx.gluon.HybridBlock.forward
        if fixed and not graph.opaque:  # one call saves Python a fiftieth of an iteration of LeNet
            block = channel_block() if is_on_cpu else 1
            self._whole = mx.gluon.nn.HybridLambda(lambda _, inputs, labels: self._rewritten(inputs, labels, block))
            self._whole.register_child(net)
            # static_shape asks less of the engine: a sixteenth of an iteration of `mlp`. But loops then have no
            # gradient, and running statistics are written without the engine's knowledge, so that reads do not wait
            self._whole.hybridize(static_alloc=True, static_shape=not (graph.nested or graph.statistics))

    def losses(self, inputs: Any, labels: Any) -> tuple[Any, Any]:
        """The samples' losses and their sum `(1,)`."""
        net = self._net
        if self._whole is None or net._forward_hooks or net._forward_pre_hooks or not net._active:
            return self._separately(inputs, labels)
        losses, loss_sum = self._whole(inputs, labels)
        return losses, loss_sum

    def _rewritten(self, inputs: Any, labels: Any, block: int) -> tuple[Any, Any]:
        """The graph of both, from symbols."""
        shapes = {name: parameter.shape for name, parameter in self._net.collect_params().items()}
        losses = self._loss(rewrite(self._net(inputs), shapes, block), labels)
        return losses, losses.sum()

    def _separately(self, inputs: Any, labels: Any) -> tuple[Any, Any]:
        losses = self.prediction(inputs, labels)[1]
        return losses, losses.sum()

    def prediction(self, inputs: Any, labels: Any) -> tuple[Any, Any]:
        """The prediction and the samples' losses."""
        prediction = self._net(inputs)
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

    def play(self, t: int, shard: int, data: npt.NDArray[Any], label: npt.NDArray[Any]) -> Any:
        """Forward and backward of one shard.

        Args:
            t: the iteration.
            shard: the shard's number in the global batch.
            data: samples, `(n, ...)`.
            label: labels, `(n, ...)`.

        Returns:
            The sum of the samples' losses, `(1,)`, on the device.

        Raises:
            ConfigError: if the loss is not one value a sample, or a parameter took no part in it.
        """
        if self._graph.random:
            mx.random.seed(seed_of(self._seed, t, shard), ctx=self._ctx)
        if self._graph.opaque:
            np.random.seed(seed_of(self._seed, t, shard))
        inputs, labels = on_device(data, self._ctx), on_device(label, self._ctx)
        with mx.autograd.record():
            losses, loss_sum = self._forward.losses(inputs, labels)
        check_losses(losses, data.shape[0])
        losses.backward()
        self._check_all_took_part(shard)
        return loss_sum

    def predict(self, data: npt.NDArray[Any], label: npt.NDArray[Any]) -> tuple[Any, Any]:
        """Prediction and losses of samples without training: `(n, ...)` and `(n,)`; wait for both."""
        return self._forward.prediction(on_device(data[:], self._ctx), on_device(label[:], self._ctx))

    def _check_all_took_part(self, shard: int) -> None:
        weights = [parameter.data(self._ctx) for parameter in self._trainable.values()]
        stale = [name for name, weight in zip(self._trainable, weights, strict=True) if not weight._fresh_grad]
        if stale:
            raise ConfigError(
                f"network: {', '.join(stale)} got no gradient from shard {shard}, because the forward pass does "
                "not use it; "
                "use it, or set its grad_req to 'null'"
            )
        for weight in weights:
            weight._fresh_grad = False


def parameters_of(net: Any) -> dict[str, Any]:
    """A network's parameters by structural name; one that two blocks share appears once, under its first name."""
    seen: set[int] = set()
    unique = {}
    for name, parameter in net._collect_params_with_prefix().items():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            unique[name] = parameter
    return unique


def on_device(array: npt.NDArray[Any], ctx: Any) -> Any:
    """An array that nobody writes to again, on a device; on `cpu(0)` it is the same memory, and read-only from now on.

    `mx.nd.array` would wait until everything is computed that was asked for before, and Python stand still meanwhile.
    Who waits for the result passes a view, and leaves the caller's array writeable.
    """
    return mx.nd.from_numpy(np.ascontiguousarray(array)).as_in_context(ctx)


def settle(net: Any, samples: npt.NDArray[Any], ctx: Any) -> Any:
    """End deferred initialisation by a forward in predict mode, which changes nothing else; returns its prediction."""
    with mx.autograd.pause(train_mode=False):
        prediction = net(on_device(samples[:], ctx))
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


def refuse_unreducible(parameters: Mapping[str, Any], num_devices: int = 1) -> None:
    """Refuse what reducing over ranks would corrupt or silently change.

    Raises:
        ConfigError: for sparse parameters or gradients, more than one device, 'add' gradients, or another dtype than
        float32.
    """
    problems = []
    for name, parameter in parameters.items():
        if parameter._stype != "default" or parameter._grad_stype != "default":
            problems.append(
                f"{name} is sparse, and Horovod 0.28.1 corrupts memory when it reduces sparse gradients; use a "
                "dense one"
            )
        if len(parameter.list_ctx()) != num_devices:
            problems.append(
                f"{name} lives on {len(parameter.list_ctx())} devices, but {num_devices} would be reduced; initialise "
                "it on the devices of this process alone (devices)"
            )
        if parameter.grad_req == "add":
            problems.append(f"{name} has grad_req 'add'; set 'write', accumulation is what batch.shards does")
        if np.dtype(parameter.dtype) != np.float32:
            problems.append(f"{name} is {np.dtype(parameter.dtype)}; mixed precision is not supported, use float32")
    if problems:
        raise ConfigError("\n".join(f"network: {problem}" for problem in problems))


def _trace(net: Any) -> Any:
    if not isinstance(net, mx.gluon.HybridBlock):
        return None
    try:
        symbol = net(mx.sym.var("data"))
    except Exception:  # a user's hybrid_forward may use what only arrays have; tracing it is only a question asked
        return None
    return symbol if isinstance(symbol, mx.sym.Symbol) else None


def _trace_loss(loss: Any, prediction: Any) -> Any:
    if loss is None:
        return prediction
    try:
        losses = loss(prediction, mx.sym.var("label"))
    except Exception:  # as above
        return None
    return losses if isinstance(losses, mx.sym.Symbol) else None


def _is_random(node: Mapping[str, Any]) -> bool:
    """Whether a node of a graph, or of a graph inside it (the body of a loop), draws random numbers, or may."""
    if any(_is_random(inner) for graph in node.get("subgraphs", []) for inner in graph["nodes"]):
        return True
    operator = node["op"].lower()
    attributes = node.get("attrs", {})
    if operator == "leakyrelu":
        return bool(attributes.get("act_type") == "rrelu")
    if operator == "rnn":
        return float(attributes.get("p", 0)) > 0
    return bool(operator.startswith(_RANDOM_OPERATORS))
