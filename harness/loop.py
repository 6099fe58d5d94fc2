"""Training and evaluation, from top to bottom: update, log, evaluate, save."""

from __future__ import annotations

import time
from contextlib import ExitStack

from harness.divergence import Divergence
from harness.errors import ConfigError, DataError, DivergedError
from harness.gluon import Learner, Requests
from harness.guard import Ledger
from harness.report import MetricsFile, Progress, write_finder_report, write_plan
from harness.resume import open_folder, warnings_for
from harness.run import Run
from harness.saving import Saver, environment_of


def train(run: Run) -> dict[str, float]:
    """Train from the first iteration, or the one after the set that the run goes on from, to the last.

    Writes the run's folder (rank 0): `config.yaml`, `plan.csv`, `plan.png`, `metrics.jsonl`, `checkpoints/`,
    `final.params`.

    Args:
        run: what to train.

    Returns:
        The last evaluation, as `split.metric`; empty for a run that was done already.

    Raises:
        HarnessError: on every rank, whatever rank it began on.
    """
    config, sizes, world, guard = run.config, run.sizes, run.world, run.guard
    folder = run.folder.path
    begun = 0 if run.origin is None else run.origin.iteration
    every = max(1, sizes.iterations(config.log.every))
    verify_every = max(1, sizes.iterations(config.guard.verify_every))
    evaluate_every = (
        max(1, sizes.iterations(config.evaluation.every)) if config.evaluation.every else sizes.num_iterations
    )

    with ExitStack() as stack:
        stream = stack.enter_context(run.stream())
        learner = run.learner(stream)
        said = world.on_root("folder", lambda: _open_folder(run))
        stack.callback(run.folder.close)
        guard.settle(folder)
        if run.plan.in_units_of_base:
            said += _find_base(run, learner)
        world.on_root("plan", lambda: write_plan(folder, run.config, run.plan))
        metrics = stack.enter_context(MetricsFile(folder / "metrics.jsonl", begun)) if world.rank == 0 else None
        progress = stack.enter_context(Progress(sizes.num_iterations, world.rank, begun))
        for line in [_opening(run), *run.remarks, *run.plan.remarks(), *said]:
            progress.say(line)
        ledger = Ledger(world, learner)

        def verify(t: int) -> None:
            ledger.verify(t, run.plan.lr(t), run.plan.momentum(t), t * sizes.global_batch)

        saver = stack.enter_context(Saver(run, learner, folder / "checkpoints", metrics, progress.say, verify))
        divergence = Divergence(run, learner, saver, progress.say)
        clock = _Clock()
        results: dict[str, float] = {}

        def look(t: int) -> bool:
            """Evaluate after update `t`; whether it was finished, and not left for the run that goes on."""
            splits = run.held_out if t == sizes.num_iterations else run.held_out[:1]
            found = {}
            for split in splits:
                values = run.evaluate(learner, split)
                if values is None:
                    return False
                found[split] = values
            for split, values in found.items():
                results.update({f"{split}.{name}": value for name, value in values.items()})
                progress.evaluated(t, split, values)
                saver.record({"split": split, **_record(run, t), **values})
                if split == run.held_out[0]:
                    saver.evaluated(t, split, values)
            clock.restart()
            return True

        def update(t: int) -> None:
            """Update `t`, and what is due after it."""
            plan, last = run.plan, t == sizes.num_iterations
            stop = guard.tick(f"iteration {t}", "first" if t <= begun + 1 else "update")
            loss = learner.iteration(t, plan.lr(t), plan.momentum(t), saver.ask(stop))
            requests = learner.requests()
            clock.count(run.order.global_count(t))
            if not divergence.was_skipped(t) and world.rank == 0 and (t % every == 0 or t == 1 or last):
                learner.finish()
                mean_loss, rate = float(loss.asscalar()), round(clock.rate(), 1)
                numbers = {"loss": mean_loss, "gradient_norm": learner.gradient_norm, "images_per_s": rate}
                saver.record({"split": "train", **_record(run, t), **numbers})
                progress.update(t, sizes.epoch(t), plan.lr(t), mean_loss, rate)
            if t % verify_every == 0:
                verify(t)
            if last:
                learner.check_weights(t)
            due = t % evaluate_every == 0 or last
            left_out = due and (requests.stop or not look(t))
            saver.after(t, requests, evaluation_due=left_out)
            if left_out or (requests.stop and not last):
                saver.finish()
                raise guard.stopped(f"saved after iteration {t}; start it again with --resume auto")

        t = begun
        if run.evaluation_is_due:
            if not look(t):
                raise guard.stopped(f"iteration {t} is saved; start it again with --resume auto")
            saver.after(t, Requests())
        while t < sizes.num_iterations:
            try:
                update(t + 1)
                t += 1
            except DivergedError as error:
                t = divergence.go_back(t + 1, error)

        guard.tick("the end", "evaluation")
        verify(t)
        saver.finish()
        world.on_root("final weights", lambda: learner.save_weights(folder / "final.params"))
        progress.say(f"{folder}: done after {t} iterations, digest {learner.digest()}")
    return results


def evaluate_only(run: Run) -> dict[str, float]:
    """Evaluate the weights in `init.from` on every held-out split; writes nothing."""
    if run.config.init.from_ is None:
        raise ConfigError("init.from: there are no weights to evaluate; give a file").on_all_ranks()
    if not run.held_out:
        name = run.config.data.name
        raise DataError(f"data.name: {name!r} has neither a validation nor a test split to evaluate on").on_all_ranks()
    with run.stream() as stream:
        learner = run.learner(stream)
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


def _record(run: Run, t: int) -> dict[str, object]:
    momentum = run.plan.momentum(t)
    own = run.config.optimizer.own_momentum if momentum is None else momentum
    return {"iteration": t, "epoch": run.sizes.epoch(t), "lr": run.plan.lr(t), "momentum": own}


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
    ranks = f"{_count(world.size, 'rank')} ({world.kind})"
    threads = _count(run.config.threads_per_rank, "thread")
    return (
        f"{run.config.run_name}: {sizes.num_samples} samples, {_count(sizes.num_iterations, 'iteration')} of "
        f"{sizes.shards} x {sizes.batch_size}, {ranks}, {threads} a rank; learning rate "
        f"{run.plan.describe()}"
    )


def _count(number: int | str, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
