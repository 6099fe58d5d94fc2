"""A smoke test of a run: three of its updates, an evaluation, a checkpoint, and a resume that must give the same bits.

It is the run itself, by the same code, on the same data and ranks, with the learning rates that the run would have;
only its folder is another, and it ends after the third update. Then it is resumed from the checkpoint after the second,
and the third update is done again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoint import checkpoint_path, list_checkpoints
from harness.comm import World
from harness.config import RunConfig
from harness.errors import ConfigError, DisagreementError
from harness.files import make_folder
from harness.folder import METRICS, SMOKE, MetricsLine, RunFolder, Unread, read_metrics_lines
from harness.gluon import Timing
from harness.guard import Guard, Unguarded
from harness.train.loop import train
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions
from harness.train.run import Run

UPDATES = 3
_ONCE_MORE = "the smoke test has not ended; repeat it"
_OF_THE_MOMENT = ("images_per_s", "waited_ms", "update_ms")  # values of a line that no two runs have alike


class Stopwatch(Timing):
    """How long updates, evaluations and checkpoints took; it waits for nothing.

    Attributes:
        updates_s: of each update, with all that is logged of it.
        parts_s: of evaluations and checkpoints.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Nothing has begun."""
        super().__init__()
        self.updates_s: list[float] = []
        self.parts_s: dict[str, float] = {"evaluation": 0.0, "checkpoint": 0.0}
        self._clock, self._since_s, self._part = clock, clock(), ""

    def begin(self, t: int) -> None:
        """An update begins."""
        self.enter("update")
        self.updates_s.append(0.0)

    def enter(self, part: str) -> None:
        """Something else begins."""
        now_s = self._clock()
        if self._part in self.parts_s:
            self.parts_s[self._part] += now_s - self._since_s
        elif self.updates_s:
            self.updates_s[-1] += now_s - self._since_s
        self._part, self._since_s = part, now_s

    def end(self) -> None:
        """The last update is over."""
        self.enter("end")


class Prepare(NamedTuple):
    """What `prepare_run` is given besides the configuration and how the run starts.

    Attributes:
        world: the ranks.
        threads: threads a rank computes with.
        emulate_np: how many ranks this one process stands for.
        guard: watches over this rank.
    """

    world: World
    threads: int
    emulate_np: int | None
    guard: Guard | Unguarded

    def run(self, config: RunConfig, start: StartOptions) -> Run:
        """A run."""
        return prepare_run(
            config, self.world, threads=self.threads, emulate_np=self.emulate_np, start=start, guard=self.guard
        )


def smoke(config: RunConfig, given: Prepare, start: StartOptions, log_level: str = "info") -> list[str]:
    """Do three updates in `runs/NAME.smoke`, which is kept until the next one; the run's own folder stays as it is.

    Args:
        config: of the run, as read.
        given: ranks and threads.
        start: how the run would start; with `auto` from the newest checkpoint of its folder, which is only read.
        log_level: what rank 0 shows.

    Returns:
        What was shown, a line each; printed by rank 0.

    Raises:
        HarnessError: on every rank: what the run would end with; or a `DisagreementError` if the resumed one differs.
    """
    world, began_s = given.world, time.perf_counter()
    own = Path(config.output) / config.run_name
    folder = own.with_name(f"{own.name}.smoke")
    config = config.changed({"name": folder.name})
    world.on_root("smoke", lambda: _make_room(folder))
    resume = start.resume
    if resume == "auto":
        resume = world.on_root("smoke.resume", lambda: str(own) if list_checkpoints(own / "checkpoints") else "never")

    # The run, up to its third update.
    watch = Stopwatch()
    with closing(given.run(config, StartOptions(resume, on_conflict=start.on_conflict))) as run:
        run = replace(_shortened(run), timing=watch)
        train(run, log_level)
    unbroken_s = time.perf_counter() - began_s
    saved = run.last - 1
    expected = world.on_root("smoke.lines", lambda: _lines_after(folder, saved))

    # The same from its checkpoint, as another start of the command would: data, network and state are read anew.
    resumed_s, checkpoint = time.perf_counter(), checkpoint_path(folder / "checkpoints", saved)
    with closing(given.run(run.config, StartOptions(str(checkpoint)))) as again:
        train(replace(again, until=run.last, once_more=_ONCE_MORE), log_level)
    resumed_s = time.perf_counter() - resumed_s
    found = world.on_root("smoke.resumed", lambda: _lines_after(folder, saved))
    if found != expected:
        raise DisagreementError(
            f"{checkpoint}: a run that resumes here is not the one that was not interrupted:"
            + _first_difference(expected, found)
            + "\nsomething draws at random, or keeps a state, that no checkpoint holds; see docs/smoke.md"
        ).on_all_ranks()
    lines = _told(run, own, watch, unbroken_s, resumed_s, expected)
    if world.rank == 0 and log_level in ("info", "debug"):
        print("\n".join(lines), flush=True)
    return lines


def _shortened(run: Run) -> Run:
    """The run up to its third update from here, with a checkpoint and an evaluation after the second.

    Raises:
        ConfigError: on every rank, if fewer are left.
    """
    first, total = run.initial_state.iteration, run.sizes.num_iterations
    if total - first < UPDATES:
        raise ConfigError(
            f"--smoke does {UPDATES} updates, and this run has {total - first} left; make it longer (train)"
        ).on_all_ranks()
    second = f"{first + UPDATES - 1}it"  # of which the next multiple is beyond the third
    values: dict[str, Any] = {"checkpoint.every": second, "log.every": "1it"}
    if run.config.evaluation.every is not None:
        values["evaluation.every"] = second
    if run.config.average is not None and not first:  # so that there is an average, in memory and on disk
        key, section = run.config.average
        values |= {f"{key}.every": "1it", f"{key}.after": "0it"}
        values |= {f"{key}.over": f"{UPDATES}it"} if section.statistics == "recomputed" else {}
    return replace(run, config=run.config.changed(values), until=first + UPDATES, once_more=_ONCE_MORE)


def _make_room(folder: Path) -> None:
    """Remove what an earlier smoke test left, and nothing else.

    Raises:
        ConfigError: if the folder is something else, or in use.
    """
    if folder.exists() and not (folder / SMOKE).exists():
        raise ConfigError(f"{folder}: is no smoke test's (it has no {SMOKE}), and --smoke writes there; move it away")
    place = RunFolder(folder)
    place.open()
    try:
        for entry in folder.iterdir():
            if entry.name in (".lock", SMOKE):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        make_folder(folder)
        (folder / SMOKE).touch()
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be removed ({error.strerror}); remove {folder} by hand") from None
    finally:
        place.close()


def _lines_after(folder: Path, t: int) -> list[list[Any]]:
    """What was recorded of updates after `t`, without what is never the same twice."""
    lines = [line for line in read_metrics_lines(folder / METRICS, Unread()) if line.iteration > t]
    lines.sort(key=lambda line: (line.iteration, line.digest is not None))  # what differs in numbers is told first
    return [_comparable(line) for line in lines if line.split != "input"]


def _comparable(line: MetricsLine) -> list[Any]:
    values = {name: repr(value) for name, value in line.values.items() if name not in _OF_THE_MOMENT}
    return [line.split, line.iteration, line.lr, line.momentum, values, line.digest]


def _first_difference(expected: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]]) -> str:
    for one, other in zip(expected, found, strict=False):
        if one != other:
            return f"\n  iteration {one[1]}, {one[0]}, unbroken: {_words(one)}\n  resumed: {_words(other)}"
    return f"\n  {len(expected)} lines of {METRICS}, and {len(found)} when it is resumed"


def _words(line: Sequence[Any]) -> str:
    digest = "" if line[5] is None else f"digest {line[5][:12]}"
    return "  ".join([f"learning rate {line[2]}", *(f"{name} {value}" for name, value in line[4].items()), digest])


def _told(
    run: Run, own: Path, watch: Stopwatch, unbroken_s: float, resumed_s: float, lines: Sequence[Sequence[Any]]
) -> list[str]:
    """What was shown, and what each part cost."""
    first, total, updates_s = run.initial_state.iteration, run.sizes.num_iterations, watch.updates_s
    set_up_s = unbroken_s - sum(updates_s) - sum(watch.parts_s.values())
    ranks = f"{run.world.size} rank{'' if run.world.size == 1 else 's'}"
    digests = [line[5] for line in lines if line[5] is not None]
    evaluated = (
        f"of {run.data.held_out[0]}" if run.config.evaluation.every is not None and run.data.held_out else "none"
    )
    same = f"iteration {run.last} again, the same bits: digest {digests[0][:12]}" if digests else "stopped early, again"
    rows = [
        ("set up", set_up_s, f"data, plan, network and folder on {ranks}; final weights and report"),
        ("updates", sum(updates_s), f"{len(updates_s)}, of {', '.join(f'{1e3 * one:.0f}' for one in updates_s)} ms"),
        ("evaluation", watch.parts_s["evaluation"], evaluated),
        ("checkpoint", watch.parts_s["checkpoint"], f"after iteration {run.last - 1}; written meanwhile"),
        ("resumed", resumed_s, same),
    ]
    return [
        f"smoke test passed: iterations {first + 1} to {run.last} of {total}, in {run.folder.path}; {own} is as it was",
        *(f"  {name:<10} {seconds:7.2f} s  {words}" for name, seconds, words in rows),
    ]
