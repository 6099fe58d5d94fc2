"""Training from top to bottom: for each iteration ask, update, log, verify, evaluate, save. And evaluation alone.

Every rank runs all of it; what only rank 0 does (files, the terminal) happens inside the parts that are called here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from harness.checkpoint import NONE_REPLACED
from harness.data import BatchStream, GlobalBatch
from harness.errors import ConfigError, DataError, DivergedError, listed
from harness.gluon import Learner, Requests
from harness.guard import ConsistencyCheck
from harness.plan.decided import describe_decisions
from harness.report import Progress, reported
from harness.train.beginning import (
    find_base_of,
    offer,
    open_metrics,
    open_run_folder,
    record_beginning,
    unread_lines,
)
from harness.train.build import build_learner
from harness.train.changes import asked, end_if_asked, settled, world_may_end
from harness.train.decisions import Decided, Decisions
from harness.train.divergence import Divergence
from harness.train.hooks import raise_failure, tell_attempt, told_at_the_end, with_hooks
from harness.train.input import InputWatch
from harness.train.log import TrainingLog, replaced_in_words
from harness.train.opening import continuing, factors_in_words, opening
from harness.train.plan_files import factors_of, write_plan_of
from harness.train.replaced import ReplacedSamples
from harness.train.run import Run
from harness.train.saving import Saver, verify
from harness.train.standing import Standing, Update, WorldChangedError
from harness.train.state import RunState, is_due
from harness.train.tokens import refuse_other_tokens
from harness.units import Duration


def train(run: Run, log_level: str = "info") -> dict[str, float]:
    """Train from the first iteration, or the one after the checkpoint that the run resumes from, to the last.

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
    # The learner comes before the folder: what cannot be imported, built or restored leaves nothing behind.
    run = with_hooks(run)
    return train_here(Standing(run, run.initial_state), build_learner(run), log_level)


def train_here(
    at: Standing, learner: Learner, log_level: str, change: WorldChangedError | None = None
) -> dict[str, float]:
    """Train from where a run stands, as long as its world lasts.

    Args:
        at: where it stands; kept up to date.
        learner: with the state of that.
        log_level: see `train`.
        change: what has ended the world before; `None` in the first one.

    Raises:
        WorldChangedError: if this world has ended, and another one can go on.
        HarnessError: on every rank, whatever rank it began on.
    """
    run = at.run
    world, folder = run.world, run.folder.path
    with ExitStack() as stack:
        # From here on the folder is this attempt's, and whatever ends the run is told there.
        stack.enter_context(world_may_end(run))
        run.guard.defer_stops()
        run.guard.enter("the run's folder", "first")
        stack.callback(run.folder.close)  # also where it could not be opened: the lock of its name may be held by then
        notes = world.on_root("folder", lambda: open_run_folder(at))
        at.is_open = True
        start = record_beginning(at, change)
        stack.enter_context(told_at_the_end(run.hooks))
        stack.enter_context(reported(folder, world.rank))
        stack.enter_context(world_may_end(run))
        stack.enter_context(run.guard.explained())

        # With `lr.base: auto` the plan is in units of a base that nobody knows yet.
        if run.plan.in_units_of_base:
            run, remarks = find_base_of(run, learner)
            notes += remarks
            at.run = run
        offer(run)
        factors = factors_of(run, learner)
        if not at.is_planned:
            write_plan_of(run, run.initial_state, learner)
            at.is_planned = True

        # The saver is closed first, and with it the thread that still writes a checkpoint; the metrics last.
        begun, may_draw = at.begins_after, world.size == 1
        metrics = open_metrics(run, begun, stack)
        progress = Progress(run.sizes.num_iterations, world.rank, begun, log_level, may_draw=may_draw)
        stack.enter_context(progress)
        for line in unread_lines(run, metrics):
            progress.warn(line)
        check = ConsistencyCheck(world, learner)
        saver = stack.enter_context(Saver(run, learner, check, metrics, progress.warn, at.saved))
        log = TrainingLog(progress, saver.record)
        if change is None:
            for line in [opening(run), *describe_decisions(run.config, run.sizes)]:
                progress.say(line)
            if factors:
                progress.say(factors_in_words(factors))
            for line in [*run.world.remarks, *run.remarks, *learner.remarks, *run.plan.remarks(), *notes]:
                progress.warn(line)
        else:
            progress.say(continuing(run, at.state, change.reason))
        tell_attempt(run, start, at.state.iteration, change, progress.warn)

        run.timing.say = progress.say
        stack.callback(run.timing.close)
        learner.time_by(run.timing)
        ended = _iterate(at, learner, stack.enter_context(run.stream()), check, saver, log)
        world.on_root("final weights", lambda: learner.save_weights(folder / "final.params"))
        if run.config.average is not None and learner.has_average:
            averaged = folder / f"final_{run.config.average[0]}.params"
            with learner.averaged():
                world.on_root("final average", lambda: learner.save_weights(averaged))
        total = run.sizes.num_iterations
        early = "" if ended.iteration == total else f" of {total}"
        early += "" if ended.iteration == run.last else ", stopped early"
        progress.say(f"{folder}: done after {ended.iteration} iterations{early}, digest {learner.digest()}")
    return log.results


