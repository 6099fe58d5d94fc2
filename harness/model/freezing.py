"""Parameters that a run leaves as they are: no gradient, optimizer state or weight decay, and statistics that stay."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
from mxnet.gluon import nn

from harness.errors import ConfigError
from harness.model.parameters import blocks_of
from harness.named import did_you_mean

_STATISTICS = ("running_", "moving_")


def freeze(net: Any, parameters: Mapping[str, Any], patterns: Sequence[str]) -> list[str]:
    """Freeze the parameters that patterns name, before the network is compiled.

    A batch normalisation whose gamma and beta are both frozen, or whose statistics a pattern names, is frozen as a
    whole: it normalises by its running statistics, as in evaluation, and these stay as they are. So what a frozen part
    computes for a sample does not depend on the batch it comes in.

    Args:
        net: an initialised network.
        parameters: all of its parameters by structural name.
        patterns: as in a shell, such as `features.*`.

    Returns:
        The structural names of what is frozen, statistics included.

    Raises:
        ConfigError: if a pattern matches nothing, or nothing is left to train.
    """
    named = dict.fromkeys(matching(parameters, patterns, "init.freeze"))
    if not named:
        return []
    trained = [name for name, parameter in parameters.items() if parameter.grad_req != "null"]
    if set(trained) <= named.keys():
        raise ConfigError(f"init.freeze: {list(patterns)} freezes every parameter, and nothing is left to train")
    for name in named:
        parameters[name].grad_req = "null"
    still = {name for name, parameter in parameters.items() if parameter.grad_req == "null"}
    full_names = {parameter.name: name for name, parameter in parameters.items()}
    for block in blocks_of(net).values():
        if isinstance(block, nn.BatchNorm):
            own = [full_names[p.name] for p in block._reg_params.values() if p.name in full_names]
            if _is_frozen(own, named, still):
                block._kwargs["use_global_stats"] = True
                named.update(dict.fromkeys(own))
        elif isinstance(block, mx.gluon.SymbolBlock):
            _freeze_graph(block, full_names, named, still)
    return [name for name in parameters if name in named]


def matching(parameters: Mapping[str, Any], patterns: Sequence[str], key: str) -> list[str]:
    """The names of the parameters that patterns name, in the order of the network.

    Args:
        parameters: by structural name.
        patterns: as in a shell, such as `features.*`.
        key: what messages call them.

    Raises:
        ConfigError: if a pattern matches nothing.
    """
    named: set[str] = set()
    for pattern in patterns:
        found = [name for name in parameters if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            raise ConfigError(
                f"{key}: the pattern {pattern!r} (as in a shell: features.*) matches no parameter; "
                f"{did_you_mean(pattern, list(parameters))}the parameters are {', '.join(parameters)}"
            )
        named.update(found)
    return [name for name in parameters if name in named]


def part_of(parameters: Mapping[str, Any], patterns: Sequence[str] | None) -> list[str]:
    """The names of the parameters that a learner of a part changes: all of them without patterns.

    Raises:
        ConfigError: if a pattern matches nothing, or none of what is named has a gradient.
    """
    if patterns is None:
        return list(parameters)
    part = matching(parameters, patterns, "trainable")
    if all(parameters[name].grad_req == "null" for name in part):
        named = f"; {', '.join(part)} have none" if part else ""
        raise ConfigError(f"trainable: {list(patterns)} names no parameter that has a gradient{named}")
    return part


def _freeze_graph(block: Any, full_names: Mapping[str, str], named: dict[str, None], still: set[str]) -> None:
    """The same for batch normalisations of an imported graph."""
    inputs, symbol = block._cached_graph
    graph = json.loads(symbol.tojson())
    nodes, changed = graph["nodes"], False
    for node in nodes:
        if node["op"] != "BatchNorm":
            continue
        own = [full_names[name] for entry in node["inputs"][1:] if (name := nodes[entry[0]]["name"]) in full_names]
        if _is_frozen(own, named, still):
            node.setdefault("attrs", {})["use_global_stats"] = "True"
            named.update(dict.fromkeys(own))
            changed = True
    if changed:
        block._cached_graph = (inputs, mx.sym.load_json(json.dumps(graph)))
        block._clear_cached_op()  # which was compiled from the graph that was there


def _is_frozen(own: Sequence[str], named: Mapping[str, None], still: set[str]) -> bool:
    """Whether a batch normalisation is frozen as a whole, by the names of its parameters: gamma, beta, statistics."""
    affine, statistics = own[:2], own[2:]
    return any(name in named for name in statistics) or (
        any(name in named for name in affine) and all(name in still for name in affine)
    )
