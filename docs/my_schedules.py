"""A schedule of one's own, which the gallery shows."""

from collections.abc import Callable


def staircase(peak: float, length: int, steps: int) -> Callable[[int], float]:
    """From `peak` down to `peak / steps` over `length` iterations, in so many steps."""

    def lr(t: int) -> float:
        step = min(max(t - 1, 0) * steps // length, steps - 1)
        return peak * (1 - step / steps)

    return lr
