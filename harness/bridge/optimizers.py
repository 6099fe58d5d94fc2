"""The optimizer of a run for a module of PyTorch, with its state in the module's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from harness.bridge.counterparts import Counterpart, RunOptimizer, counterpart_of, in_float32
from harness.bridge.layers import Shape
from harness.bridge.mapping import ArrayMap, rows_of, whole
from harness.errors import ConfigError, listed


def carry_over(run: RunOptimizer, module: nn.Module, mapping: ArrayMap) -> tuple[torch.optim.Optimizer, Counterpart]:
    """A run's optimizer for a module, with its state; the learning rate is the caller's to set, in every update.

    Parameters are in the order of the module's; those that the run gives different factors are in different groups,
    each with `lr_mult` and `weight_decay`. Before a step it clips gradients as the run does.

    Raises:
        ConfigError: if PyTorch has none that makes the same updates, with the formulas of both.
    """
    counterpart = counterpart_of(run)
    parameters = {name: one for name, one in module.named_parameters() if one.requires_grad}
    sources = _sources(run, mapping, list(parameters))
    groups: dict[tuple[float, float], list[str]] = {}
    for name in parameters:
        groups.setdefault(run.factors[sources[name]], []).append(name)
    optimizer = counterpart.cls(
        [
            {
                "params": [parameters[name] for name in names],
                "lr_mult": lr_mult * counterpart.factor,
                "weight_decay": run.number("wd") * wd_mult * counterpart.of_decay,
            }
            for (lr_mult, wd_mult), names in groups.items()
        ],
        **counterpart.kwargs,
    )
    shapes = {name: tuple(one.shape) for name, one in parameters.items()}
    arrays = _arrays(run, mapping, shapes)
    for name, parameter in parameters.items():
        lr_mult, count = run.factors[sources[name]][0], run.counts[sources[name]]
        if count:
            optimizer.state[parameter] = counterpart.state(arrays[name], lr_mult, count)
    for hook in counterpart.hooks:
        optimizer.register_step_pre_hook(lambda one, args, kwargs, call=hook.call: call(one))
    return optimizer, counterpart


def set_rate(optimizer: torch.optim.Optimizer, lr: float, momentum: float | None) -> None:
    """Set the rate of the next update, with every group's factor, and its momentum or beta1."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_mult", 1.0)
        if momentum is not None and "betas" in group:
            group["betas"] = (in_float32(momentum), group["betas"][1])
        elif momentum is not None:
            group["momentum"] = momentum


def _sources(run: RunOptimizer, mapping: ArrayMap, names: Sequence[str]) -> dict[str, str]:
    """For each trained parameter of the module an array of the run, with whose factors and count it is stepped."""
    found: dict[str, set[str]] = {name: set() for name in names}
    problems = []
    for target, source in mapping.sources.items():
        name = whole(target)
        if name not in found:
            continue
        if source.number is not None or source.array not in run.factors:
            problems.append(f"{target}: is trained in the module and not in the run")
        elif source.repeat > 1:
            problems.append(
                f"{target}: {source.array} is one number for {source.repeat} of the module's, which would be trained "
                "apart from now on; let the module repeat it"
            )
        else:
            found[name].add(source.array)
    for name, arrays in found.items():
        kinds = {(run.factors[array], run.counts[array]) for array in arrays}
        if len(kinds) > 1:
            problems.append(f"{name}: is made of {', '.join(sorted(arrays))}, which the run gives different factors")
    rows = [name for name in run.arrays if name.endswith("/rates")]
    problems += [
        f"{name.removesuffix('/rates')}: is stepped by rows (sparse_grad), and PyTorch's is not" for name in rows
    ]
    if problems:
        raise ConfigError(f"optimizer: the state cannot be carried over:{listed(problems)}")
    return {name: min(arrays) for name, arrays in found.items()}


def _arrays(run: RunOptimizer, mapping: ArrayMap, shapes: Mapping[str, Shape]) -> dict[str, list[torch.Tensor]]:
    """The state's arrays of each parameter, in MXNet's order and the module's layout."""
    kept = ArrayMap({target: one for target, one in mapping.sources.items() if whole(target) in shapes})
    found: dict[str, list[torch.Tensor]] = {name: [] for name in shapes}
    number = 0
    while any(name.endswith(f"/{number}") for name in run.arrays):
        of_one_kind = {name: run.arrays[f"{name}/{number}"] for name in run.factors if f"{name}/{number}" in run.arrays}
        whole_ones = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        for target, array in kept.convert(of_one_kind, shapes).items():
            rows_of(whole_ones, target)[...] = array
        for name, array in whole_ones.items():
            found[name].append(torch.from_numpy(array))
        number += 1
    return found
