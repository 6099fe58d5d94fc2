"""What has to hold between the numbers of a manifest: updates and skips, sums, first weights.

It knows neither files nor plans, and requires only what every version of this program has written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.comm.tree import is_power_of_two
from harness.folder import Fields, RecordError, described
from harness.folder.reading import whole

SUMS = ("tree", "engine")
LARGEST_RATE = 3.4028234663852886e38  # of float32
COUNTS_ALWAYS = frozenset(  # optimizers whose every step is an update of all weights, at a rate of 0 as well
    ("adagrad", "adam", "adamax", "adamw", "ccsgd", "lamb", "lars", "nadam", "nag", "rmsprop", "sgd", "signum")
)


def check_updates(
    state: Fields, iteration: int, counts: Sequence[Any], optimizer: str, planned: float | None
) -> tuple[int, int]:
    """Check how many updates there were against the iteration, the skips and the applied learning rate.

    Args:
        state: the section `state`.
        iteration: the last that the checkpoint contains.
        counts: `update_counts`.
        optimizer: its name; one that is not in `COUNTS_ALWAYS` may leave updates, and weights whose rate is 0, out.
        planned: the learning rate of that iteration.

    Returns:
        The updates that were skipped, and those that changed nothing because every weight was 0.

    Raises:
        RecordError: naming the field that contradicts another.
    """
    always = optimizer in COUNTS_ALWAYS and bool(counts)
    updates = state.whole("num_update", 0, iteration)
    left_out = {name: state.maybe(state.whole, name, 0, iteration) or 0 for name in ("skipped", "weightless")}
    for index, count in enumerate(counts):
        if always or count != 0:
            whole(count, f"{state.place('update_counts')}[{index}]", updates, updates)
    together = updates + sum(left_out.values())
    if together > iteration or (always and together < iteration):
        said = [f"{state.place(name)} is {count}" for name, count in left_out.items() if count or name == "skipped"]
        raise RecordError(
            f"{state.place('num_update')} is {updates} and {' and '.join(said)}; allowed: together "
            f"{'' if always else 'at most '}{iteration}, the iteration"
        )
    if updates:
        applied = state.number("applied_lr", 0.0, LARGEST_RATE)
        if planned and updates == iteration and not math.isclose(applied, planned, rel_tol=1e-9):
            raise RecordError(
                f"{state.place('applied_lr')} is {applied:g}, but by plan.lr.{iteration} it is {planned:g}"
            )
    elif always and state.has("applied_lr"):
        found = described(state.value("applied_lr"))
        raise RecordError(f"{state.place('applied_lr')} is {found}; allowed: null where num_update is 0")
    return left_out["skipped"], left_out["weightless"]


def sum_of(world: Fields, shards: int) -> str:
    """What added up the gradients of ranks, by a manifest's section `world`.

    Earlier versions do not tell: above two ranks, for which there is one order only, Horovod added by its engine. And
    they had the tree for powers of two of shards alone, and for others an order that depended on the ranks.

    Raises:
        RecordError: naming the field that is missing, of another kind or impossible.
    """
    kind, size = world.text("kind"), world.whole("size", 1)
    if not world.has("sum"):
        if kind.startswith("horovod") and size > 2:
            return "engine"
        return "tree" if is_power_of_two(shards) else "an earlier version's order"
    found = world.text("sum")
    if found not in SUMS:
        raise RecordError(f"{world.place('sum')} is {described(found)}; allowed: {', '.join(SUMS)}")
    return found


def check_init(init: Fields) -> None:
    """Check which weights a run began with: where from, by which names, which it took and which it did not.

    Raises:
        RecordError: naming the field.
    """
    for key in ("from", "way"):
        init.text(key)
    for key in ("taken", "fresh"):
        inner = init.inner(key)
        names = inner.keys()
        for name in names:
            inner.text(name)
    for index, name in enumerate(init.items("left")):
        if not isinstance(name, str):
            raise RecordError(f"{init.place('left')}[{index}] is {described(name)}, not text")
