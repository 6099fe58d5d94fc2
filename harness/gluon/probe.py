"""Code that no graph shows, tried once on a few samples before it counts; everything is put back afterwards.

A network that trains here is a function of its samples, its parameters and its seed, or neither the number of workers
nor a resumed run would leave its bits alone. And its loss is followed back from whatever gradient it is given. What is
a graph of MXNet's own operators is so by nature, and is not run here; graphs are looked at by `operators`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mxnet as mx
import numpy as np

from harness.data.leaves import Array
from harness.errors import ConfigError
from harness.gluon.graph import Node, nodes_of, place_of, reason_of, runs_python, trace, trace_again
from harness.gluon.trial import Trial
from harness.model.calls import flat
from harness.model.operators import (
    IGNORE_HEAD,
    calls_across_devices_refused,
    described,
    ignoring,
    refuse_operators_across_devices,
    refuse_wrong_gradients,
    suspects,
    without_gradient,
)
from harness.model.parameters import blocks_of

_FACTOR = -4096.0  # a power of two, so that only a gradient that does not follow its head rounds otherwise
_TOLERANCE = 1e-3  # of the largest element: orders of sums may differ on a GPU, and denormals be flushed
_CHANGES = (
    "network: {kind} builds a different graph at every call: its hybrid_forward keeps something between calls (a "
    "counter, a hidden state), which no checkpoint holds, or draws a number that a compiled network keeps for good. "
    "Make it a function of its inputs and parameters, and draw with F (F.random_normal, F.Dropout)"
)
_DEAD = (
    "network, network.loss: no gradient reaches any weight, because {why}; nothing would be trained. Use a loss that "
    "can be derived, without detach, asnumpy or BlockGrad on the way"
)


def probe(tried: Trial, hybridize: bool) -> set[str]:
    """Try a network before its first update, as far as its graph does not answer by itself.

    Args:
        tried: the network and a few samples.
        hybridize: whether it will be compiled.

    Returns:
        Full names of parameters without a gradient that a training forward and backward was seen to change.

    Raises:
        ConfigError: for a network that raises, keeps state, writes to its weights, has operators that ignore their
            head gradient or mean something across devices, or whose loss leads to no weight.
    """
    net, graph = tried.net, tried.graph
    refuse_operators_across_devices(graph.nodes, net)
    refuse_wrong_gradients(graph.nodes, net, tried.ctx)
    if graph.symbol is not None:
        names = {parameter.name for parameter in tried.trainable.values()}
        _refuse_dead_loss(tried, graph.symbol, names)
        if len(graph.symbol.list_outputs()) == 1:  # of several a loss that cannot be traced may use any
            _refuse_ignoring(tried, graph.symbol, names)
    sparse = [node for node in graph.nodes if node["op"] == "IdentityAttachKLSparseReg"]
    if sparse:  # it exists in graphs only, and adds a gradient of its own
        raise ConfigError(_bent(tried, sparse, None))
    if graph.has_code and graph.refusal is None:
        why = _why_untrue(tried, _is_compiled(tried, hybridize))
        if why is not None:
            graph.distrust(why, net, tried.parameters)
    if (graph.has_code and not _is_compiled(tried, hybridize)) or suspects(graph.nodes):
        with tried.put_back(), calls_across_devices_refused(net), _explained(net):
            return _run(tried)
    return set()


def _is_compiled(tried: Trial, hybridize: bool) -> bool:
    """Whether an update calls the graph alone, and none of the user's code."""
    graph = tried.graph
    return hybridize and graph.refusal is None and not graph.opaque and not runs_python(tried.calls)


