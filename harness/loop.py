"""Training and evaluation, from top to bottom: update, log, evaluate, save."""

from __future__ import annotations

import time
from contextlib import ExitStack

from harness.errors import ConfigError, DataError
from harness.gluon import Learner
from harness.report import MetricsFile, Progress, write_finder_report, write_plan
from harness.resume import open_folder, warnings_for
from harness.run import Run, must_be_equal
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
    config, sizes, world = run.config, run.sizes, run.world
    folder = run.folder.path
    own = config.optimizer.own_momentum
    begun = 0 if run.origin is None else run.origin.iteration
    every = max(1, sizes.iterations(config.log.every))
    evaluate_every = (
        max(1, sizes.iterations(config.evaluation.every)) if config.evaluation.every else sizes.num_iterations
    )

    with ExitStack() as stack:
        stream = stack.enter_context(run.stream())
        learner = run.learner(stream)
        said = world.on_root("folder", lambda: _open_folder(run))
        stack.callback(run.folder.close)
        if run.plan.in_units_of_base:
            said += _find_base(run, learner)
        plan = run.plan
        world.on_root("plan", lambda: write_plan(folder, run.config, plan))
        metrics = stack.enter_context(MetricsFile(folder / "metrics.jsonl", begun)) if world.rank == 0 else None
        progress = stack.enter_context(Progress(sizes.num_iterations, world.rank, begun))
        for line in [_opening(run), *run.remarks, *plan.remarks(), *said]:
            progress.say(line)
        saver = stack.enter_context(Saver(run, learner, folder / "checkpoints", metrics, progress.say))
        clock = _Clock()
        results: dict[str, float] = {}

        for t in range(begun + 1, sizes.num_iterations + 1):
            lr, momentum = plan.lr(t), plan.momentum(t)
            loss = learner.iteration(t, lr, momentum, saver.ask())
            clock.count(run.order.global_count(t))
            last = t == sizes.num_iterations
            record = {
                "iteration": t,
                "epoch": sizes.epoch(t),
                "lr": lr,
                "momentum": own if momentum is None else momentum,
            }

            if world.rank == 0 and (t % every == 0 or t == 1 or last):
                learner.finish()
                mean_loss, rate = float(loss.asscalar()), round(clock.rate(), 1)
                numbers = {"loss": mean_loss, "gradient_norm": learner.gradient_norm, "images_per_s": rate}
                saver.record({"split": "train", **record, **numbers})
                progress.update(t, sizes.epoch(t), lr, mean_loss, rate)

            if t % evaluate_every == 0 or last:
                for split in run.held_out if last else run.held_out[:1]:
                    values = run.evaluate(learner, split)
                    results.update({f"{split}.{name}": value for name, value in values.items()})
                    progress.evaluated(t, split, values)
                    saver.record({"split": split, **record, **values})
                    if split == run.held_out[0]:
                        saver.evaluated(t, split, values)
                clock.restart()

            saver.after(t)

        learner.check_weights(sizes.num_iterations)
        digest = learner.digest()
        must_be_equal(world, "final state", digest)
        saver.finish()
        world.on_root("final weights", lambda: learner.save_weights(folder / "final.params"))
        progress.say(f"{folder}: done after {sizes.num_iterations} iterations, digest {digest}")
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
    ranks = f"{_count(world.size, 'rank')} ({world.kind})"
    threads = _count(run.config.threads_per_rank, "thread")
    return (
        f"{run.config.run_name}: {sizes.num_samples} samples, {_count(sizes.num_iterations, 'iteration')} of "
        f"{sizes.shards} x {sizes.batch_size}, {ranks}, {threads} a rank; learning rate "
        f"{run.plan.describe()}"
    )


def _count(number: int | str, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
