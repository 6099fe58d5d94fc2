"""A network's graph in a form that is sooner computed: the same function and gradients, but for their rounding.

It knows MXNet's graphs as JSON, and neither blocks nor data.

1. An activation before a max pooling goes behind it, where fewer numbers are left. What is monotone takes the largest
   number to the largest, and the gradient reaches the same place.
2. On a CPU convolutions get channels in multiples of what a register holds. oneDNN's fast kernels work on such blocks;
   for other numbers it proposes padded arrays, which MXNet refuses (it goes on to the next kernel until sizes are those
   of plain arrays), and what is left copies every patch of a picture into a matrix. So the graph pads weights with
   zeros: channels that nobody has asked for are computed, go through activations and poolings, and are cut off.

With numbers that are not finite the function may be another. MXNet's max pooling passes over NaN, and tanh of what it
puts in its place is finite, as ReLU of NaN always was; and infinity times a zero of the padding is NaN. Whether weights
are finite is looked at before every save and at the end.
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx

Shape = tuple[int, ...]
Entry = list[int]  # the index of a node, which of its outputs, and a version that is MXNet's own affair
Node = dict[str, Any]

_MONOTONE = ("relu", "sigmoid", "tanh")  # oneDNN's softrelu is not quite, and softsign makes NaN of infinity
_BLOCKS = {"avx512f": 16, "avx2": 8}  # float32 in a register, by what Linux calls the instructions; the best first
_LEAST_BLOCK = 8  # channels in multiples of it have a kernel on all of these CPUs, if perhaps one half as fast
_PICTURE = 3  # channels up to which a first layer's kernel takes its input as it is
_MOST_WORK = 3.0  # multiplications with padding for each one without


def rewrite(prediction: Any, shapes: Mapping[str, Shape], block: int = 1) -> Any:
    """The graph of a network, rewritten.

    Args:
        prediction: an `mx.sym.Symbol`.
        shapes: of the network's parameters by full name; all are known.
        block: channels of convolutions become multiples of it, in networks of the usual layers one after another;
            1 leaves them alone.
    """
    graph = json.loads(prediction.tojson())
    _pool_first(graph["nodes"], graph["heads"])
    if block > 1 and _may_be_padded(graph["nodes"], graph["heads"]):
        padding = _Padding(shapes, block)
        for node in graph["nodes"]:
            padding.take(node)
        heads = [padding.cut(entry) for entry in graph["heads"]]
        variables = [index for index, node in enumerate(padding.nodes) if node["op"] == "null"]
        graph = {"nodes": padding.nodes, "arg_nodes": variables, "heads": heads, "attrs": graph["attrs"]}
    return mx.sym.load_json(json.dumps(graph))


def channel_block() -> int:
    """How many channels oneDNN's kernels for this CPU compute at once; 1 where MXNet has no such kernels."""
    facts = Path("/proc/cpuinfo")
    is_off = os.environ.get("MXNET_MKLDNN_ENABLED", "").lower() in ("0", "false")
    if platform.machine() != "x86_64" or is_off or not mx.runtime.Features().is_enabled("MKLDNN"):
        return 1
    if not facts.is_file():
        return 1
    flags = facts.read_text(encoding="utf-8").split()
    return next((block for flag, block in _BLOCKS.items() if flag in flags), 1)


def _pool_first(nodes: list[Node], heads: Sequence[Entry]) -> None:
    """Let every max pooling change places with an activation that it alone reads."""
    uses = Counter(entry[0] for entries in (heads, *(node["inputs"] for node in nodes)) for entry in entries)
    for index, pooling in enumerate(nodes):
        if pooling["op"] != "Pooling":
            continue
        before = pooling["inputs"][0][0]
        activation = nodes[before]
        if (
            activation["op"] == "Activation"
            and activation["attrs"]["act_type"] in _MONOTONE
            and uses[before] == 1
            and pooling["attrs"].get("pool_type", "max") == "max"
            # "full" may have windows of nothing but border
            and pooling["attrs"].get("pooling_convention", "valid") == "valid"
        ):
            nodes[before] = {**pooling, "inputs": activation["inputs"]}
            nodes[index] = {**activation, "inputs": pooling["inputs"]}


def _may_be_padded(nodes: Sequence[Node], heads: Sequence[Entry]) -> bool:
    """Whether every operator computes rightly with arrays that oneDNN has laid out in blocks, and none gets out.

    Not all of MXNet's do: concat and slice end the process over blocks that they cannot cut, batch normalisation over
    another axis than 1 fails. For what is not in `_bears_blocks` nobody has looked.
    """
    return all(_bears_blocks(node) for node in nodes) and all(
        nodes[head[0]]["op"] == "FullyConnected" for head in heads
    )