@contextmanager
def _explained(net: Any) -> Iterator[None]:
    """Turn whatever a user's code or MXNet raises into one sentence."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if "not in a computational graph" in str(error):
            raise ConfigError(_DEAD.format(why="the loss is computed from arrays that were taken out")) from error
        raise ConfigError(
            f"network: {type(net).__name__} or its loss raised {type(error).__name__} in a training forward and "
            f"backward of a few samples ({reason_of(error)}{place_of(error)})"
        ) from error


def _run(tried: Trial) -> set[str]:
    """Forward and backward twice, with other samples between them; a network may count its calls, so no more often.

    A second backward through one forward would be cheaper, but MXNet forgets the mask of a dropout in it.
    """
    before = tried.bits(tried.trainable), tried.bits(tried.fixed)
    losses, weights, recorded = _forward(tried)
    found = _all_bits((losses, weights))
    gradients = tried.backward(losses, np.ones(losses.shape))
    written = _different(tried.bits(tried.trainable), before[0])
    if written:
        raise ConfigError(
            f"network: the forward pass writes to {', '.join(written)}, which the optimizer trains: workers would "
            "write what their own shards ask for; set grad_req to 'null', and it is averaged as running statistics are"
        )
    moved = _different(tried.bits(tried.fixed), before[1])
    tried.predict_others()  # whoever keeps the last batch has another one now
    tried.restore(before[1])
    losses, weights, _ = _forward(tried)
    if tried.ctx.device_type == "cpu" and _all_bits((losses, weights)) != found:
        raise ConfigError(_keeps_state(tried, "gives other losses"))
    scaled = tried.backward(losses, np.full(losses.shape, _FACTOR))
    _refuse_bent_gradients(tried, gradients, scaled, recorded)
    return {tried.parameters[name].name for name in moved}


def _different(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    return [name for name, bits in found.items() if bits != expected[name]]


def _forward(tried: Trial) -> tuple[Any, Any, list[Node]]:
    """Losses, their weights if they have any, and the operators that MXNet has recorded, if it can tell.

    These are looked at before anything waits.
    """
    losses, weights = tried.forward()
    try:
        recorded = mx.autograd.get_symbol(losses)
    except mx.base.MXNetError:  # it does not know every operator
        return losses, weights, []
    nodes = nodes_of(recorded)
    refuse_operators_across_devices(nodes, tried.net)
    refuse_wrong_gradients(nodes, tried.net, tried.ctx)
    if tried.labels is not None:
        _refuse_dead_loss(tried, recorded, None)
    _refuse_ignoring(tried, recorded, None)
    return losses, weights, nodes


def _refuse_bent_gradients(
    tried: Trial, gradients: Mapping[str, Array], scaled: Mapping[str, Array], recorded: Sequence[Node]
) -> None:
    """Refuse a backward pass that is not linear in its head gradients."""
    if not all(np.isfinite(gradient).all() for gradient in gradients.values()):
        return  # the first update will tell
    found = suspects([*tried.graph.nodes, *recorded])
    wrong = _apart(scaled, {name: _FACTOR * gradient for name, gradient in gradients.items()})
    if wrong is not None:
        losses, _, _ = _forward(tried)
        if _apart(tried.backward(losses, np.ones(losses.shape)), gradients) and tried.ctx.device_type == "cpu":
            raise ConfigError(_keeps_state(tried, "gives other gradients"))
    elif found:
        parts = []
        for begin in (0, 1):  # unequal weights: every other sample, and the rest
            losses, _, _ = _forward(tried)
            head = np.zeros(losses.shape)
            head[begin::2] = 1
            parts.append(tried.backward(losses, head))
        wrong = _apart({name: parts[0][name] + parts[1][name] for name in gradients}, gradients)
    is_zero = not any(gradient.any() for gradient in gradients.values())
    heads = [node for node in found if node["op"] in IGNORE_HEAD]
    if wrong is not None or (is_zero and heads):
        raise ConfigError(_bent(tried, heads or found, wrong))


def _bent(tried: Trial, found: Sequence[Node], wrong: str | None) -> str:
    seen: dict[str, str] = {}
    for node in found:
        seen.setdefault(node["op"], described(node, tried.net))
    instead = [IGNORE_HEAD[op] for op in seen if op in IGNORE_HEAD]
    which = ", ".join(seen.values()) or "some operator in it"
    measured = (
        "" if wrong is None else f" (that of {wrong} is not {_FACTOR:g} times as large under a loss {_FACTOR:g} times)"
    )
    return (
        f"network, network.loss: {which} does not pass on the gradient that comes from above{measured}, so factors, "
        "weights and means of the loss would have no effect; "
        + (f"use {', '.join(instead)} instead" if instead else "make its backward linear in the gradient it is given")
    )


def _apart(found: Mapping[str, Array], expected: Mapping[str, Array]) -> str | None:
    """The first parameter whose gradients differ by more than rounding."""
    for name, gradient in expected.items():
        if np.abs(found[name] - gradient).max() > _TOLERANCE * np.abs(gradient).max() + np.finfo(np.float32).tiny:
            return name
    return None


def _keeps_state(tried: Trial, how: str) -> str:
    """The sentence for a network that is not a function, with the block that is not, if it shows itself once more."""
    name, block = _culprit(tried)
    which = f"{name!r} ({type(block).__name__})" if name else type(block).__name__
    return (
        f"network: {which} {how} for the same samples, weights and seed in its second training forward: it keeps state "
        "outside its parameters (a counter, a cache, a generator or a hidden state of its own), which no checkpoint "
        "holds and which differs between workers. Compute it from the samples; draw from mx.random or np.random, which "
        "are seeded for every shard; or keep it in a parameter with grad_req 'null', which is averaged over shards and "
        "saved"
    )


def _culprit(tried: Trial) -> tuple[str, Any]:
    """The innermost block whose output differed for equal inputs, in two more forwards; else network or loss."""
    runs: list[list[tuple[str, bytes, bytes]]] = []
    blocks = {**blocks_of(tried.net), **{f"loss.{key}" if key else "loss": b for key, b in _blocks_of_loss(tried)}}
    for _ in range(2):
        run: list[tuple[str, bytes, bytes]] = []
        handles = [
            block.register_forward_hook(
                lambda _, inputs, outputs, name=name, run=run: run.append((name, _all_bits(inputs), _all_bits(outputs)))
            )
            for name, block in blocks.items()
        ]
        try:
            _forward(tried)
        finally:
            for handle in handles:
                handle.detach()
        runs.append(run)
    for first, second in zip(*runs, strict=False):
        if first[:2] == second[:2] and first[2] != second[2]:
            return first[0], blocks[first[0]]
    return "", tried.net


def _blocks_of_loss(tried: Trial) -> list[tuple[str, Any]]:
    loss = tried.calls.loss
    return list(blocks_of(loss).items()) if tried.labels is not None and isinstance(loss, mx.gluon.Block) else []


def _why_untrue(tried: Trial, is_compiled: bool) -> str | None:
    """Why a network's graph is not what its code does, if it is not; a graph has no sizes, and takes one way alone."""
    net, arguments = tried.net, tried.arguments or ()
    try:
        once, again = (_without_names(trace_again(tried.calls, arguments, tried.labels)) for _ in range(2))
        if once != again and is_compiled:
            raise ConfigError(_CHANGES.format(kind=type(net).__name__))
        if once != again:
            return "its code builds a different graph at every call"
        prediction = mx.sym.Group(list(flat(trace(net, arguments, training=False))))
        trained = mx.sym.Group(list(flat(trace(net, arguments))))
        if runs_python(tried.calls) and _without_names(prediction) != _without_names(trained):
            return "it asks whether it trains, and one graph would serve both"
        with tried.put_back(), mx.autograd.predict_mode():
            mx.random.seed(tried.seed, ctx=tried.ctx)
            expected = [one.asnumpy() for one in flat(net(*arguments))]
            mx.random.seed(tried.seed, ctx=tried.ctx)
            found = [one.asnumpy() for one in flat(tried.run_graph(prediction))]
    except ConfigError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {reason_of(error)}{place_of(error)}"
    if all(_is_close(*pair) for pair in zip(found, expected, strict=True)):
        return None
    return "its graph gives other predictions than its code: len(x), x[0] and for ... in x ask a symbol for its outputs"


