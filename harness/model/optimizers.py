"""Optimizers by name or of the user's own, and which parameters they treat differently."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx

from harness.config.sections import HAVE_BETA1, LayerDecayConfig
from harness.errors import ConfigError
from harness.folder import MOST_NAMES, FactorGroup
from harness.model.adamw import AdamW
from harness.model.optimizer_numbers import is_supplied, refuse_numbers, try_updates
from harness.model.own_optimizer import Traits, try_optimizer
from harness.model.parameters import has_rows
from harness.named import call, choose, did_you_mean, kind_of, load_function
from harness.plan.layers import layer_factors

OWN: dict[str, type[mx.optimizer.Optimizer]] = {"adamw": AdamW}  # beside those of MXNet

REFUSED = {
    "dcasgd": "it fails on CPU arrays in MXNet 1.9.1, and delay compensation has no meaning in synchronous training",
    "groupadagrad": "it fails on biases and whatever else has not two dimensions: use adagrad",
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
NOT_BY_ROWS = ("lars", "lamb")  # scale a step by norms of the whole weight, and so cannot step some rows of it
RESTS_WITHOUT_GRADIENT = ("adagrad",)  # a gradient of 0 changes nothing of their state, nor moves weights by it
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


def momentum_name(optimizer: Any) -> str | None:
    """The attribute of an optimizer that a schedule of the momentum sets, if there is one.

    >>> momentum_name(mx.optimizer.Adam()), momentum_name(mx.optimizer.NAG()), momentum_name(mx.optimizer.AdaGrad())
    ('beta1', 'momentum', None)
    """
    if hasattr(optimizer, "momentum"):
        return "momentum"
    return "beta1" if is_supplied(type(optimizer)) and type(optimizer).__name__.lower() in HAVE_BETA1 else None


def known_optimizers() -> dict[str, type[mx.optimizer.Optimizer]]:
    """Every optimizer that can be used by name: of the registry of this MXNet, and the harness's own."""
    return {**{k: v for k, v in mx.optimizer.Optimizer.opt_registry.items() if k not in REFUSED}, **OWN}


def traits_of(optimizer: Any, parameters: Sequence[Any], who: str | None = None) -> Traits:
    """What is known of an optimizer's updates; one of the user's own is tried for it.

    Args:
        optimizer: before its first update.
        parameters: Gluon parameters that it is to step, with their factors.
        who: what it is called in messages.

    Raises:
        ConfigError: for an optimizer with which no run could be repeated or resumed (`try_optimizer`).
    """
    name = type(optimizer).__name__
    who = who or f"optimizer: {name}"
    has_tables = any(map(has_rows, parameters))
    if has_tables and getattr(optimizer, "lazy_update", True) is False:
        raise ConfigError(
            f"{who}: lazy_update is false, but an embedding with sparse_grad is updated by rows, which is lazy; use "
            "sparse_grad=False, or remove lazy_update"
        )
    if has_tables and is_supplied(type(optimizer)) and name.lower() in NOT_BY_ROWS:
        raise ConfigError(
            f"{who}: scales a step by norms of the whole weight, so it cannot step a few rows of an embedding alone; "
            "use sparse_grad=False, or another optimizer"
        )
    if is_supplied(type(optimizer)):
        key = name.lower()
        return Traits(key in NOISY, key in NOT_UPDATED_AT_0, SCALARS.get(key, ()), follows_rate=True)
    return try_optimizer(optimizer, parameters, who)


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
        name: its registered name, in any case; or a user's own class, `module:Class`.
        params: its keyword arguments.
        clip_value: the largest absolute value of an element of the mean gradient.
        param_names: structural name by index; LARS leaves biases and norms alone by it.
        key: of the parameters, for messages.

    Raises:
        ConfigError: for an unknown or refused optimizer, or a parameter it does not have.
    """
    if ":" in name:
        return _build_own(name, params, clip_value, key)
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


def _build_own(path: str, params: Mapping[str, Any], clip_value: float | None, key: str) -> Any:
    """An optimizer of a user's own class."""
    cls: Any = load_function(path, "optimizer.name", what="class")
    if not (isinstance(cls, type) and issubclass(cls, mx.optimizer.Optimizer)):
        found = f"the class {cls.__name__}" if isinstance(cls, type) else kind_of(cls)
        raise ConfigError(f"optimizer.name: {path!r} is {found}; name a subclass of mx.optimizer.Optimizer")
    if is_supplied(cls):
        raise ConfigError(
            f"optimizer.name: {path!r} is not a class of your own; use its name, {cls.__name__.lower()!r}"
        )
    rate = inspect.signature(cls).parameters.get("learning_rate")
    needed = {"learning_rate": 0.01} if rate is not None and rate.default is rate.empty else {}
    optimizer = call(cls, {**needed, **params}, key)
    optimizer.clip_gradient = clip_value
    refuse_numbers(optimizer, key)
    return optimizer


def set_multipliers(
    parameters: Mapping[str, Any],
    *,
    lr_mult: Mapping[str, float],
    wd_mult: Mapping[str, float],
    decay_bias_and_norm: bool,
    layer_decay: LayerDecayConfig | None = None,
    frozen: Sequence[str] = (),
) -> None:
    """Give each parameter its factor on the learning rate and on weight decay.

    Args:
        parameters: trainable parameters by structural name, such as `features.0.weight`.
        lr_mult: factor by name pattern (`features.*`); the last pattern that matches holds.
        wd_mult: the same for weight decay, and stronger than `decay_bias_and_norm`.
        decay_bias_and_norm: whether weight decay also pulls biases and the gamma and beta of norms to zero.
        layer_decay: factors on the learning rate by depth, which multiply the others.
        frozen: parameters that are not trained, by structural name.

    Raises:
        ConfigError: if a pattern matches no parameter, or frozen ones alone; or for layers that are not (see
            `layer_factors`).
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
    if layer_decay is not None:
        for name, factor in layer_factors(layer_decay.rate, layer_decay.layers, list(parameters), frozen).items():
            parameters[name].lr_mult *= factor


def factor_groups(parameters: Mapping[str, Any]) -> list[FactorGroup]:
    """The trainable parameters by their factors on learning rate and weight decay, in the order of the network."""
    groups: dict[tuple[float, float], list[str]] = {}
    for name, parameter in parameters.items():
        if parameter.grad_req != "null":
            groups.setdefault((float(parameter.lr_mult), float(parameter.wd_mult)), []).append(name)
    return [FactorGroup(lr, wd, len(names), names[:MOST_NAMES]) for (lr, wd), names in groups.items()]
