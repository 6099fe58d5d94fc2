"""What a network's graph says of it before it trains; it knows MXNet's graphs as JSON, and no data."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mxnet as mx

from harness.data import names_of, pack
from harness.model.calls import Calls, flat, is_of_gluon
from harness.model.parameters import blocks_of, is_computed
from harness.model.soft_labels import SmoothedLoss

Node = Mapping[str, Any]

# how their names begin; _npi_ and what users program (Custom) to be safe
_RANDOM_OPERATORS = ("dropout", "_random", "_sample", "_shuffle", "_npi_", "custom")
# whose blocks keep arrays between calls, though they are MXNet's own
_STATEFUL = ("mxnet.gluon.rnn.rnn_cell", "mxnet.gluon.contrib.rnn")
_OF_MXNET = (mx.gluon.HybridBlock.forward, mx.gluon.SymbolBlock.forward)


class Graph:
    """What is to be known of a network before it trains.

    Attributes:
        random: whether it draws random numbers, so that every shard has to be seeded (1.3 ms on a CPU).
        opaque: whether it has code that no graph shows, which may draw from NumPy as well.
        nested: whether graphs are seen inside it, as loops and conditions have them.
        statistics: full names of the parameters that a training forward changes, such as running means.
        nodes: of the network's graph and its loss's, or what can be seen of them.
        refusal: why the network itself is not a graph; `None` where it is one.
        symbol: of the losses, or of the predictions where the loss is no graph; `None` where the network is none.
        has_custom: whether operators are called that users have programmed.
        has_code: whether anything but MXNet's own stateless layers is called, be it while tracing.
    """

    def __init__(
        self,
        calls: Calls,
        parameters: Mapping[str, Any],
        arguments: tuple[Any, ...] | None = (None,),
        label: object = None,
    ) -> None:
        """Trace the network and its loss; one that cannot be traced is taken to be random.

        Args:
            calls: an initialised network and its loss, whose random operations count as well.
            parameters: its parameters by structural name.
            arguments: what the network is called with, of which the structure counts; `None` if nobody can tell.
            label: what the loss is called with, likewise.
        """
        net, loss = calls.net, calls.loss
        self.nested = False
        self.refusal: str | None = None
        self.symbol: Any = None
        is_own = calls.forward is not None or any(map(is_computed, parameters.values()))
        self.has_code = _has_code(net, loss) or is_own
        outputs = self._trace(net, arguments)
        if outputs is None:
            self._take_for_code(net, parameters)
            return
        everything = mx.sym.Group(list(flat(outputs)))
        self.symbol, traced = _symbol_of(calls, outputs, label)
        # state that is carried is no part of the loss, and what it is computed by may be random as well
        self.nodes = nodes_of(self.symbol if calls.first_state is None else mx.sym.Group([self.symbol, everything]))
        self.has_custom = any("custom" in node["op"].lower() for node in self.nodes)
        self.has_code = self.has_code or self.has_custom
        self.opaque = not traced or self.has_custom or any(map(is_computed, parameters.values()))
        self.nested = any("subgraphs" in node for node in self.nodes)
        self.random = self.opaque or any(_is_random(node) for node in self.nodes)
        self.statistics = set(everything.list_auxiliary_states())

    @property
    def may_deconvolve(self) -> bool:
        """Whether a deconvolution is seen, or may be called where nothing is seen."""
        return self.opaque or any(node["op"] == "Deconvolution" for node in self.nodes)

    def distrust(self, why: str, net: Any, parameters: Mapping[str, Any]) -> None:
        """Take the network for one that cannot be traced, because its graph is not what its code does."""
        self.refusal = why
        self._take_for_code(net, parameters)

    def _take_for_code(self, net: Any, parameters: Mapping[str, Any]) -> None:
        self.random = self.opaque = True
        self.nested = self.has_custom = False
        self.symbol = None
        self.nodes = [node for symbol in graphs_inside(net) for node in nodes_of(symbol)]
        self.statistics = _likely_statistics(net, parameters)

    def _trace(self, net: Any, arguments: tuple[Any, ...] | None) -> Any:
        """The network's outputs as symbols, in training; `None` and a reason where it is no graph."""
        if not isinstance(net, mx.gluon.HybridBlock):
            self.refusal = f"{type(net).__name__} is a Block, and only a HybridBlock is compiled"
            return None
        if arguments is None:
            self.refusal = "network.forward calls parts of it, or calls it in several ways"
            return None
        try:
            outputs = trace(net, arguments)
        except Exception as error:  # a user's hybrid_forward may use what only arrays have; this only asks
            self.refusal = f"{type(error).__name__}: {reason_of(error)}{place_of(error)}"
            return None
        if not all(isinstance(output, mx.sym.Symbol) for output in flat(outputs)):
            self.refusal = "its forward does not return what F's operators give"
            return None
        return outputs


