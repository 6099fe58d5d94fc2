"""The optimizer of a run in PyTorch, with its state; or why there is none, with the formulas of both.

What differs between the two, with g the mean gradient, w a weight and h the learning rate of an update:

- SGD, NAG: MXNet's buffer holds the rate (`v = m v - h g; w = w + v`), and the harness multiplies it by the quotient of
  the rates when these change (momentum correction). PyTorch's does not (`b = m b + g; w = w - h b`), so with the
  correction `b = -v / h`, h being the rate that was applied last, with the factor of the parameter.
- Adam: MXNet adds epsilon before the second mean is corrected, PyTorch after that, so PyTorch's epsilon is
  `epsilon / sqrt(1 - beta2^t)` at update t; a hook sets it before every step. And MXNet's kernel takes 1 - beta2 in
  float32, 1.3e-5 less for 0.999: PyTorch gets the second mean without that factor, rate and epsilon over its root.
- AdamW (the harness's) and PyTorch's are the same but for that factor; without bias correction PyTorch counts from a
  number of updates at which the corrections are 1.
- RMSProp: MXNet has epsilon under the root (`g / sqrt(n + epsilon)`), PyTorch beside it. PyTorch's mean is made
  `n + epsilon` and its own epsilon 0; a hook adds before every step what the mean forgets of it.
- AdaGrad: likewise, but its sum forgets nothing, so that no hook is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from harness.bridge.layers import Array, Shape
from harness.bridge.mapping import ArrayMap, rows_of, whole
from harness.errors import ConfigError, listed

_WITHOUT_CORRECTION = 10_000_000  # updates, at which 1 - beta^t is 1, and which float32 still counts on from

Kwargs = dict[str, Any]
State = dict[str, torch.Tensor]


class RunOptimizer(NamedTuple):
    """What a run says of its optimizer.

    Attributes:
        name: its class in lower case.
        settings: its attributes by name: `wd`, `momentum`, `beta1`, `epsilon`, `clip_gradient`.
        factors: of each trained array of the run on learning rate and weight decay.
        arrays: its state, `name/0`.
        counts: how many updates each trained array has had.
        applied_lr: the learning rate that momentum buffers hold; `None` before the first update.
        corrects_momentum: whether they follow the rate.
        is_constant: whether the rate stays as it is from here on.
    """

    name: str
    settings: Mapping[str, Any]
    factors: Mapping[str, tuple[float, float]]
    arrays: Mapping[str, Array]
    counts: Mapping[str, int]
    applied_lr: float | None
    corrects_momentum: bool
    is_constant: bool

    def number(self, name: str) -> float:
        """A setting, 0 where it is unset."""
        return float(self.settings.get(name) or 0.0)


@dataclass(frozen=True)
class Counterpart:
    """A class of `torch.optim`, and how one of MXNet becomes it.

    Attributes:
        cls: of the optimizer.
        kwargs: its arguments, for all parameters alike.
        state: of one parameter: from MXNet's arrays in PyTorch's layout, its learning rate factor and count.
        factor: on the learning rate of every parameter.
        hook: called with the optimizer before every step; `None` where nothing has to be.
        script: the hook as lines of Python, for a program without the harness.
    """

    cls: Any
    kwargs: Kwargs
    state: Callable[[Sequence[torch.Tensor], float, int], State]
    hook: Callable[[torch.optim.Optimizer], None] | None = None
    script: Sequence[str] = field(default_factory=tuple)
    factor: float = 1.0


def carry_over(run: RunOptimizer, module: nn.Module, mapping: ArrayMap) -> tuple[torch.optim.Optimizer, Counterpart]:
    """A run's optimizer for a module, with its state; the learning rate is the caller's to set, in every update.

    Parameters are in the order of the module's; those that the run gives different factors are in different groups,
    each with `lr_mult` and `weight_decay`.

    Raises:
        ConfigError: if PyTorch has none that makes the same updates, with the formulas of both.
    """
    counterpart = _counterpart(run)
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
                "weight_decay": run.number("wd") * wd_mult,
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
    if counterpart.hook is not None:
        hook = counterpart.hook
        optimizer.register_step_pre_hook(lambda one, args, kwargs: hook(one))
    return optimizer, counterpart


def set_rate(optimizer: torch.optim.Optimizer, lr: float, momentum: float | None) -> None:
    """Set the rate of the next update, with every group's factor, and its momentum or beta1."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_mult", 1.0)
        if momentum is not None and "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        elif momentum is not None:
            group["momentum"] = momentum


