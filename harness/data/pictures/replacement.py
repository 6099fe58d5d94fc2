"""A damaged sample that another has replaced, as batches tell of it."""

from __future__ import annotations

from typing import NamedTuple


class Replacement(NamedTuple):
    """A damaged sample, and the one that took its place.

    >>> print(Replacement(7, 8, "set/a/7.jpg: is empty"))
    sample 7 by sample 8: set/a/7.jpg: is empty

    Attributes:
        sample: the number of the damaged one.
        by: the number of the other.
        reason: the damaged file, and what is wrong with it.
    """

    sample: int
    by: int
    reason: str

    def __str__(self) -> str:
        """Which, by which, and why."""
        return f"sample {self.sample} by sample {self.by}: {self.reason}"