def _iterate(
    at: Standing, learner: Learner, stream: BatchStream, check: ConsistencyCheck, saver: Saver, log: TrainingLog
) -> RunState:
    """All updates that are left, from top to bottom, and what is due after each; returns the state at the end."""
    run, state, update, first = at.run, at.state, at.update, at.state.iteration + 1
    config, guard, total = run.config, run.guard, run.sizes.num_iterations
    divergence = Divergence(run, learner, saver, log.warn, is_beginning=at.is_beginning)
    log_every, verify_every = _iterations(run, config.log.every), _iterations(run, config.guard.verify_every)
    evaluate_every = None if config.evaluation.every is None else _iterations(run, config.evaluation.every)
    replaced, watch = ReplacedSamples(run.world, config), InputWatch(stream, learner, partial(log.waited, run))
    decisions = Decisions(run, learner, saver.record, log.warn)
    evaluation = partial(_evaluate, learner=learner, stream=stream, log=log, decisions=decisions)

    decisions.tell_if_over(run)
    if state.evaluation_due:
        run, state = _evaluate_what_was_left(run, state, saver, evaluation)

    # What is due after an update of a world before is done again.
    while update is not None or (state.iteration < run.last and not decisions.is_over(state)):
        t = state.iteration + (update is None)
        try:
            if update is None:
                guard.enter(f"iteration {t}", "first" if t == first else "update")
                run.timing.begin(t)
                with watch.update(t):
                    batch = stream(t)
                    update = _update(run, learner, batch, asked(run, saver))
                log.count(run, t)
                replaced.note(batch.replaced, t)
                state = at.made(run, replace(state, iteration=t), update, saver.saved)
            done, update = update, None
            requests = settled(run, done.requests)

            # Log the first, the last and every so many; this is where rank 0 waits for the device.
            if done.is_skipped:
                state = divergence.skipped(run, state)
            elif done.is_weightless:
                state = replace(state, weightless=state.weightless + 1)
                log.weightless(run, t)
            elif is_due(t, log_every, run.last) or t == 1:
                log.updated(run, learner, t, done.loss)

            # Verify now and then that the ranks still hold the same bits; every checkpoint is verified as well.
            if is_due(t, verify_every):
                verify(check, run, t)

            if is_due(t, run.order.iterations_per_epoch, run.last):
                state = _after_epoch(run, learner, state, replaced, log)

            # Evaluate, unless the run has to stop: whoever asked for that has no time for it, so it is left for later.
            if t == total:
                learner.check_weights(t)  # no update follows that would notice weights that are not finite
            if is_due(t, evaluate_every, total):
                state = replace(state, evaluation_due=True)
                if not requests.stop:
                    run, state = evaluation(run, state)

            # Save after the evaluation, of which the checkpoint may be the best; and before the run stops.
            if saver.is_due(state, requests):
                state = replaced.into(state)
                saver.save(run, state)
            end_if_asked(at, run, state, requests, saver)
        except DivergedError as error:
            # Not finite: with `rewind` back to the newest checkpoint, on lower rates; otherwise this is the end.
            run, state = divergence.answer(run, state, t, error)
            replaced.forget()
            if state.evaluation_due:  # after the iteration that it went back to, whose checkpoint was told to stop
                run, state = _evaluate_what_was_left(run, state, saver, evaluation)

    run.timing.end()
    guard.enter("the end", "evaluation")
    verify(check, run, state.iteration)
    saver.wait_until_written()
    raise_failure(run)
    return state


def _update(run: Run, learner: Learner, batch: GlobalBatch, ask: Requests) -> Update:
    """Do an update with the rates that the plan gives to its iteration.

    Args:
        run: by its plan of now.
        learner: of the run.
        batch: this rank's shards of the global batch.
        ask: a signal reaches one rank, and only rank 0 has a clock and a disk: what a rank wants travels with its
            gradients, and all ranks act on it after this same update.
    """
    t, counted = batch.t, (learner.skipped, learner.weightless)
    loss = learner.update(batch, run.plan.lr(t), run.plan.momentum(t), ask)
    if run.config.train.tokens_per_sample is not None:
        refuse_other_tokens(run, t, loss.weight)
    return Update.of(learner, loss, counted)


