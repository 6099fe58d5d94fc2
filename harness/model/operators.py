"""Operators that mean something else here than in a loop of one's own; found in blocks and graphs, refused by name.

It looks at blocks, at the nodes of graphs, and at calls; it runs nothing.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import mxnet as mx

from harness.errors import ConfigError
from harness.model.parameters import blocks_of

Node = Mapping[str, Any]

_OF_RECURRENT = "MXNET_USE_MKLDNN_RNN"
_INSTEAD = (
    "use nn.BatchNorm: each shard is normalised by its own statistics, running statistics are averaged over all shards "
    "in every update, and a larger batch.size makes a shard's statistics those of more samples; or nn.GroupNorm or "
    "nn.LayerNorm, which need no other sample"
)
_SYNC = (
    "{what} synchronises the devices of one process by a key, and here each shard is run by itself: with num_devices "
    "1 it takes the statistics of one shard alone, with more it waits for ever; " + _INSTEAD
)
# what stands in graphs or is called, and why not
ACROSS_DEVICES = {
    "_contrib_SyncBatchNorm": _SYNC,
    "_CrossDeviceCopy": "{what} moves arrays between devices of one graph (model parallelism), and every worker holds "
    "the whole network on one device; leave it out",
}
_COLLECTIVE = (
    "{what} was called in the forward pass: a collective of the network's own waits for workers that run other shards, "
    "or another number of them; shards are summed by the harness, so leave it out"
)
_OF_HOROVOD = (
    "allreduce",
    "allreduce_",
    "grouped_allreduce",
    "grouped_allreduce_",
    "allgather",
    "grouped_allgather",
    "broadcast",
    "broadcast_",
    "alltoall",
    "reducescatter",
    "grouped_reducescatter",
)
_OF_KVSTORE = ("init", "push", "pull", "pushpull", "broadcast", "row_sparse_pull")
# losses of Module: their backward begins with a gradient of its own, whatever comes from above
IGNORE_HEAD = {
    "SoftmaxOutput": "mx.gluon.loss.SoftmaxCrossEntropyLoss",
    "LinearRegressionOutput": "mx.gluon.loss.L2Loss",
    "LogisticRegressionOutput": "mx.gluon.loss.SigmoidBinaryCrossEntropyLoss",
    "MAERegressionOutput": "mx.gluon.loss.L1Loss",
    "SVMOutput": "mx.gluon.loss.HingeLoss",
    "MakeLoss": "what it is given as the loss itself (times its grad_scale)",
    "make_loss": "what it is given as the loss itself",
    "IdentityAttachKLSparseReg": "a penalty that is added to the loss",
}
# those of them whose backward never asks for it, and may end the process if it is run at all
_DEAF = (
    *("SoftmaxOutput", "LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput"),
    "SVMOutput",
)
_OWN = {"Custom": "an operator of your own (Custom)", "_CustomFunction": "a mx.autograd.Function of your own"}
_WITHOUT_GRADIENT = {
    *("BlockGrad", "argmax", "argmin", "argmax_channel", "argsort", "one_hot", "round", "rint", "ceil", "floor"),
    *("trunc", "fix", "sign", "zeros_like", "ones_like", "shape_array", "size_array", "_equal", "_not_equal"),
    *("_greater", "_greater_equal", "_lesser", "_lesser_equal", "broadcast_equal", "broadcast_not_equal"),
    *("broadcast_greater", "broadcast_greater_equal", "broadcast_lesser", "broadcast_lesser_equal", "_equal_scalar"),
    *("_not_equal_scalar", "_greater_scalar", "_greater_equal_scalar", "_lesser_scalar", "_lesser_equal_scalar"),
}


def refuse_blocks_across_devices(*blocks: Any) -> None:
    """Refuse layers that synchronise devices, before anything of the network runs.

    Raises:
        ConfigError: with the layer's structural name.
    """
    for root in blocks:
        for name, block in blocks_of(root).items():
            if isinstance(block, mx.gluon.contrib.nn.SyncBatchNorm):
                _refuse(_SYNC, f"the layer {name or 'itself'} (contrib.nn.SyncBatchNorm)")


def refuse_operators_across_devices(nodes: Sequence[Node], net: Any) -> None:
    """Refuse operators of a graph that synchronise devices, or are placed on other ones.

    Raises:
        ConfigError: with the operator and the block that it stands in.
    """
    for node in nodes:
        why = ACROSS_DEVICES.get(node["op"])
        if why is not None:
            _refuse(why, described(node, net))
        group = node.get("attrs", {}).get("__ctx_group__") or node.get("attrs", {}).get("ctx_group")
        if group is not None:
            raise ConfigError(
                f"network: {described(node, net)} is placed on the devices of group {group!r} (mx.AttrScope), which "
                "Gluon ignores; every worker holds the whole network on one device, so remove ctx_group"
            )


def refuse_wrong_gradients(nodes: Sequence[Node], net: Any, ctx: Any) -> None:
    """Refuse recurrent layers of several without oneDNN, whose gradients MXNet 1.9.1 computes wrongly on CPUs.

    Those below the last are 0, or of memory that nobody wrote (apache/mxnet#17898); weights in float64, of which the
    same is true, are refused as it is.

    Raises:
        ConfigError: with the layer, and the variable that switches oneDNN off for it.
    """
    if ctx.device_type != "cpu" or os.environ.get(_OF_RECURRENT, "1").strip() != "0":
        return
    for node in nodes:
        number = int(node.get("attrs", {}).get("num_layers", 1)) if node["op"] == "RNN" else 1
        if number > 1:
            raise ConfigError(
                f"network: {described(node, net)} has {number} layers, and {_OF_RECURRENT}=0 is set, with which MXNet "
                "computes wrong gradients of all of them but the last on CPUs; unset it, or stack layers of one each"
            )


@contextmanager
def calls_across_devices_refused(net: Any) -> Iterator[None]:
    """Refuse calls that no graph shows: what the forward of a network's Block asks of devices and ranks, within.

    Raises:
        ConfigError: with the function that was called.
    """
    horovod = [sys.modules.get(name) for name in ("horovod.mxnet", "horovod.mxnet.mpi_ops")]
    wanted = [
        (mx.nd.contrib, "SyncBatchNorm", _SYNC, "mx.nd.contrib.SyncBatchNorm"),
        *((mx.kvstore.KVStore, name, _COLLECTIVE, f"KVStore.{name}") for name in _OF_KVSTORE),
        *((module, name, _COLLECTIVE, f"hvd.{name}") for module in horovod if module for name in _OF_HOROVOD),
    ]
    found = [(owner, name, why, what) for owner, name, why, what in wanted if hasattr(owner, name)]
    plain = [getattr(owner, name) for owner, name, _, _ in found]
    for owner, name, why, what in found:
        setattr(owner, name, _refusing(why, what, net))
    try:
        yield
    finally:
        for (owner, name, _, _), function in zip(found, plain, strict=True):
            setattr(owner, name, function)


def without_gradient(graph: Mapping[str, Any], trainable: set[str] | None = None) -> list[str] | None:
    """The operators that end every way from a loss to the weights, if they surely do.

    Args:
        graph: of the loss, as JSON.
        trainable: full names of the weights; by default every variable that MXNet has named `varN`, as it names those
            with a gradient in what it has recorded.

    Returns:
        Their names, `[]` if the loss does not lead to weights at all; `None` where a way is open.
    """
    nodes, ends, seen = graph["nodes"], set(), set()
    pending = [head[0] for head in graph["heads"]]
    while pending:
        index = pending.pop()
        if index in seen:
            continue
        seen.add(index)
        node = nodes[index]
        if node["op"] == "null":
            if node["name"].startswith("var") if trainable is None else node["name"] in trainable:
                return None
        elif node["op"] in _WITHOUT_GRADIENT:
            ends.add(node["op"])
        else:
            pending += [entry[0] for entry in node["inputs"]]
    return sorted(ends)


def ignoring(graph: Mapping[str, Any], trainable: set[str] | None = None) -> list[Node]:
    """The operators on a way from a loss to the weights that surely ignore the gradient that comes from above.

    Args:
        graph: of the loss, as JSON.
        trainable: as `without_gradient` takes it.
    """
    nodes, found, seen = graph["nodes"], [], set()
    pending = [head[0] for head in graph["heads"]]
    while pending:
        index = pending.pop()
        node = nodes[index]
        if index in seen or node["op"] in _WITHOUT_GRADIENT:
            continue
        seen.add(index)
        if _is_deaf(node) and without_gradient({"nodes": nodes, "heads": node["inputs"][:1]}, trainable) is None:
            found.append(node)
        pending += [entry[0] for entry in node["inputs"]]
    return found


def _is_deaf(node: Node) -> bool:
    attributes = node.get("attrs", {})
    listens = attributes.get("out_grad", "False") in ("True", "1") or float(attributes.get("grad_scale", 1)) == 0
    return node["op"] in _DEAF and not listens


def suspects(nodes: Sequence[Node]) -> list[Node]:
    """Operators that may ignore or bend the gradient that comes from above."""
    return [node for node in nodes if node["op"] in IGNORE_HEAD or node["op"] in _OWN]


def described(node: Node, net: Any) -> str:
    """An operator with its name, and the block that it stands in where its name shows that."""
    what = _OWN.get(node["op"], f"the operator {node['op'].removeprefix('_contrib_')}")
    kind = node.get("attrs", {}).get("op_type")
    name = node["name"]
    inside = [(len(block.prefix), path) for path, block in blocks_of(net).items() if block.prefix and path]
    paths = [path for length, path in sorted(inside) if name.startswith(blocks_of(net)[path].prefix)]
    return f"{what} ({kind or name}{f', in {paths[-1]}' if paths else ''})"


def _refuse(why: str, what: str) -> NoReturn:
    raise ConfigError(f"network: {why.format(what=what)}")


def _refusing(why: str, what: str, net: Any) -> Any:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        _refuse(why, f"{what}{_caller(net)}")

    return refuse


def _caller(net: Any) -> str:
    """The innermost block whose forward is running."""
    paths = {id(block): (path, type(block).__name__) for path, block in blocks_of(net).items()}
    frame = inspect.currentframe()
    while frame is not None:
        found = paths.get(id(frame.f_locals.get("self")))
        if found is not None:
            return f" (in {', '.join(filter(None, found))})"
        frame = frame.f_back
    return ""
