"""Training and evaluation, from top to bottom: update, log, evaluate, save."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from harness.config import dump_config
from harness.data import BatchStream, describe_scale, draws_at_random
from harness.errors import ConfigError, DataError, DivergedError
from harness.folder import METRICS, EventFile, MetricsFile, MetricsLine
from harness.gluon import Learner, Requests
from harness.guard import ConsistencyCheck
from harness.report import Progress, reported, write_finder_report, write_plan, write_run_report
from harness.train.divergence import Divergence
from harness.train.resume import open_folder, warnings_for
from harness.train.run import Run
from harness.train.saving import Saver, beginning_of, environment_of


def train(run: Run, log_level: str = "info") -> dict[str, float]:
    """Train from the first iteration, or the one after the set that the run goes on from, to the last.

    Writes the run's folder (rank 0): `config.yaml`, the plan, `metrics.jsonl`, `checkpoints/`, `final.params`,
    `report.html`.

    Args:
        run: what to train.
        log_level: what rank 0 shows: `error`, `warning`, `info` or `debug`; each shows what those before it do.

    Returns:
        The last evaluation, as `split.metric`; empty for a run that was done already.

    Raises:
        HarnessError: on every rank, whatever rank it began on.
    """
    world, folder = run.world, run.folder.path
    with ExitStack() as stack:
        stream = stack.enter_context(run.stream())
        learner = run.learner()
        run.guard.tick("the run's folder", "first")
        stack.callback(run.folder.close)  # also where it could not be opened: the lock of its name may be held by then
        said = world.on_root("folder", lambda: _open_folder(run))
        run.guard.use_folder(folder, beginning_of(run), partial(write_run_report, folder))
        stack.enter_context(reported(folder, world.rank))
        stack.enter_context(run.guard.explained())
        if run.plan.in_units_of_base:
            said += _find_base(run, learner)
        world.on_root("plan", lambda: write_plan(folder, run.config, run.plan, run.amendments))
        training = _Training(run, learner, stream, stack, log_level)
        training.progress.say(_opening(run))
        for line in [*run.remarks, *run.plan.remarks(), *said]:
            training.progress.warn(line)
        training.go()
        world.on_root("final weights", lambda: learner.save_weights(folder / "final.params"))
        total = run.sizes.num_iterations
        training.progress.say(f"{folder}: done after {total} iterations, digest {learner.digest()}")
    return training.results


class _Training:
    """The updates of a run, and what is due between them; every rank does all of it.

    Attributes:
        progress: shows lines to the user.
        results: the last evaluation, as `split.metric`.
    """

    def __init__(self, run: Run, learner: Learner, stream: BatchStream, stack: ExitStack, log_level: str) -> None:
        config, sizes, folder = run.config, run.sizes, run.folder.path
        self.run, self.learner, self.stream = run, learner, stream
        self.total = sizes.num_iterations
        self.begun = 0 if run.origin is None else run.origin.iteration
        self.log_every = max(1, sizes.iterations(config.log.every))
        self.verify_every = max(1, sizes.iterations(config.guard.verify_every))
        self.evaluate_every = self.total
        if config.evaluation.every is not None:
            self.evaluate_every = max(1, sizes.iterations(config.evaluation.every))
        opened: list[MetricsFile] = []  # on rank 0, which fails on all ranks or on none
        run.world.on_root("metrics", lambda: opened.append(MetricsFile(folder / METRICS, self.begun)))
        metrics = stack.enter_context(opened[0]) if opened else None
        if metrics is not None and run.config.log.tensorboard:
            texts = {"config": f"```yaml\n{dump_config(run.config)}```", "plan": run.plan.describe()}
            pictures = {"plan": folder / "plan.png", "finder": folder / "finder" / "curve.png"}
            metrics.show_in(EventFile(folder / "tensorboard", texts, pictures))
        rank, alone = run.world.rank, run.world.size == 1
        self.progress = stack.enter_context(Progress(self.total, rank, self.begun, log_level, may_draw=alone))
        self.consistency = ConsistencyCheck(run.world, learner)
        warn = self.progress.warn
        for part in () if metrics is None else metrics.unread.parts:
            warn(
                f"warning: {folder / part.file}, line {part.line}, cannot be read and stays as it is: it {part.reason}"
            )
        self.saver = stack.enter_context(Saver(run, learner, folder / "checkpoints", metrics, warn, self.verify))
        self.divergence = Divergence(run, learner, self.saver, warn)
        self.clock = _Clock()
        self.results: dict[str, float] = {}

    def go(self) -> None:
        """Every update that is left, from the first to the last."""
        t, guard = self.begun, self.run.guard
        if self.run.evaluation_is_due:
            if not self.evaluate(t):
                raise guard.stopped(f"iteration {t} is saved; start it again with --resume auto")
            self.saver.after(t, Requests())
        while t < self.total:
            try:
                self.update(t + 1)
                t += 1
            except DivergedError as error:
                t = self.divergence.go_back(t + 1, error)
        guard.tick("the end", "evaluation")
        self.verify(t)
        self.saver.finish()

    def update(self, t: int) -> None:
        """Update `t`, and what is due after it: log, compare, evaluate, save."""
        plan, guard, last = self.run.plan, self.run.guard, t == self.total
        stop = guard.tick(f"iteration {t}", "first" if t <= self.begun + 1 else "update")
        loss = self.learner.update(self.stream(t), plan.lr(t), plan.momentum(t), self.saver.ask(stop))
        requests = self.learner.pop_requests()
        self.clock.count(self.run.order.global_count(t))
        if not self.divergence.was_skipped(t) and (t % self.log_every == 0 or t == 1 or last):
            self.log(t, loss)
        if t % self.verify_every == 0:
            self.verify(t)
        if last:
            self.learner.check_weights(t)
        due = t % self.evaluate_every == 0 or last
        left_out = due and (requests.stop or not self.evaluate(t))
        self.saver.after(t, requests, evaluation_due=left_out)
        if left_out or (requests.stop and not last):
            self.saver.finish()
            raise guard.stopped(f"saved after iteration {t}; start it again with --resume auto")

    def log(self, t: int, loss: Any) -> None:
        """Read the loss of update `t` from the device, on rank 0, and show and write it."""
        if self.run.world.rank:
            return
        self.learner.finish()
        mean_loss, rate = float(loss), round(self.clock.rate(), 1)
        norm = self.learner.gradient_norm
        numbers = {"loss": mean_loss, **({} if norm is None else {"gradient_norm": norm}), "images_per_s": rate}
        self.saver.record(self.line(t, "train", numbers))
        self.progress.update(t, self.run.sizes.epoch(t), self.run.plan.lr(t), mean_loss, rate)

    def evaluate(self, t: int) -> bool:
        """Evaluate after update `t`; whether that was finished, and not left for the run that goes on."""
        held_out = self.run.held_out
        found = {}
        for split in held_out if t == self.total else held_out[:1]:
            values = self.run.evaluate(self.learner, split)
            if values is None:
                return False
            found[split] = values
        for split, values in found.items():
            self.results.update({f"{split}.{name}": value for name, value in values.items()})
            self.progress.evaluated(t, split, values)
            self.saver.record(self.line(t, split, values))
            if split == held_out[0]:
                self.saver.evaluated(t, split, values)
        self.clock.restart()
        return True

    def verify(self, t: int) -> None:
        """Make sure that the ranks agree after update `t`."""
        plan = self.run.plan
        self.consistency.verify(t, plan.lr(t), plan.momentum(t), t * self.run.sizes.global_batch)

    def line(self, t: int, split: str, values: Mapping[str, float]) -> MetricsLine:
        """What the metrics say of update `t`."""
        plan, momentum = self.run.plan, self.run.plan.momentum(t)
        own = self.run.config.optimizer.own_momentum if momentum is None else momentum
        return MetricsLine(split, t, self.run.sizes.epoch(t), plan.lr(t), own, values)


def evaluate_only(run: Run) -> dict[str, float]:
    """Evaluate the weights in `init.from` on every held-out split; writes nothing."""
    if run.config.init.from_ is None:
        raise ConfigError("init.from: there are no weights to evaluate; give a file").on_all_ranks()
    if not run.held_out:
        name = run.config.data.name
        raise DataError(f"data.name: {name!r} has neither a validation nor a test split to evaluate on").on_all_ranks()
    learner = run.learner(policy="all")  # weights that are fresh say nothing
    if run.world.rank == 0:
        counts = ", ".join(f"{len(getattr(run.splits, split))} {split}" for split in run.held_out)
        print(f"{run.config.init.from_} on {run.config.data.name} ({counts} samples):", flush=True)
    results: dict[str, float] = {}
    for split in run.held_out:
        values = run.evaluate(learner, split)
        if values is None:
            raise run.guard.stopped("nothing was changed; start it again")
        results.update({f"{split}.{name}": value for name, value in values.items()})
        if run.world.rank == 0:
            print(f"{split}: " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()), flush=True)
    return results


class _Clock:
    """Images a second since the last time it was asked, without the time that evaluation takes."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._since_s = time.perf_counter()
        self._images = 0

    def count(self, images: int) -> None:
        self._images += images

    def rate(self) -> float:
        rate = self._images / max(time.perf_counter() - self._since_s, 1e-9)
        self.restart()
        return rate


