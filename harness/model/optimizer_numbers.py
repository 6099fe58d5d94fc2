"""The numbers that an optimizer was given: refused here, because MXNet takes any, and fails in an update or never."""

from __future__ import annotations

import copy
from typing import Any

import mxnet as mx

from harness.errors import ConfigError
from harness.named import brief
from harness.parsing import as_number, plain_numbers
from harness.schedules.bounds import BELOW_ONE, LARGEST, SMALLEST

_BELOW_1 = ("momentum", "beta1", "beta2", "gamma1", "gamma2", "rho")  # weights of the past in a running mean
_AT_LEAST_0 = ("wd", "wd_lh", "epsilon", "float_stable_eps", "eps", "eta", "lamda1", "clip_weights")
_SET_BY_THE_HARNESS = ("lr", "rescale_grad", "num_update")


def refuse_numbers(optimizer: Any, key: str) -> None:
    """Refuse numbers with which an update means nothing: NaN, a momentum of 1 or more, a negative weight decay.

    Args:
        optimizer: an `mx.optimizer.Optimizer`; of a user's own class, what is not a number is left alone.
        key: where it was given, for messages.

    Raises:
        ConfigError: with every such number.
    """
    is_known = is_supplied(type(optimizer))
    problems = []
    for name, value in vars(optimizer).items():
        number = as_number(plain_numbers(value))
        is_optional = name not in (*_BELOW_1, "wd")
        if name in _SET_BY_THE_HARNESS or (number is None and not is_known) or (value is None and is_optional):
            continue
        allowed = _allowed(name, number, is_known)
        if allowed is not None:
            problems.append(f"{key}.{name}: found {brief(value)}; must be {allowed}")
    if problems:
        raise ConfigError("\n".join(problems))


def refuse_what_cannot_update(optimizer: Any, key: str) -> None:
    """Try two updates with a copy of a supplied optimizer: some numbers are looked at by nobody before that.

    Raises:
        ConfigError: with what MXNet says of it.
    """
    if not is_supplied(type(optimizer)):
        return
    try:
        try_updates(copy.deepcopy(optimizer))
    except (TypeError, ValueError, AssertionError, ArithmeticError, mx.base.MXNetError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(
            f"{key}: this {type(optimizer).__name__} cannot make an update ({type(error).__name__}: {reason}); give it "
            "other parameters"
        ) from error


def try_updates(optimizer: Any) -> None:
    """Two updates of a weight of its own."""
    weight = mx.nd.ones((2, 2))
    state = optimizer.create_state_multi_precision(0, weight)
    optimizer.lr = 0.001
    for _ in range(2):
        optimizer.update_multi_precision(0, weight, mx.nd.ones((2, 2)), state)
    weight.wait_to_read()


def is_supplied(cls: type) -> bool:
    """Whether a class of optimizers is MXNet's or the harness's, and not a user's own."""
    return cls.__module__.partition(".")[0] in ("mxnet", "harness")


def _allowed(name: str, number: float | None, is_known: bool) -> str | None:
    """What a number must be; `None` if it is that, or nothing is known of it."""
    if name in _BELOW_1:
        is_fine = number is not None and (number == 0 or SMALLEST <= number < BELOW_ONE)
        return None if is_fine else "a number of at least 0 and below 1 (in float32)"
    if name in _AT_LEAST_0:
        is_fine = number is not None and 0 <= number <= LARGEST
        return None if is_fine else f"a number of at least 0 and at most {LARGEST:.2g}"
    return None if number is None or not is_known or abs(number) <= LARGEST else "a finite number that float32 can hold"
