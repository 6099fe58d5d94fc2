"""What the evaluations of a run decide: lower learning rates on a plateau, and an early end.

All ranks hold the same values and decide the same from them. A decision is an amendment of the plan, which checkpoints
keep: a run that resumes has it, and what it remembers of evaluations, and decides as if it had not been interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from harness.config.lr import PlateauConfig
from harness.errors import ConfigError
from harness.folder import MetricsLine
from harness.gluon import Learner
from harness.plan import Cut, EarlyStop, Judgement, PlateauCut, PlateauRule, StopRule, Trend
from harness.plan.trends import LEAST_CUT
from harness.train.plan_files import write_plan_of
from harness.train.run import Run
from harness.train.state import RunState, is_due


class Decided(NamedTuple):
    """A run and its state after an evaluation.

    Attributes:
        run: by its new plan.
        state: with what was decided, and what is remembered.
        told: what the user is told, a line each.
        events: the same for `metrics.jsonl`.
    """

    run: Run
    state: RunState
    told: tuple[str, ...] = ()
    events: tuple[MetricsLine, ...] = ()

    def with_event(self, amendment: Judgement, said: str) -> Decided:
        """With one more decision."""
        content = {name: value for name, value in amendment.to_json().items() if isinstance(value, int | float)}
        del content["iteration"]
        event = MetricsLine(amendment.choice, amendment.iteration, None, None, None, content)
        return self._replace(told=(*self.told, _sentence(amendment, said)), events=(*self.events, event))


class Decisions:
    """Decides by `lr.plateau` and `train.early_stop`, after each evaluation that is due by `evaluation.every`."""

    def __init__(
        self, run: Run, learner: Learner, record: Callable[[MetricsLine], None], warn: Callable[[str], None]
    ) -> None:
        """Make the rules.

        Args:
            run: what is trained.
            learner: of the run.
            record: writes a line of metrics.
            warn: shows a line to the user.
        """
        self._learner, self._record, self._warn = learner, record, warn
        every, config = run.config.evaluation.every, run.config
        self._every = None if every is None else max(1, run.sizes.iterations(every))
        self._plateau, self._plateau_rule, self._stop_rule = config.lr.plateau, None, None
        self._monitors = dict(config.monitors)
        if config.lr.plateau is not None:
            self._plateau_rule = _plateau_rule(config.lr.plateau, run.directions["lr.plateau.monitor"])
        if config.train.early_stop is not None:
            stop = config.train.early_stop
            self._stop_rule = StopRule(run.directions["train.early_stop.monitor"], stop.patience, stop.min_delta)

    def is_over(self, state: RunState) -> bool:
        """Whether the run has stopped early at this state, by what the configuration says now.

        A run that resumes may have been given more patience, or none of it: then it trains on.
        """
        trend, rule = state.early_stop, self._stop_rule
        return rule is not None and trend is not None and state.stops_early and rule.holds(trend)

    def tell_if_over(self, run: Run) -> None:
        """Tell the user of a run that resumes where it had stopped early."""
        state = run.initial_state
        if self.is_over(state):
            self._warn(
                f"this run has stopped early after iteration {state.iteration}, and train.early_stop still says so; to "
                "train on, raise its patience or remove it (--set train.early_stop=null), with --on-conflict config"
            )

    def after(self, run: Run, state: RunState, values: Mapping[str, float], split: str) -> Decided:
        """What an evaluation decides; pure, so that it counts only once `tell` was called.

        Args:
            run: by its plan of now.
            state: after the update that was evaluated.
            values: of the first held-out split, by name.
            split: its name.
        """
        decided = Decided(run, state)
        if not is_due(state.iteration, self._every):
            return decided  # the one after the last update, which a longer run would not have made
        return self._judge_stop(self._judge_plateau(decided, values, split), values, split)

    def tell(self, decided: Decided) -> None:
        """Tell the user of decisions, and write them down; a collective."""
        if not decided.told:
            return
        write_plan_of(decided.run, decided.state, self._learner, "decision.plan")
        for line, event in zip(decided.told, decided.events, strict=False):
            self._warn(line)
            self._record(event)
        for line in decided.told[len(decided.events) :]:
            self._warn(line)

    def _judge_plateau(self, decided: Decided, values: Mapping[str, float], split: str) -> Decided:
        rule, settings, (run, state) = self._plateau_rule, self._plateau, decided[:2]
        if rule is None or settings is None:
            return decided
        t, trend = state.iteration, self._trend(state.plateau, "lr.plateau.monitor", split)
        trend, is_cut = rule.judge(trend, self._value(values, "lr.plateau.monitor"), t)
        if not is_cut:
            return decided._replace(state=replace(state, plateau=trend))

        # What would lower the rate by next to nothing is left out, as is what would leave no plan.
        state = replace(state, plateau=rule.after_cut(trend))
        cut, lr = Cut(t, settings.factor, _floor(settings, run)), run.plan.lr(t)
        if lr - cut(lr) <= LEAST_CUT:
            return decided._replace(state=state)
        amendment = PlateauCut(*_judgement(trend, t), lr_factor=cut.factor, min_lr=cut.floor)
        amended = state.amended(amendment)
        try:
            run = run.amended(amended)
        except ConfigError as error:
            said = _sentence(amendment, f"learning rates stay as they are, because {error}")
            return Decided(run, state, (said,))
        floor = f" (at least {cut.floor:g})" if cut.floor else ""
        said = f"learning rates x {cut.factor:g}{floor} from here"
        return Decided(run, amended).with_event(amendment, said)

    def _judge_stop(self, decided: Decided, values: Mapping[str, float], split: str) -> Decided:
        rule, state = self._stop_rule, decided.state
        if rule is None:
            return decided
        trend = self._trend(state.early_stop, "train.early_stop.monitor", split)
        trend, stops = rule.judge(trend, self._value(values, "train.early_stop.monitor"), state.iteration)
        decided = decided._replace(state=replace(state, early_stop=trend))
        if not stops:
            return decided
        amendment = EarlyStop(*_judgement(trend, state.iteration))
        decided = decided._replace(state=decided.state.amended(amendment))
        return decided.with_event(amendment, "the run ends here (train.early_stop)")

    def _trend(self, trend: Trend | None, key: str, split: str) -> Trend:
        """What is remembered, unless it is of another value."""
        monitor = f"{split}.{self._monitors[key]}"
        return Trend(monitor) if trend is None or trend.monitor != monitor else trend

    def _value(self, values: Mapping[str, float], key: str) -> float:
        monitor = self._monitors[key]
        if monitor not in values:
            raise ConfigError(f"{key}: {monitor!r} is not reported; choose one of {', '.join(values)}").on_all_ranks()
        return values[monitor]


def _plateau_rule(settings: PlateauConfig, direction: str) -> PlateauRule:
    is_relative = settings.threshold_mode == "rel"
    return PlateauRule(direction, settings.patience, settings.threshold, is_relative, settings.cooldown)


def _floor(settings: PlateauConfig, run: Run) -> float:
    """`min_lr` as a number."""
    floor = settings.min_lr
    return float(floor[:-1]) * run.plan.peak if isinstance(floor, str) else floor


def _judgement(trend: Trend, t: int) -> tuple[int, str, int, int, float | None]:
    best = None if trend.best is None or abs(trend.best) == float("inf") else trend.best
    return t, trend.monitor, trend.since, trend.best_at, best


def _sentence(amendment: Judgement, said: str) -> str:
    since = f"{amendment.evaluations} evaluation{'' if amendment.evaluations == 1 else 's'}"
    best = "" if amendment.best is None else f"{amendment.best:.6g} "
    at = f" (best {best}after iteration {amendment.best_at})" if amendment.best_at else ""
    return f"iteration {amendment.iteration}: {amendment.monitor} has not improved in {since}{at}; {said}"