def _open_folder(run: Run) -> list[str]:
    said = open_folder(run.folder, run.start, run.origin)
    if run.origin is not None:
        said.insert(0, f"going on after iteration {run.origin.iteration} from {run.origin.path}")
        said += warnings_for(run.origin, environment_of(run))
    return said


def _find_base(run: Run, learner: Learner) -> list[str]:
    """Run the finder, report, and go on with what it found."""
    folder = run.folder.path / "finder"
    result = run.find(learner)
    run.world.on_root("finder", lambda: write_finder_report(result, folder, run.config.run_name))
    return run.take_base(result, str(folder / "report.html"))


def _opening(run: Run) -> str:
    sizes, world = run.sizes, run.world
    devices = f" on {', '.join(run.config.devices)}" if run.config.devices else ""
    ranks = f"{_count(world.size, 'rank')} ({world.kind}){devices}"
    threads = _count(run.config.threads_per_rank, "thread")
    words = [describe_scale(run.splits.train)]
    if draws_at_random(run.splits.train):
        words.append("seeded item by item")
    done = f" ({', '.join(filter(None, words))})" if any(words) else ""
    return (
        f"{run.config.run_name}: {sizes.num_samples} samples{done}, {_count(sizes.num_iterations, 'iteration')} of "
        f"{sizes.shards} x {sizes.batch_size}, {ranks}, {threads} a rank; learning rate "
        f"{run.plan.describe()}"
    )


def _count(number: int | str, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
