"""The hooks of a run: loaded on rank 0, told how its attempt begins, and an end if one has failed and that ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.errors import ConfigError
from harness.folder import AttemptStart
from harness.hooks import Hooks, load_hooks
from harness.train.plan_files import rates_of
from harness.train.run import Run
from harness.train.standing import WorldChangedError


def with_hooks(run: Run) -> Run:
    """The run with the hooks of its configuration, which rank 0 imports; a collective if there are any.

    Raises:
        ConfigError: on every rank, for one that cannot be imported.
    """
    config, found = run.config, Hooks()
    if not config.hooks:
        return run

    def load() -> None:
        nonlocal found
        if run.hooks.are_loaded:  # in a world before
            found = run.hooks
        else:
            found = Hooks(load_hooks(config.hooks), config.hooks_fail, run.guard.outside)

    _on_root(run, "hooks", load)
    return replace(run, hooks=found)


def tell_beginning(run: Run, start: AttemptStart, warn: Callable[[str], None]) -> None:
    """Tell the hooks that an attempt begins, and of what a run that resumes has become.

    Args:
        run: what is trained, by its plan.
        start: as it is recorded.
        warn: shows a line to the user.
    """
    hooks, point, state = run.hooks, run.resume_point, run.initial_state
    known = () if point is None else [one.to_json() for one in point.amendments()]
    rates = partial(rates_of, run)
    hooks.open(
        run.folder.path,
        run.config.run_name,
        start,
        run.config.plain,
        rates,
        lambda line: warn(f"warning: {line}"),
        known,
    )
    if point is not None and point.here:  # again: whoever was killed may not have told it
        hooks.saved(point.iteration, Path(point.path))
    if point is not None and point.num_ranks != run.world.size:
        hooks.world_changed(state.iteration, point.num_ranks, run.world.size, f"resumed from {point.path}")
    hooks.amended([one.to_json() for one in state.amendments], rates)


def tell_attempt(
    run: Run, start: AttemptStart, iteration: int, change: WorldChangedError | None, warn: Callable[[str], None]
) -> None:
    """Tell the hooks that the attempt begins, or that its workers have changed.

    Args:
        run: what is trained.
        start: of the attempt.
        iteration: the last update.
        change: of the workers.
        warn: shows a line to the user.
    """
    if change is None or not run.hooks.is_open:
        tell_beginning(run, start, warn)
    if change is not None:
        run.hooks.world_changed(iteration, change.size_before or run.world.size, run.world.size, change.reason)


@contextmanager
def told_at_the_end(hooks: Hooks) -> Iterator[None]:
    """Tell the hooks how the attempt ends; a world that ends is not the end of it."""
    try:
        yield
    except WorldChangedError:
        raise
    except BaseException as error:
        hooks.__exit__(type(error), error, error.__traceback__)
        raise
    hooks.__exit__(None, None, None)


def raise_failure(run: Run) -> None:
    """End the run on every rank if a hook has failed and that is to end it; a collective where it may."""
    if run.config.hooks_fail == "stop":
        _on_root(run, "hooks.failed", run.hooks.raise_failure)


def _on_root(run: Run, name: str, work: Callable[[], None]) -> None:
    """Do `work` on rank 0, or fail on all, with the configuration's file in the message."""

    def named() -> None:
        try:
            work()
        except ConfigError as error:
            raise error.found_in(run.config.source) from None

    run.world.on_root(name, named)