def _is_close(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape:
        return False
    bound = _TOLERANCE * np.abs(np.nan_to_num(expected)).max(initial=0)
    return np.allclose(found, expected, rtol=0, atol=bound + np.finfo(np.float32).tiny, equal_nan=True)


def _without_names(symbol: Any) -> str:
    """A graph but for the names that MXNet counts up; inputs and parameters keep theirs."""
    return json.dumps(_shape_of(json.loads(symbol.tojson()), is_inside=False))


def _shape_of(graph: Mapping[str, Any], is_inside: bool) -> list[Any]:
    nodes = []
    for node in graph["nodes"]:
        name = node["name"] if node["op"] == "null" and not is_inside else ""
        attributes = {key: value for key, value in node.get("attrs", {}).items() if key != "__subgraph_name__"}
        inner = [_shape_of(one, is_inside=True) for one in node.get("subgraphs", [])]
        entries = [entry[:2] for entry in node["inputs"]]  # without versions, which count writes to statistics
        nodes.append([node["op"], name, entries, attributes, inner])
    return [nodes, [head[:2] for head in graph["heads"]]]


def _refuse_dead_loss(tried: Trial, symbol: Any, trainable: set[str] | None) -> None:
    ends = without_gradient(json.loads(symbol.tojson()), trainable)
    if ends and tried.trainable:
        raise ConfigError(_DEAD.format(why=f"every way from the loss back passes {', '.join(ends)}, which has none"))


def _refuse_ignoring(tried: Trial, symbol: Any, trainable: set[str] | None) -> None:
    """Refuse what is known to ignore its head gradient, before a backward through it may end the process."""
    found = ignoring(json.loads(symbol.tojson()), trainable)
    if found:
        raise ConfigError(_bent(tried, found, None))


def _all_bits(arrays: Any) -> bytes:
    return b"".join(one.asnumpy().tobytes() for one in flat(arrays) if isinstance(one, mx.nd.NDArray))