def clip(parameters: Sequence[nn.Parameter], norm: float | None, value: float | None) -> None:
    """Clip gradients as the harness does: all by their norm, then each element by its value."""
    if norm is not None:
        squares = [one.grad.double().square().sum() for one in parameters if one.grad is not None]
        excess = torch.stack(squares).sum().sqrt().item() / norm
        for one in parameters:
            if one.grad is not None and excess > 1:
                one.grad /= excess
    if value is not None:
        nn.utils.clip_grad_value_(parameters, value)


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


def _counterpart(run: RunOptimizer) -> Counterpart:
    if run.name in ("sgd", "nag"):
        return _sgd(run)
    known = {"adam": _adam, "adamw": _adamw, "rmsprop": _rmsprop, "adagrad": _adagrad}
    if run.name not in known:
        formula = _FORMULAS.get(run.name, "an update of its own")
        raise ConfigError(
            f"optimizer.name: {run.name} ({formula}) has no counterpart in torch.optim that makes the same updates; "
            f"sgd, nag, {', '.join(known)} have"
        )
    return known[run.name](run)


_FORMULAS = {
    "lamb": "d = m' / (sqrt(v') + epsilon) + wd w; w = w - h |w| / |d| d",
    "lars": "h is scaled by |w| / (|g| + wd |w|) for each weight",
    "nadam": "Adam whose means are corrected by the product of a momentum schedule of its own",
    "signum": "w = (1 - h wd_lh) w + h sign(m)",
}


def _sgd(run: RunOptimizer) -> Counterpart:
    momentum, applied = run.number("momentum"), run.applied_lr
    if momentum and not run.corrects_momentum and not run.is_constant:
        raise ConfigError(
            f"lr.momentum_correction: is off, and the rate changes: MXNet's {run.name} moves by gradients at the rates "
            "of their own updates (v = m v - h g; w = w + v), PyTorch's SGD at the rate of this one "
            "(b = m b + g; w = w - h b); resume with momentum_correction on, and carry that run over"
        )

    def state(arrays: Sequence[torch.Tensor], lr_mult: float, count: int) -> State:
        if not arrays:
            return {}
        rate = (applied or 0.0) * lr_mult
        return {"momentum_buffer": arrays[0] / -rate if rate else torch.zeros_like(arrays[0])}

    return Counterpart(
        torch.optim.SGD, {"lr": 0.0, "momentum": momentum, "nesterov": run.name == "nag" and momentum > 0}, state
    )


def _refuse_clipped_decay(run: RunOptimizer) -> None:
    if run.settings.get("clip_gradient") and run.number("wd"):
        raise ConfigError(
            f"optimizer.clip_value: MXNet's {run.name} clips g + wd w, and PyTorch's adds wd w to the clipped g; set "
            "one of clip_value and wd to 0"
        )


def _adam(run: RunOptimizer) -> Counterpart:
    _refuse_clipped_decay(run)
    beta2, kept = run.number("beta2"), _kept(run)
    epsilon = run.number("epsilon") / math.sqrt(kept)

    def state(arrays: Sequence[torch.Tensor], lr_mult: float, count: int) -> State:
        return _means(arrays, kept, count)

    def hook(optimizer: torch.optim.Optimizer) -> None:
        count = _count(optimizer)
        for group in optimizer.param_groups:
            group["eps"] = epsilon / math.sqrt(1 - beta2 ** (count + 1))

    script = [
        "def set_epsilon(optimizer, args, kwargs):  # MXNet adds epsilon before it corrects the second mean",
        '    t = max((int(one["step"]) for one in optimizer.state.values()), default=0) + 1',
        "    for group in optimizer.param_groups:",
        f'        group["eps"] = {epsilon!r} / (1 - {beta2!r} ** t) ** 0.5',
        "optimizer.register_step_pre_hook(set_epsilon)",
    ]
    kwargs = {"lr": 0.0, "betas": (run.number("beta1"), beta2), "eps": epsilon}
    return Counterpart(torch.optim.Adam, kwargs, state, hook, script, factor=1 / math.sqrt(kept))


