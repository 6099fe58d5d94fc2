"""Where configuration meets sizes: how many iterations there are, and the learning rate and momentum of each.

`LRPlan` is the one place in which schedule, scaling and warm-up come together. Every rank builds the plan from the same
numbers, so no learning rate is ever sent. That the plans are equal is not taken for granted: ranks compare fingerprints
before the first update, and checkpoints keep the fingerprint, the configuration and every later change of the plan.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from harness.config import LRConfig, Problem, config_error
from harness.errors import ConfigError
from harness.plan.sizes import Sizes
from harness.schedules import Frame, ScheduleLike, SpecError
from harness.schedules.base import few_breakpoints_of, mix, mix_many, piecewise, values_of
from harness.schedules.bounds import BELOW_ONE, LARGEST, SMALLEST
from harness.schedules.ends import end_of
from harness.schedules.purity import impurity, own_schedules
from harness.units import round_position

MAX_CSV_ROWS = 10_000
MAX_BREAKPOINTS = 100_000
_PIECE = 1 << 15  # iterations that are evaluated at a time, so that they stay in the cache


class LRPlan:
    """Learning rate and momentum of every iteration of a run; a pure function of the iteration.

    Attributes:
        own_values: what each schedule of the user's own gave for the iterations that the plan asked it for, by name.
    """

    def __init__(
        self,
        config: LRConfig,
        sizes: Sizes,
        source: str = "config",
        earlier: Sequence[tuple[int, LRPlan]] = (),
        cuts: Sequence[tuple[int, float]] = (),
    ) -> None:
        """Build the plan.

        Args:
            config: the section `lr`; with `base: auto` the plan is in units of the base that is still to be found.
            sizes: the run's sizes.
            source: the configuration's file, for messages.
            earlier: for a run whose plan was changed on the way: plans that held up to an iteration, in order.
            cuts: for a run that was rewound: after such an iteration every learning rate is multiplied by a factor.

        Raises:
            ConfigError: if the schedule or the warm-up does not fit the run, or a value breaks a bound.
        """
        self.config = config
        self.sizes = sizes
        self._earlier = tuple(earlier)
        self._cuts = tuple(cuts)
        self.in_units_of_base = config.is_found
        self.base = config.base if isinstance(config.base, float) else 1.0
        self.scaling = (config.scaling or "linear") if config.scales else "none"
        self.reference_batch = (
            sizes.global_batch if self.in_units_of_base else config.reference_batch or sizes.batch_size
        )
        ratio = sizes.global_batch / self.reference_batch
        self.factor = {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[self.scaling]
        self.peak = self.base * self.factor
        self._build(source)

    def lr(self, t: int) -> float:
        """The learning rate that update `t` applies; `t = 0` is the value before training."""
        for last, plan in self._earlier:
            if t <= last:
                return plan.lr(t)
        lr = self._as_written(t)
        for last, factor in self._cuts:
            if t > last:
                lr *= factor
        return lr

    def _as_written(self, t: int) -> float:
        length = self._warmup_length
        if t > length or not length:
            return float(self._schedule(t - self._shift))
        goal = float(self._schedule(length - self._shift))
        return mix(self._warmup_start, goal, t / length)

    def lrs(self, t: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """`lr(t)` of many iterations at once, `(n,)`, with the very same bits."""
        values = np.empty(t.shape)
        for begin in range(0, t.size, _PIECE):
            values[begin : begin + _PIECE] = self._lrs(t[begin : begin + _PIECE])
        return values

    def _lrs(self, t: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        length = self._warmup_length

        def warmup(t: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            goal = float(self._schedule(length - self._shift))
            return mix_many(self._warmup_start, goal, t / length)

        def after(t: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            return values_of(self._schedule, t - self._shift)

        values = piecewise(t, [length + 1], [warmup, after]) if length else after(t)
        for last, factor in self._cuts:
            values = np.where(t > last, values * factor, values)
        for last, plan in reversed(self._earlier):
            values[t <= last] = plan._lrs(t[t <= last])
        return values

    def momentum(self, t: int) -> float | None:
        """The momentum of update `t`, or `None` where the optimizer's own number holds throughout."""
        for last, plan in self._earlier:
            if t <= last:
                return plan.momentum(t)
        return None if self._momentum is None else float(self._momentum(t))

    def momenta(self, t: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """`momentum(t)` of many iterations at once, `(n,)`, with NaN for `None`."""
        values = np.full(t.shape, np.nan) if self._momentum is None else values_of(self._momentum, t)
        for last, plan in reversed(self._earlier):
            values[t <= last] = plan.momenta(t[t <= last])
        return values

    def breakpoints(self) -> list[int]:
        """The iterations at which a formula changes, with the run's first and last, in order.

        Those of a schedule that has more than `MAX_BREAKPOINTS` of them are left out.
        """
        total = self.sizes.num_iterations
        points = {1, total}
        found = few_breakpoints_of(self._schedule, total - self._shift, MAX_BREAKPOINTS)
        points.update(p + self._shift for p in found)
        if self._momentum is not None:
            points.update(few_breakpoints_of(self._momentum, total, MAX_BREAKPOINTS))
        points.add(self._warmup_length)
        points.update(p for last, _ in self._cuts for p in (last, last + 1))
        for last, plan in reversed(self._earlier):
            points = {p for p in plan.breakpoints() if p <= last} | {last, last + 1} | {p for p in points if p > last}
        return sorted(p for p in points if 1 <= p <= total)

    def describe(self) -> str:
        """The plan's scaling in words, such as `0.1 at batch 64 x 8 shards (linear) = 0.8`."""
        cuts = "".join(f", x {factor:g} after iteration {last}" for last, factor in self._cuts)
        return self._describe_scaling() + cuts

    def _describe_scaling(self) -> str:
        sizes = self.sizes
        if not self.config.uses_x:
            return "as written (nothing is scaled)"
        if self.in_units_of_base:
            return f"in units of the base that the finder will find at the global batch of {sizes.global_batch}"
        batch = f"batch {sizes.batch_size} x {sizes.shards} shard{'s' if sizes.shards > 1 else ''}"
        if not self.config.scales:
            return f"as written (nothing is scaled), warmed up from the base {self.base:g}"
        if self.scaling == "none":
            return f"{self.base:g} at {batch} (not scaled)"
        reference = "" if self.config.reference_batch is None else f" for a batch of {self.reference_batch},"
        return f"{self.base:g}{reference} at {batch} ({self.scaling}) = {self.peak:g}"

    def fingerprint(self) -> str:
        """sha256 over the sizes and the values of `rows()`: equal plans, equal fingerprints."""
        values = [[t, self.lr(t), self.momentum(t)] for t in self.rows()]
        return hashlib.sha256(json.dumps([vars(self.sizes), values]).encode()).hexdigest()

    def rows(self) -> Iterator[int]:
        """The iterations worth a line: every one, or breakpoints and an even spread when there are too many."""
        total = self.sizes.num_iterations
        points = self.breakpoints()
        if total > MAX_CSV_ROWS:
            kept = points if len(points) <= MAX_CSV_ROWS // 2 else [1, total]
            spread = MAX_CSV_ROWS - len(kept)
            yield from sorted({*kept, *(1 + i * (total - 1) // (spread - 1) for i in range(spread))})
        else:
            yield from range(1, total + 1)

    def remarks(self) -> list[str]:
        """What is allowed and may still be a slip, a sentence each."""
        total = self.sizes.num_iterations
        if total > 1 and self.lr(total) > 2 * self.lr(total - 1):
            return [
                f"the last update, {total}, starts a new cycle: its learning rate is {self.lr(total):.4g}, after "
                f"{self.lr(total - 1):.4g}"
            ]
        return []

    def to_csv(self, momentum: float | None = None) -> str:
        """The plan as a table: iteration, epoch, lr, momentum.

        Args:
            momentum: the optimizer's own, for a plan without a momentum schedule.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["iteration", "epoch", "lr", "momentum"])
        for t in self.rows():
            planned = self.momentum(t)
            shown = momentum if planned is None else planned
            writer.writerow([t, self.sizes.epoch(t), repr(self.lr(t)), "" if shown is None else repr(shown)])
        return text.getvalue()

    def _build(self, source: str) -> None:
        problems: list[Problem] = []
        if not SMALLEST <= self.peak <= LARGEST:
            mend = "lower" if self.peak > LARGEST else "raise"
            problem = Problem(
                ("lr", "base"),
                f"{self.base:g} x factor {self.factor:g} = {self.peak:g} is not a valid learning rate: float32 holds "
                f"{SMALLEST:.2g} to {LARGEST:.2g}; {mend} it",
            )
            raise config_error(source, [problem])
        self._warmup_length = self._resolve_warmup(problems)
        prefix = self.config.warmup is not None and self.config.warmup.mode == "prefix"
        self._shift = self._warmup_length if prefix else 0
        self.own_values: dict[str, dict[int, float]] = {}
        self._build_schedules(problems)
        for check in (self._out_of_bounds, self._impure):
            for key in () if problems else ("schedule", "momentum"):
                with self._asking(key, problems):
                    problems += check(key)
        if problems:
            raise config_error(source, problems)

    @contextmanager
    def _asking(self, key: str, problems: list[Problem]) -> Iterator[None]:
        """Make a problem of `key` of what a schedule does that is built or asked."""
        try:
            yield
        except SpecError as error:
            problems += [Problem(("lr", key, *path), message) for path, message in error.problems]
        except ConfigError as error:  # from a schedule of the user's own
            problems.append(Problem(("lr", key), str(error)))
        except OverflowError:
            problems.append(Problem(("lr", key), f"is not a number everywhere at 1x = {self.peak:g}"))

    def _build_schedules(self, problems: list[Problem]) -> None:
        per_epoch, total = self.sizes.iterations_per_epoch, self.sizes.num_iterations
        span = total - self._shift
        with self._asking("schedule", problems):
            self._schedule = self.config.schedule.build(Frame(per_epoch, span, self.peak))
            problems += self._overlong("schedule", self._schedule, span)
        self._momentum = None
        if self.config.momentum is not None:
            with self._asking("momentum", problems):
                self._momentum = self.config.momentum.build(Frame(per_epoch, total, 1.0))
                problems += self._overlong("momentum", self._momentum, total)

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
        total = self.sizes.num_iterations
        length = round_position(warmup.length.iterations(self.sizes.iterations_per_epoch, total))
        if 1 <= length < total:
            return length
        relation = "longer than" if length > total else "as long as"
        message = (
            f"'{warmup.length}' ({length} iterations) is {relation} the run ({total} iterations); shorten the warm-up "
            "or make the run longer (train)"
            if length
            else f"'{warmup.length}' is less than half an iteration here ({total} in the run); lengthen the warm-up or "
            "remove lr.warmup"
        )
        problems.append(Problem(("lr", "warmup", "length"), message))
        return 0

    def _overlong(self, key: str, schedule: ScheduleLike, span: int) -> list[Problem]:
        length = end_of(schedule)
        if length is None or length <= span:
            return []
        spec = self.config.momentum if key == "momentum" and self.config.momentum else self.config.schedule
        warmup = self.sizes.num_iterations - span
        of_run = f"the run has {span}" + (f" after its warm-up of {warmup}" if warmup else "")
        what, unit = ("momentum", "") if key == "momentum" else ("LR", "x" if self.in_units_of_base else "")
        message = (
            f"takes {length} iterations but {of_run}; it would end at {what} {schedule(span):g}{unit} instead of "
            f"{schedule(length):g}{unit}; shorten the schedule or make the run longer (train)"
        )
        return [Problem(("lr", key, spec.name), message)]

    def _out_of_bounds(self, key: str) -> list[Problem]:
        """The first learning rate, or the first momentum, that no update could use.

        Between two breakpoints every schedule rises or falls throughout, so its extremes lie beside them; the rows are
        looked at as well, for schedules that know no breakpoints.
        """
        total = self.sizes.num_iterations
        beside = {t for b in self.breakpoints() for t in (b - 1, b, b + 1) if 1 <= t <= total}
        iterations = sorted(beside | set(self.rows()))
        if key == "momentum":
            wrong = next((t for t in iterations if not 0 <= (self.momentum(t) or 0.0) < BELOW_ONE), None)
            if wrong is None:
                return []
            found = (
                f"is {self.momentum(wrong):.9g} at iteration {wrong}; it must be at least 0 and below 1 (in float32)"
            )
            return [Problem(("lr", "momentum"), found)]
        wrong = next((t for t in iterations if not (SMALLEST <= self.lr(t) <= LARGEST or self.lr(t) == 0)), None)
        if wrong is None:
            return []
        rate = self.lr(wrong)
        found = f"the learning rate is {rate:g} at iteration {wrong}; "
        if 0 < rate < SMALLEST:
            found += f"float32, in which weights are updated, holds 0 and {SMALLEST:.2g} to {LARGEST:.2g}; give the "
            found += "schedule a floor (raised, floor_lr), or end it at 0"
        else:
            found += f"it must be at least 0 and a float32 (at most {LARGEST:.2g})"
        return [Problem(("lr",), found)]

    def _impure(self, key: str) -> list[Problem]:
        """What schedules of the user's own give otherwise when they are asked again."""
        own = own_schedules(self._schedule if key == "schedule" else self._momentum)
        found = [impurity(one) for one in own]
        for one in own:
            self.own_values.setdefault(one.name, {}).update(one.asked)
        return [Problem(("lr", key), problem) for problem in found if problem is not None]
