"""A schedule of your own, as the gallery shows it."""

from collections.abc import Callable


def staircase(peak: float, length: int, steps: int) -> Callable[[int], float]:
    """Fall from `peak` to `peak / steps` over `length` iterations, in `steps` steps."""

    def lr(t: int) -> float:
        step = min(max(t - 1, 0) * steps // length, steps - 1)
        return peak * (1 - step / steps)

    return lr