def _adamw(run: RunOptimizer) -> Counterpart:
    root = math.sqrt(_kept(run))
    kwargs = {"lr": 0.0, "betas": (run.number("beta1"), run.number("beta2")), "eps": run.number("epsilon") / root}
    corrects = bool(run.settings.get("bias_correction", True))

    def state(arrays: Sequence[torch.Tensor], lr_mult: float, count: int) -> State:
        return _means(arrays, root**2, count if corrects else _WITHOUT_CORRECTION)

    if not corrects and not any(run.counts.values()):
        raise ConfigError("optimizer.params.bias_correction: is false; carry the run over after its first update")
    # the decay, which is taken at the same rate, is more by 6e-6 of itself: far below what float32 tells apart
    return Counterpart(torch.optim.AdamW, kwargs, state, factor=1 / root)


def _kept(run: RunOptimizer) -> float:
    """What MXNet's second mean is of the true one; subtracting from 1 is exact in float32, beta2 is not."""
    beta2 = run.number("beta2")
    return float(1 - np.float32(beta2)) / (1 - beta2)


def _means(arrays: Sequence[torch.Tensor], kept: float, count: int) -> State:
    return {"step": torch.tensor(float(count)), "exp_avg": arrays[0], "exp_avg_sq": arrays[1] / kept}


def _rmsprop(run: RunOptimizer) -> Counterpart:
    _refuse_clipped_decay(run)
    if run.settings.get("centered"):
        raise ConfigError(
            "optimizer.params.centered: MXNet's buffer holds the rates of its updates (d = m d - h g / sqrt(n - g'^2 + "
            "epsilon); w = w + d), PyTorch's does not (b = m b + g / (sqrt(n - g'^2) + epsilon); w = w - h b)"
        )
    if run.settings.get("clip_weights"):
        raise ConfigError("optimizer.params.clip_weights: MXNet clips weights after a step, and PyTorch never does")
    epsilon, gamma = run.number("epsilon"), run.number("gamma1")
    if not 0 < gamma < 1:
        raise ConfigError(f"optimizer.params.gamma1: is {gamma:g}; only between 0 and 1 can epsilon be carried over")
    forgotten = epsilon * (1 - gamma) / gamma

    def hook(optimizer: torch.optim.Optimizer) -> None:
        for state in optimizer.state.values():
            state["square_avg"] += forgotten

    def state(arrays: Sequence[torch.Tensor], lr_mult: float, count: int) -> State:
        return {"step": torch.tensor(float(count)), "square_avg": arrays[0] + epsilon}

    script = [
        "def keep_epsilon(optimizer, args, kwargs):  # MXNet adds epsilon under the root; it is in square_avg here",
        "    for one in optimizer.state.values():",
        f'        one["square_avg"] += {forgotten!r}',
        "optimizer.register_step_pre_hook(keep_epsilon)",
    ]
    if not any(run.counts.values()):
        raise ConfigError("optimizer.name: rmsprop; carry the run over after its first update")
    return Counterpart(torch.optim.RMSprop, {"lr": 0.0, "alpha": gamma, "eps": 0.0}, state, hook, script)


def _adagrad(run: RunOptimizer) -> Counterpart:
    if run.number("wd"):
        raise ConfigError(
            "optimizer.params.wd: MXNet's AdaGrad decays beside its step (w = w - h (g / sqrt(s + eps) + wd w)), "
            "PyTorch's within the gradient (g = g + wd w); set it to 0"
        )
    epsilon = run.number("float_stable_eps")

    def state(arrays: Sequence[torch.Tensor], lr_mult: float, count: int) -> State:
        return {"step": torch.tensor(float(count)), "sum": arrays[0] + epsilon}

    kwargs = {"lr": 0.0, "eps": 0.0, "initial_accumulator_value": epsilon}
    return Counterpart(torch.optim.Adagrad, kwargs, state)


def _count(optimizer: torch.optim.Optimizer) -> int:
    """How many updates there have been; 0 before the first."""
    return max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)
