"""What rank 0 tells of a run while it trains: lines on the terminal and in `metrics.jsonl`. Decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from harness.checkpoint import Replaced
from harness.errors import listed
from harness.folder import MetricsLine
from harness.gluon import Learner
from harness.report import Progress
from harness.train.input import InputTime, advice
from harness.train.run import Run


class TrainingLog:
    """Shows and records losses and evaluations.

    Attributes:
        results: the last evaluation, as `split.metric`.
    """

    def __init__(self, progress: Progress, record: Callable[..., None]) -> None:
        """Start the clock.

        Args:
            progress: shows lines to the user.
            record: writes lines of metrics.
        """
        self._progress, self._record = progress, record
        self._clock = Clock()
        self.results: dict[str, float] = {}

    def warn(self, line: str) -> None:
        """Show a line that the user should not miss."""
        self._progress.warn(line)

    def count(self, run: Run, t: int) -> None:
        """Count the samples of update `t`, which is over, for the speed."""
        run.timing.enter("log")
        self._clock.count(run.order.global_count(t))

    def updated(self, run: Run, learner: Learner, t: int, loss: Any) -> None:
        """Show and record the loss of update `t`; on rank 0, which waits for the device here.

        Raises:
            DivergedError: if that update, or the one before, turns out not to be finite.
        """
        if run.world.rank:
            return
        learner.check_pending()
        mean_loss, rate = float(loss), round(self._clock.rate(), 1)
        norm = learner.gradient_norm
        values = {"loss": mean_loss, **({} if norm is None else {"gradient_norm": norm}), "images_per_s": rate}
        self._record(_line(run, t, "train", values))
        self._progress.update(t, run.sizes.epoch(t), run.plan.lr(t), mean_loss, rate)

    def weightless(self, run: Run, t: int) -> None:
        """Show and record that update `t` changed nothing, because nothing in its batch has a weight."""
        self._progress.warn(f"iteration {t}: every weight of the loss is 0; nothing was updated")
        self._record(_line(run, t, "weightless", {}))

    def digest(self, run: Run, t: int, digest: str) -> None:
        """Record the digest of weights and optimizer state after update `t`; `launch/compare.py` reads it."""
        self._record(_line(run, t, "digest", {})._replace(digest=digest))

    def replaced(self, run: Run, t: int, what: str, replaced: Replaced) -> None:
        """Show and record which damaged samples others have replaced, if there are any.

        Args:
            run: what is trained.
            t: after which update.
            what: they were used for, such as `epoch 3`.
            replaced: those, and those of the run.
        """
        if replaced.in_epoch:
            said = replaced_in_words(what, replaced)
            self._progress.warn(said + listed(replaced.first, of=replaced.in_epoch))
            line = _line(run, t, "replaced", {"count": replaced.in_epoch})
            self._record(line._replace(said=(said, *replaced.first)))

    def waited(self, run: Run, t: int, found: InputTime) -> None:
        """Show and record that updates wait for their samples; on rank 0, which speaks for itself."""
        waited_ms, update_ms = (round(1e3 * one, 3) for one in found)
        said = f"input {waited_ms:.3g} ms of {update_ms:.3g} ms an update{advice(run, found)}"
        self._progress.warn(said)
        line = _line(run, t, "input", {"waited_ms": waited_ms, "update_ms": update_ms})
        self._record(line._replace(said=(said,)))

    def evaluated(self, run: Run, t: int, found: Mapping[str, Mapping[str, float]]) -> None:
        """Show and record the evaluation after update `t`, by split; its time does not count for the speed."""
        for split, values in found.items():
            self.results.update({f"{split}.{name}": value for name, value in values.items()})
            self._progress.evaluated(t, split, values)
        self._record(*(_line(run, t, split, values) for split, values in found.items()))
        self._clock.restart()


def replaced_in_words(what: str, replaced: Replaced) -> str:
    """How many damaged samples others have replaced, in a sentence.

    >>> replaced_in_words("epoch 3", Replaced(12, 1))
    'epoch 3: 1 damaged sample was replaced (data.pictures.damaged), 12 in the run'
    """
    count, total = replaced.in_epoch, replaced.count
    were = f"{count} damaged sample{' was' if count == 1 else 's were'} replaced (data.pictures.damaged)"
    return f"{what}: {were}{f', {total} in the run' if total > count else ''}"


class Clock:
    """Images a second since the last time it was asked."""

    def __init__(self) -> None:
        """Start."""
        self.restart()

    def restart(self) -> None:
        """Begin anew, with nothing counted."""
        self._since_s = time.perf_counter()
        self._images = 0

    def count(self, images: int) -> None:
        """Count the samples of an update."""
        self._images += images

    def rate(self) -> float:
        """Samples a second; begins anew."""
        rate = self._images / max(time.perf_counter() - self._since_s, 1e-9)
        self.restart()
        return rate


def _line(run: Run, t: int, split: str, values: Mapping[str, float]) -> MetricsLine:
    momentum = run.plan.momentum(t)
    own = run.config.optimizer.own_momentum if momentum is None else momentum
    return MetricsLine(split, t, run.sizes.epoch(t), run.plan.lr(t), own, values)
