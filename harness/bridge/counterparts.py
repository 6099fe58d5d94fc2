"""Which optimizer of PyTorch makes the updates of one of MXNet; or why there is none, with the formulas of both.

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
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.bridge.layers import Array
from harness.errors import ConfigError

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
        clip_norm: to which the mean gradient is clipped, before `clip_gradient` clips each number.
    """

    name: str
    settings: Mapping[str, Any]
    factors: Mapping[str, tuple[float, float]]
    arrays: Mapping[str, Array]
    counts: Mapping[str, int]
    applied_lr: float | None
    corrects_momentum: bool
    is_constant: bool
    clip_norm: float | None = None

    def number(self, name: str) -> float:
        """A setting, 0 where it is unset."""
        return float(self.settings.get(name) or 0.0)


class Hook(NamedTuple):
    """What is done before every step.

    Attributes:
        call: with the optimizer.
        script: the same as lines of Python, for a program without the harness.
    """

    call: Callable[[torch.optim.Optimizer], None]
    script: Sequence[str]


@dataclass(frozen=True)
class Counterpart:
    """A class of `torch.optim`, and how one of MXNet becomes it.

    Attributes:
        cls: of the optimizer.
        kwargs: its arguments, for all parameters alike.
        state: of one parameter: from MXNet's arrays in PyTorch's layout, its learning rate factor and count.
        hooks: in their order.
        factor: on the learning rate of every parameter.
        of_decay: on the weight decay of every parameter.
    """

    cls: Any
    kwargs: Kwargs
    state: Callable[[Sequence[torch.Tensor], float, int], State]
    hooks: Sequence[Hook] = ()
    factor: float = 1.0
    of_decay: float = 1.0


def counterpart_of(run: RunOptimizer) -> Counterpart:
    """The class with its numbers, and what is done before its steps.

    Raises:
        ConfigError: if PyTorch has none that makes the same updates, with the formulas of both.
    """
    found = _counterpart(run)
    return replace(found, hooks=[*_clipping(run), *found.hooks])


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
    kwargs = {"lr": 0.0, "betas": (in_float32(run.number("beta1")), beta2), "eps": epsilon}
    return Counterpart(torch.optim.Adam, kwargs, state, [Hook(hook, script)], 1 / math.sqrt(kept))


def _adamw(run: RunOptimizer) -> Counterpart:
    root = math.sqrt(_kept(run))
    betas = in_float32(run.number("beta1")), run.number("beta2")
    kwargs = {"lr": 0.0, "betas": betas, "eps": run.number("epsilon") / root}
    corrects = bool(run.settings.get("bias_correction", True))

    def state(arrays: Sequence[torch.Tensor], lr_mult: float, count: int) -> State:
        return _means(arrays, root**2, count if corrects else _WITHOUT_CORRECTION)

    if not corrects and not any(run.counts.values()):
        raise ConfigError("optimizer.params.bias_correction: is false; carry the run over after its first update")
    # the decay, which is taken at the same rate, does not have the factor
    return Counterpart(torch.optim.AdamW, kwargs, state, factor=1 / root, of_decay=root)


def in_float32(value: float) -> float:
    """A share of the past as MXNet's kernels have it: PyTorch, given this, takes the rest to 1 as they do."""
    return float(np.float32(value))


def _kept(run: RunOptimizer) -> float:
    """What MXNet's second mean is of PyTorch's: one subtracts beta2 from 1 in float32, the other before it rounds.

    `in_float32` would not do, because the corrections of both take beta2 as it is, and tell it apart by 1e-5.
    """
    beta2 = run.number("beta2")
    return float((1 - np.float32(beta2)) / np.float32(1 - beta2))


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
    epsilon, gamma = run.number("epsilon"), in_float32(run.number("gamma1"))
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
    return Counterpart(torch.optim.RMSprop, {"lr": 0.0, "alpha": gamma, "eps": 0.0}, state, [Hook(hook, script)])


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


def _clipping(run: RunOptimizer) -> list[Hook]:
    """Clips gradients as the harness does: all by their norm, then each number by its value."""
    norm, value = run.clip_norm, run.number("clip_gradient")
    script = [
        "def clip_gradients(optimizer, args, kwargs):",
        '    found = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]',
    ]
    if norm is not None:
        script += [
            f"    excess = torch.stack([one.double().square().sum() for one in found]).sum().sqrt().item() / {norm!r}",
            "    for one in found if excess > 1 else []:",
            "        one /= excess",
        ]
    if value:
        script += ["    for one in found:", f"        one.clamp_({-value!r}, {value!r})"]

    def clip(optimizer: torch.optim.Optimizer) -> None:
        found = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        if norm is not None:
            excess = torch.stack([one.double().square().sum() for one in found]).sum().sqrt().item() / norm
            for one in found if excess > 1 else []:
                one /= excess
        for one in found if value else []:
            one.clamp_(-value, value)

    is_clipped = norm is not None or value > 0
    return [Hook(clip, [*script, "optimizer.register_step_pre_hook(clip_gradients)"])] if is_clipped else []