def trace(net: Any, arguments: tuple[Any, ...] = (None,), training: bool = True) -> Any:
    """What a `HybridBlock` returns for symbols, as in training or not; raises whatever its code raises.

    Args:
        net: the network.
        arguments: it is called with, arrays or nested lists of them, of which only the structure counts.
        training: whether it trains.
    """
    names = iter(names_of_inputs(arguments))
    with mx.autograd.train_mode() if training else mx.autograd.predict_mode():
        return net(*_variables(arguments, names))


def names_of_inputs(arguments: tuple[Any, ...]) -> list[str]:
    """What a graph calls the arrays that a network is called with, in their order."""
    count = sum(1 for _ in flat(arguments))
    return ["data"] if count == 1 else [f"data{number}" for number in range(count)]


def _variables(arguments: Any, names: Iterator[str]) -> Any:
    if isinstance(arguments, list | tuple):
        return [_variables(one, names) for one in arguments]
    return mx.sym.var(next(names))


def _has_code(net: Any, loss: Any) -> bool:
    return any(
        not type(block).__module__.startswith(("mxnet.", SmoothedLoss.__module__))
        or type(block).__module__.startswith(_STATEFUL)
        or isinstance(block, mx.gluon.nn.Lambda | mx.gluon.nn.HybridLambda)
        or bool(block._forward_hooks or block._forward_pre_hooks)
        for block in (*blocks_of(net).values(), *({} if loss is None else blocks_of(loss)).values())
    )


def trace_again(calls: Calls, arguments: tuple[Any, ...], label: object) -> Any:
    """The graph of losses once more, or of predictions where the loss is no graph."""
    return _symbol_of(calls, trace(calls.net, arguments), label)[0]


def runs_python(calls: Calls) -> bool:
    """Whether code of a user's own runs in every call, even of a network that is compiled."""
    return type(calls.net).forward not in _OF_MXNET or not is_of_gluon(calls.loss) or calls.forward is not None


def nodes_of(symbol: Any) -> list[Node]:
    """Every node of a graph, those of graphs inside it (the body of a loop) behind them."""
    found = list(json.loads(symbol.tojson())["nodes"])
    for node in found:
        for graph in node.get("subgraphs", []):
            found.extend(graph["nodes"])
    return found


def graphs_inside(net: Any) -> Iterator[Any]:
    """The symbols that blocks of a network hold: those of every `SymbolBlock`."""
    for block in blocks_of(net).values():
        if isinstance(block, mx.gluon.SymbolBlock):
            yield block._cached_graph[1]


def _likely_statistics(net: Any, parameters: Mapping[str, Any]) -> set[str]:
    """Full names of what a network that is no graph surely or probably changes in training."""
    found = {name for symbol in graphs_inside(net) for name in symbol.list_auxiliary_states()}
    for block in blocks_of(net).values():
        found |= {
            parameter.name
            for name, parameter in getattr(block, "_reg_params", {}).items()
            if name.startswith(("running_", "moving_"))
        }
    return {parameter.name for parameter in parameters.values() if parameter.grad_req == "null"} & found


def _symbol_of(calls: Calls, outputs: Any, label: object) -> tuple[Any, bool]:
    """The graph of losses, or of predictions where the loss is no graph; and whether it is that of losses.

    Args:
        calls: network and loss.
        outputs: of the network, symbols; where it carries state, that is not among what is looked at.
        label: what the loss is called with, of which the structure counts.
    """
    if calls.first_state is not None and calls.forward is None:
        outputs = outputs[0]
    prediction = mx.sym.Group(list(flat(outputs)))
    if calls.loss is None:
        return prediction, True
    traced = None if calls.forward is not None else _trace_loss(calls, outputs, label)
    return (prediction, False) if traced is None else (traced, True)


def _trace_loss(calls: Calls, outputs: Any, label: object) -> Any:
    try:
        labels = [mx.sym.var(name.replace("'", "")) for name in names_of(label, "label")]
        told = [dict.fromkeys(calls.weights_of(label), 1.0)] if calls.is_told_totals else []
        losses = calls.loss(outputs, pack(labels, label), *told)
    except Exception:  # as above
        return None
    symbols = list(flat(losses))  # of a weighted loss numerators and weights
    if not all(isinstance(one, mx.sym.Symbol) for one in symbols):
        return None
    return symbols[0] if len(symbols) == 1 else mx.sym.Group(symbols)


def reason_of(error: BaseException) -> str:
    """What an error says in one line; MXNet's begin with a traceback of their own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["without a word"]
    return lines[-1] if isinstance(error, mx.base.MXNetError) else lines[0]


def place_of(error: BaseException) -> str:
    """Where a user's code raised: the last line that is neither MXNet's nor ours."""
    here = (Path(mx.__file__).parent, Path(__file__).parents[1])
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not any(path.is_relative_to(folder) for folder in here):
            return f", at {path.name}:{frame.lineno}"
    return ""


def _is_random(node: Node) -> bool:
    """Whether a node of a graph draws random numbers, or may."""
    operator = node["op"].lower()
    attributes = node.get("attrs", {})
    if operator == "leakyrelu":
        return bool(attributes.get("act_type") == "rrelu")
    if operator == "rnn":
        return float(attributes.get("p", 0)) > 0
    return bool(operator.startswith(_RANDOM_OPERATORS))
