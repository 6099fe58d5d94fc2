"""Where configuration meets sizes: how many iterations there are, and the learning rate and momentum of each.

`LRPlan` is the one place in which schedule, scaling and warm-up come together. Every rank builds the same plan from the
same numbers, so every rank computes the same learning rate; nothing has to be sent, saved or kept in step.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from harness.config import LRConfig, Problem, RunConfig, TrainConfig, config_error
from harness.errors import ConfigError
from harness.schedules import Frame, SpecError, breakpoints_of, length_of
from harness.units import Duration, round_position

MAX_CSV_ROWS = 10_000


@dataclass(frozen=True)
class Sizes:
    """The numbers that durations are measured by.

    Attributes:
        num_samples: training samples.
        shards: S, shards in a global batch.
        batch_size: b, samples in a shard.
        iterations_per_epoch: updates in an epoch.
        num_iterations: updates in the run.
    """

    num_samples: int
    shards: int
    batch_size: int
    iterations_per_epoch: int
    num_iterations: int

    @property
    def global_batch(self) -> int:
        """Samples in a global batch."""
        return self.shards * self.batch_size

    @classmethod
    def of(cls, train: TrainConfig, *, num_samples: int, shards: int, batch_size: int, source: str = "config") -> Sizes:
        """Count the iterations; an epoch's remainder is dropped, or kept as one smaller batch.

        Raises:
            ConfigError: if there are fewer samples than one global batch.
        """
        global_batch = shards * batch_size
        if num_samples < global_batch:
            raise config_error(
                source,
                [
                    Problem(
                        ("batch",),
                        f"a global batch is {shards} shards x {batch_size} = {global_batch} samples, but there are "
                        f"only {num_samples} training samples; lower batch.size or batch.shards",
                    )
                ],
            )
        full, rest = divmod(num_samples, global_batch)
        per_epoch = full + (1 if rest and train.last_batch == "keep" else 0)
        total = train.iterations if train.iterations is not None else (train.epochs or 0) * per_epoch
        return cls(num_samples, shards, batch_size, per_epoch, total)

    def epoch(self, t: int) -> int:
        """The epoch of iteration `t`; both count from 1."""
        return (t - 1) // self.iterations_per_epoch + 1

    def iterations(self, duration: Duration) -> int:
        """A duration of the run in whole iterations."""
        return round_position(duration.iterations(self.iterations_per_epoch, self.num_iterations))


class LRPlan:
    """Learning rate and momentum of every iteration of a run; a pure function of the iteration."""

    def __init__(self, config: LRConfig, sizes: Sizes, source: str = "config") -> None:
        """Build the plan.

        Args:
            config: the section `lr`; with `base: auto` the plan is in units of the base that is still to be found.
            sizes: the run's sizes.
            source: the configuration's file, for messages.

        Raises:
            ConfigError: if the schedule or the warm-up does not fit the run, or a value breaks a bound.
        """
        self.config = config
        self.sizes = sizes
        self.in_units_of_base = config.base == "auto"
        self.base = config.base if isinstance(config.base, float) else 1.0
        self.scaling = (config.scaling or "linear") if config.uses_x else "none"
        self.reference_batch = (
            sizes.global_batch if self.in_units_of_base else config.reference_batch or sizes.batch_size
        )
        ratio = sizes.global_batch / self.reference_batch
        self.factor = {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[self.scaling]
        self.peak = self.base * self.factor
        self._build(source)

    def lr(self, t: int) -> float:
        """The learning rate that update `t` applies; `t = 0` is the value before training."""
        length = self._warmup_length
        if t > length or not length:
            return float(self._schedule(t - self._shift))
        goal = float(self._schedule(length - self._shift))
        return self._warmup_start + t * (goal - self._warmup_start) / length if t < length else goal

    def momentum(self, t: int) -> float | None:
        """The momentum of update `t`, or `None` where the optimizer's own number holds throughout."""
        return None if self._momentum is None else float(self._momentum(t))

    def breakpoints(self) -> list[int]:
        """The iterations at which a formula changes, with the run's first and last, in order."""
        total = self.sizes.num_iterations
        points = {1, total, *(p + self._shift for p in breakpoints_of(self._schedule, total - self._shift))}
        if self._momentum is not None:
            points.update(breakpoints_of(self._momentum, total))
        points.add(self._warmup_length)
        return sorted(p for p in points if 1 <= p <= total)

    def describe(self) -> str:
        """The plan's scaling in words, such as `0.1 at batch 64 x 8 shards (linear) = 0.8`."""
        sizes = self.sizes
        if not self.config.uses_x:
            return "learning rates as written (nothing is scaled)"
        if self.in_units_of_base:
            return f"in units of the base that the finder will find at the global batch of {sizes.global_batch}"
        workers = f"{sizes.batch_size} x {sizes.shards} shard{'s' if sizes.shards > 1 else ''}"
        reference = "" if self.config.reference_batch is None else f" (base for a batch of {self.reference_batch})"
        return f"{self.base:g} at batch {workers} ({self.scaling}){reference} = {self.peak:g}"

    def fingerprint(self) -> str:
        """sha256 over every value of the plan's breakpoints and sizes: equal plans, equal fingerprints."""
        values = [[t, self.lr(t), self.momentum(t)] for t in self.rows()]
        return hashlib.sha256(json.dumps([vars(self.sizes), values]).encode()).hexdigest()

    def rows(self) -> Iterator[int]:
        """The iterations worth a line: every one, or breakpoints and an even spread when there are too many."""
        total = self.sizes.num_iterations
        points = self.breakpoints()
        if total > MAX_CSV_ROWS:
            spread = MAX_CSV_ROWS - min(len(points), MAX_CSV_ROWS // 2)
            kept = points if len(points) <= MAX_CSV_ROWS // 2 else [1, total]
            yield from sorted({*kept, *(1 + i * (total - 1) // (spread - 1) for i in range(spread))})
        else:
            yield from range(1, total + 1)

    def to_csv(self) -> str:
        """The plan as a table: iteration, epoch, lr, momentum (empty where the optimizer's own holds)."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["iteration", "epoch", "lr", "momentum"])
        for t in self.rows():
            momentum = self.momentum(t)
            writer.writerow([t, self.sizes.epoch(t), repr(self.lr(t)), "" if momentum is None else repr(momentum)])
        return text.getvalue()

    def _build(self, source: str) -> None:
        config, sizes = self.config, self.sizes
        problems: list[Problem] = []
        self._warmup_length = self._resolve_warmup(problems)
        prefix = config.warmup is not None and config.warmup.mode == "prefix"
        self._shift = self._warmup_length if prefix else 0
        span = sizes.num_iterations - self._shift
        try:
            self._schedule = config.schedule.build(Frame(sizes.iterations_per_epoch, span, self.peak))
        except SpecError as error:
            problems += [Problem(("lr", "schedule", *path), message) for path, message in error.problems]
        else:
            problems += self._overlong(span)
        self._momentum = None
        if config.momentum is not None:
            try:
                self._momentum = config.momentum.build(Frame(sizes.iterations_per_epoch, sizes.num_iterations, 1.0))
            except SpecError as error:
                problems += [Problem(("lr", "momentum", *path), message) for path, message in error.problems]
        if problems:
            raise config_error(source, problems)
        self._check_momentum(source)

    def _resolve_warmup(self, problems: list[Problem]) -> int:
        warmup = self.config.warmup
        self._warmup_start = 0.0
        if warmup is None:
            return 0
        if isinstance(warmup.start, float):
            self._warmup_start = warmup.start
        elif warmup.start == "unscaled":
            self._warmup_start = self.base
        else:
            self._warmup_start = float(warmup.start[:-1]) * self.peak
        sizes = self.sizes
        exact = warmup.length.iterations(sizes.iterations_per_epoch, sizes.num_iterations)
        if exact >= sizes.num_iterations:
            run = Fraction(sizes.num_iterations)
            relation = "longer than" if exact > run else "as long as"
            problems.append(
                Problem(
                    ("lr", "warmup", "length"),
                    f"'{warmup.length}' ({float(exact):g} iterations) is {relation} the run "
                    f"({sizes.num_iterations} iterations); "
                    "shorten the warm-up or raise train.epochs",
                )
            )
            return 0
        return round_position(exact)

    def _overlong(self, span: int) -> list[Problem]:
        name, length = self.config.schedule.name, length_of(self._schedule)
        if length is None or length <= span:
            return []
        of_run = f"the run has {span}" + (f" after its warm-up of {self._shift}" if self._shift else "")
        return [
            Problem(
                ("lr", "schedule", name),
                f"takes {length} iterations but {of_run}; it would end at LR {self._schedule(span):g} instead of "
                f"{self._schedule(length):g}; shorten the schedule or raise train.epochs",
            )
        ]

    def _check_momentum(self, source: str) -> None:
        if self._momentum is None:
            return
        for t in self.breakpoints():
            if not 0 <= self._momentum(t) < 1:
                raise config_error(
                    source,
                    [
                        Problem(
                            ("lr", "momentum"), f"is {self._momentum(t):g} at iteration {t}; a momentum lies in [0, 1)"
                        )
                    ],
                )


def resolve_shards(config: RunConfig, workers: int) -> int:
    """S for a new run: `batch.shards`, or the number of workers where it is null.

    Raises:
        ConfigError: if the workers could not share the shards evenly.
    """
    shards = config.batch.shards or workers
    if shards % workers:
        fitting = ", ".join(str(n) for n in range(1, shards + 1) if shards % n == 0)
        raise ConfigError(
            f"{config.source}: batch.shards: {shards} shards cannot be dealt evenly to {workers} workers; start "
            "as many as "
            f"divide {shards} ({fitting}), or make batch.shards a multiple of {workers}"
        )
    return shards
