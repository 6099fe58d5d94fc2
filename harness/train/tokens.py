"""Lengths in tokens hold only while every update has as many as the plan counted: each update is compared."""

from __future__ import annotations

import math

from harness.errors import ConfigError
from harness.train.run import Run


def refuse_other_tokens(run: Run, t: int, weight: float) -> None:
    """Refuse an update that does not have the tokens that `train.tokens_per_sample` says.

    Args:
        run: with that setting.
        t: the iteration.
        weight: the sum of the weights of its loss, over all ranks: one for each token.

    Raises:
        ConfigError: on every rank, with both numbers.
    """
    tokens, samples = run.config.train.tokens_per_sample or 0, run.sizes.batching.count(t)
    if math.isclose(weight, samples * tokens, rel_tol=1e-6):
        return
    message = (
        f"train.tokens_per_sample: iteration {t}: the weights of the loss are {weight:g}, but {samples} samples of "
        f"{tokens} tokens are {samples * tokens}; lengths in tokens need a loss that gives every token a weight of 1, "
        "and samples of equal length; correct the number, or write lengths as '500it' or '5ep'"
    )
    raise ConfigError(message).found_in(run.config.source).on_all_ranks()