def _bears_blocks(node: Node) -> bool:
    """Whether one operator does."""
    match node["op"]:
        case "null" | "Convolution" | "Activation" | "Dropout" | "Flatten" | "FullyConnected":
            return True
        case "Pooling":
            return _is_plain(node)
        case "BatchNorm":
            return bool(node["attrs"].get("axis", "1") == "1")
        case "LeakyReLU":
            return node["attrs"]["act_type"] in ("leaky", "elu")
    return False


def _is_plain(node: Node) -> bool:
    """Whether a convolution or pooling finds channels where pictures of MXNet have them."""
    return node["attrs"].get("layout") in (None, "None", "NCHW")


class _Padding:
    """Takes the nodes of a graph, one after another, into one whose convolutions are padded.

    Attributes:
        nodes: of the new graph.
    """

    def __init__(self, shapes: Mapping[str, Shape], block: int) -> None:
        self.nodes: list[Node] = []
        self._shapes = shapes
        self._block = block
        self._names: list[str] = []  # of the old graph's nodes
        self._index: list[int] = []  # and of what stands for them in the new one
        self._padded: dict[int, int] = {}  # nodes of the old graph whose array is padded now: their channels without
        self._cut: dict[int, Entry] = {}

    def take(self, node: Node) -> None:
        """Take the next node."""
        old, inputs = len(self._index), node["inputs"]
        self._names.append(node["name"])
        if node["op"] == "Convolution" and self._is_worth_padding(node):
            self._pad(old, node)
        elif node["op"] in ("Activation", "Pooling") and inputs[0][0] in self._padded:
            self._padded[old] = self._padded[inputs[0][0]]
            self.nodes.append({**node, "inputs": [self._with_padding(inputs[0])]})
        else:
            self.nodes.append({**node, "inputs": [self.cut(entry) for entry in inputs]})
        self._index.append(len(self.nodes) - 1)

    def cut(self, entry: Entry) -> Entry:
        """What stands for an array of the old graph, without padding."""
        old = entry[0]
        if old not in self._padded:
            return self._with_padding(entry)
        if old not in self._cut:
            limits = {"axis": "1", "begin": "0", "end": str(self._padded[old])}
            self._cut[old] = self._make("slice_axis", [self._with_padding(entry)], limits)
        return self._cut[old]

    def _with_padding(self, entry: Entry) -> Entry:
        return [self._index[entry[0]], *entry[1:]]

    def _is_worth_padding(self, node: Node) -> bool:
        """Whether it is a plain convolution that has no kernel without padding, and zeros are not most of it."""
        data, weight = [entry[0] for entry in node["inputs"][:2]]
        shape = self._shapes.get(self._names[weight], ())  # none where weights are computed
        if len(shape) != 4 or node["attrs"].get("num_group", "1") != "1" or not _is_plain(node):
            return False
        outputs, inputs = shape[:2]
        if data in self._padded:
            return self._multiple(outputs) * self._multiple(inputs) <= _MOST_WORK * outputs * inputs
        is_readable = inputs <= _PICTURE or inputs % self._block == 0
        return is_readable and outputs % _LEAST_BLOCK != 0 and self._multiple(outputs) <= _MOST_WORK * outputs

    def _pad(self, old: int, node: Node) -> None:
        """Take a convolution with zeros behind its weights, for channels that it reads and for those that it makes."""
        data, weight, *biases = node["inputs"]
        shape = self._shapes[self._names[weight[0]]]
        weights = self._with_padding(weight)
        if data[0] in self._padded:
            weights = self._extend(weights, shape, axis=1)
            shape = (shape[0], self._multiple(shape[1]), *shape[2:])
        weights = self._extend(weights, shape, axis=0)
        extended = [self._extend(self._with_padding(bias), shape[:1], axis=0) for bias in biases]
        attributes = {**node["attrs"], "num_filter": str(self._multiple(shape[0]))}
        self.nodes.append({**node, "attrs": attributes, "inputs": [self._with_padding(data), weights, *extended]})
        if shape[0] % self._block:
            self._padded[old] = shape[0]

    def _extend(self, entry: Entry, shape: Shape, axis: int) -> Entry:
        """An array of the new graph with zeros behind it, up to a multiple."""
        missing = self._multiple(shape[axis]) - shape[axis]
        if not missing:
            return entry
        zeros = {"shape": str((*shape[:axis], missing, *shape[axis + 1 :])), "dtype": "float32"}
        return self._make("Concat", [entry, self._make("_zeros", [], zeros)], {"dim": str(axis), "num_args": "2"})

    def _make(self, operator: str, inputs: list[Entry], attributes: dict[str, str]) -> Entry:
        self.nodes.append({"op": operator, "name": f"padding{len(self.nodes)}", "attrs": attributes, "inputs": inputs})
        return [len(self.nodes) - 1, 0, 0]

    def _multiple(self, channels: int) -> int:
        return -(-channels // self._block) * self._block
