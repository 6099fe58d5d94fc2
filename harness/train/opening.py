"""The first lines of a run: what is trained, in words."""

from __future__ import annotations

from collections.abc import Sequence

from harness.data import describe_scale, draws_at_random
from harness.folder import FactorGroup
from harness.train.run import Run
from harness.train.state import RunState


def opening(run: Run) -> str:
    """What is trained, on what, how long and by which learning rates."""
    sizes, world = run.sizes, run.world
    devices = f" on {', '.join(run.config.devices)}" if run.config.devices else ""
    # With one rank there is nothing to add up; who has asked for the engine is told what is in use instead.
    summed = f", sum: {world.sum_by}" if world.size > 1 or run.config.sum != world.sum_by else ""
    ranks = f"{_count(world.size, 'rank')} ({world.kind}{summed}){devices}"
    bits = ", gradients in 16 bits" if run.config.compression == "fp16" else ""
    threads = _count(run.config.threads_per_rank, "thread")
    words = [describe_scale(run.data.splits.train)]
    if draws_at_random(run.data.splits.train):
        words.append("seeded item by item")
    if run.data.workers is not None:
        words.append(f"read by {_count(run.data.workers.count, 'process')} a rank")
    done = f" ({', '.join(filter(None, words))})" if any(words) else ""
    return (
        f"{run.config.run_name}: {sizes.num_samples} samples{done}, {_count(sizes.num_iterations, 'iteration')} of "
        f"{sizes.shards} x {sizes.batch_size}, {ranks}, {threads} a rank{bits}; learning rate "
        f"{run.plan.describe()}"
    )


def continuing(run: Run, state: RunState, reason: str) -> str:
    """Who trains on after a change of the world, from where, and why."""
    who = f"{_count(run.world.size, 'rank')} {'trains' if run.world.size == 1 else 'train'}"
    return f"{run.config.run_name}: after iteration {state.iteration} {who} on ({run.world.kind}): {reason}"


def factors_in_words(factors: Sequence[FactorGroup]) -> str:
    """How far the learning rates of parameters differ."""
    rates = sorted({group.lr for group in factors})
    span = f"x {rates[0]:.4g}" + (f" to x {rates[-1]:.4g}" if len(rates) > 1 else "")
    return (
        f"learning rates of parameters: {span}, {_count(len(factors), 'group')} by rate and decay (plan.json, report)"
    )


def _count(number: int | str, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"