def _after_epoch(run: Run, learner: Learner, state: RunState, replaced: ReplacedSamples, log: TrainingLog) -> RunState:
    """Tell by its digest what the run is, and which damaged samples others have replaced."""
    t = state.iteration
    learner.gather_state()  # that shards of other ranks carry
    log.digest(run, t, learner.digest())
    state = replaced.into(state)
    log.replaced(run, t, f"epoch {run.order.epoch(t)}", state.replaced)
    return replace(state, replaced=state.replaced.after_epoch())


def _evaluate_what_was_left(
    run: Run, state: RunState, saver: Saver, evaluation: Callable[[Run, RunState], tuple[Run, RunState]]
) -> tuple[Run, RunState]:
    """The evaluation before which the attempt that saved the checkpoint was stopped."""
    run, state = evaluation(run, state)
    if state.evaluation_due:
        raise run.guard.stopped(f"iteration {state.iteration} is saved; {run.once_more}")
    if saver.is_due(state, Requests()):
        saver.save(run, state)
    return run, state


def _evaluate(
    run: Run, state: RunState, *, learner: Learner, stream: BatchStream, log: TrainingLog, decisions: Decisions
) -> tuple[Run, RunState]:
    """Evaluate on the first held-out split, after the last update on all of them.

    Returns:
        The run by the plan that the evaluation decided; the state with that, and with the best evaluation so far. With
        its evaluation still due, and nothing decided, if any rank was told to stop.
    """
    t, held_out, best = state.iteration, run.data.held_out, run.config.checkpoint.best
    run.timing.enter("evaluation")
    found: dict[str, dict[str, float]] = {}
    decided = Decided(run, replace(state, evaluation_due=False))
    if not run.recompute_statistics(learner, stream):
        return run, state
    for split in held_out:
        noted = ReplacedSamples(run.world, run.config)
        values = run.evaluate(learner, split, noted.watch)
        if values is None:
            return run, state
        found[split] = values
        log.replaced(run, t, f"evaluation on {split}", noted.put_together(NONE_REPLACED))
        if run.config.average is not None and run.evaluates_average_beside and learner.has_average:
            averaged = run.evaluate(learner, split, averaged=True)
            if averaged is None:
                return run, state
            found[f"{split}_{run.config.average[0]}"] = averaged
        if split == held_out[0]:
            decided = decisions.after(*decided[:2], values, split)
            if t < run.sizes.num_iterations and not decided.state.stops_early:
                break
    log.evaluated(run, t, found)
    decisions.tell(decided)
    run, state = decided[:2]
    if state.stops_early:
        learner.check_weights(t)
    if best is None:
        return run, state
    values = found[held_out[0]]
    if best not in values:
        raise ConfigError(
            f"checkpoint.best: {best!r} is not reported; choose one of {', '.join(values)}"
        ).on_all_ranks()
    return run, state.judged(f"{held_out[0]}.{best}", values[best], run.directions["checkpoint.best"])


def evaluate_only(run: Run) -> dict[str, float]:
    """Evaluate the weights in `init.from` on every held-out split; writes nothing."""
    held_out = run.data.held_out
    if run.config.init.from_ is None:
        raise ConfigError("init.from: there are no weights to evaluate; give a file").on_all_ranks()
    if not held_out:
        name = run.config.data.name
        raise DataError(f"data.name: {name!r} has neither a validation nor a test split to evaluate on").on_all_ranks()
    learner = build_learner(run, policy="all")  # weights that are fresh say nothing
    if run.world.rank == 0:
        counts = ", ".join(f"{len(getattr(run.data.splits, split))} {split}" for split in held_out)
        print(f"{run.config.init.from_} on {run.config.data.name} ({counts} samples):", flush=True)
    run.guard.defer_stops()
    results: dict[str, float] = {}
    for split in held_out:
        noted = ReplacedSamples(run.world, run.config)
        values = run.evaluate(learner, split, noted.watch)
        if values is None:
            raise run.guard.stopped("nothing was changed; start it again")
        replaced = noted.put_together(NONE_REPLACED)
        results.update({f"{split}.{name}": value for name, value in values.items()})
        if run.world.rank == 0:
            print(f"{split}: " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()), flush=True)
            if replaced:
                print(replaced_in_words(split, replaced) + listed(replaced.first, of=replaced.count), flush=True)
    return results


def _iterations(run: Run, every: Duration) -> int:
    """A setting such as `log.every` in iterations, at least 1."""
    return max(1, run.sizes.iterations(every))
