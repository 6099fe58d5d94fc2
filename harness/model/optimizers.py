"""Optimizers of `mx.optimizer` by name, and which parameters they treat differently."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx

from harness.errors import ConfigError
from harness.model.optimizer_numbers import refuse_numbers, try_updates
from harness.named import choose, did_you_mean

REFUSED = {
    "dcasgd": "it fails on CPU arrays in MXNet 1.9.1, and delay compensation has no meaning in synchronous training",
    "groupadagrad": "it serves sparse embeddings, whose gradients Horovod 0.28.1 cannot reduce",
    "lbsgd": "it scales and warms up the learning rate by itself, which is the plan's work: use sgd or lars",
    "test": "it is MXNet's own test fixture",
}
_HARNESS_SETS = {
    "learning_rate",
    "lr_scheduler",
    "rescale_grad",
    "clip_gradient",
    "param_idx2name",
    "param_dict",
    "begin_num_update",
    "sym",
    "multi_precision",
    "momentum_correction",
    "use_fused_step",
}
NOISY = ("sgld",)  # draw random numbers in the update, which must be the same on every rank
# FTML and FTRL keep what they have divided by the rate, AdaDelta the steps that it took, which no rate scales: at 0
# that state would be spoilt, or tell of steps not taken. MXNet draws no noise of width 0. So there is no update
NOT_UPDATED_AT_0 = ("ftml", "ftrl", "adadelta", "sgld")
HOLD_RATE = ("sgd", "nag", "lars")  # in their momentum buffers, which a change of the rate has to correct
SCALARS = {"nadam": ("m_schedule",)}  # numbers of their state that are outside its arrays
_UNDECAYED = ("bias", "gamma", "beta")


def refuse_optimizer(optimizer: object) -> None:
    """Refuse what is not an optimizer object, such as the name that a `gluon.Trainer` takes.

    Raises:
        ConfigError: with the call that makes one.
    """
    if not isinstance(optimizer, mx.optimizer.Optimizer):
        name = optimizer if isinstance(optimizer, str) else "sgd"
        raise ConfigError(
            f"optimizer: found {optimizer!r}; give an optimizer object, such as mx.optimizer.create({name!r})"
        )


def known_optimizers() -> dict[str, type[mx.optimizer.Optimizer]]:
    """Every optimizer of this MXNet that can be used, by its registered name."""
    return {name: cls for name, cls in mx.optimizer.Optimizer.opt_registry.items() if name not in REFUSED}


def build_optimizer(
    name: str,
    params: Mapping[str, Any],
    *,
    clip_value: float | None = None,
    param_names: Mapping[int, str] | None = None,
    key: str = "optimizer.params",
) -> Any:
    """An `mx.optimizer.Optimizer` without a scheduler of its own.

    Args:
        name: its registered name, in any case.
        params: its keyword arguments.
        clip_value: the largest absolute value of an element of the mean gradient.
        param_names: structural name by index; LARS leaves biases and norms alone by it.
        key: of the parameters, for messages.

    Raises:
        ConfigError: for an unknown or refused optimizer, or a parameter it does not have.
    """
    name = name.lower()
    if name in REFUSED:
        raise ConfigError(f"optimizer.name: {name!r} is not supported: {REFUSED[name]}")
    cls = choose(name, known_optimizers(), "optimizer.name")
    known = [key for base in (cls, mx.optimizer.Optimizer) for key in inspect.signature(base.__init__).parameters]
    allowed = sorted(set(known) - {"self", "kwargs", "args"} - _HARNESS_SETS)
    for parameter in params:
        if parameter not in allowed:
            advice = " (--set optimizer.params={} removes all)" if key == "optimizer.params" else ""
            raise ConfigError(
                f"{key}.{parameter}: {name!r} has no such parameter; {did_you_mean(str(parameter), allowed)}known: "
                f"{', '.join(allowed)}. Remove it{advice}"
            )
    extra: dict[str, Any] = {} if clip_value is None else {"clip_gradient": clip_value}
    if name == "lars":
        # its own correction reaches only the first four parameters, and without names it scales biases and norms too
        extra.update(momentum_correction=False, param_idx2name=dict(param_names or {}))
    try:
        refuse_numbers(cls(**params, **extra), key)
        try_updates(cls(**params, **extra))
        return cls(**params, **extra)
    except (TypeError, ValueError, AssertionError, ArithmeticError, mx.base.MXNetError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(
            f"{key}: {name!r} cannot make an update with {dict(params)} ({type(error).__name__}: {reason}); "
            "choose others"
        ) from error


def set_multipliers(
    parameters: Mapping[str, Any],
    *,
    lr_mult: Mapping[str, float],
    wd_mult: Mapping[str, float],
    decay_bias_and_norm: bool,
    frozen: Sequence[str] = (),
) -> None:
    """Give each parameter its factor on the learning rate and on weight decay.

    Args:
        parameters: trainable parameters by structural name, such as `features.0.weight`.
        lr_mult: factor by name pattern (`features.*`); the last pattern that matches holds.
        wd_mult: the same for weight decay, and stronger than `decay_bias_and_norm`.
        decay_bias_and_norm: whether weight decay also pulls biases and the gamma and beta of norms to zero.
        frozen: parameters that are not trained, by structural name.

    Raises:
        ConfigError: if a pattern matches no parameter, or frozen ones alone.
    """
    if not decay_bias_and_norm:
        for name, parameter in parameters.items():
            if name.endswith(_UNDECAYED):
                parameter.wd_mult = 0.0
    for attribute, patterns in (("lr_mult", lr_mult), ("wd_mult", wd_mult)):
        for pattern, factor in patterns.items():
            matching = fnmatch.filter(parameters, pattern)
            if not matching and fnmatch.filter(frozen, pattern):
                raise ConfigError(
                    f"optimizer.{attribute}: the pattern {pattern!r} matches frozen parameters alone (init.freeze), so "
                    "it has no effect; remove it, or freeze less"
                )
            if not matching:
                raise ConfigError(
                    f"optimizer.{attribute}: the pattern {pattern!r} (as in a shell: *.bias) matches no parameter; "
                    f"{did_you_mean(pattern, list(parameters))}"
                    f"the parameters are {', '.join(parameters)}"
                )
            for name in matching:
                setattr(parameters[name], attribute, factor)
