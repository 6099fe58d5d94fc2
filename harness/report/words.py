"""Describes the state and result of a run in words."""

from __future__ import annotations

from harness.errors import DivergedError, StoppedOnRequestError
from harness.folder import seen
from harness.report.pages import number
from harness.report.record import RunRecord

_MOST_VALUES = 6  # of an evaluation in one sentence; a table has all
_SENTENCE = 1500
_CAUSE = 500  # characters of a cause in a sentence


def state_of(record: RunRecord) -> str:
    """The state of a run, in a word or two."""
    if record.ending is None:
        return "ended, cause unreadable" if record.has_lost_ending else "running, or killed"
    code = record.ending.exit_code
    known = {0: "done", DivergedError.exit_code: "diverged", StoppedOnRequestError.exit_code: "stopped on request"}
    return known.get(code, f"ended with {code}")


def sentence_of(record: RunRecord) -> str:
    """The result of a run in one sentence."""
    return seen(f"{record.name} {_what_it_is(record)}; {_what_it_reached(record)}.", _SENTENCE)


def results_of(record: RunRecord) -> dict[str, dict[str, tuple[int, float]]]:
    """Iteration and value of the last evaluation, by split and metric."""
    return {
        split: {name: (int(x[-1]), float(y[-1])) for name, (x, y) in found.items()}
        for split, found in record.metrics.evaluations.items()
    }


def _what_it_is(record: RunRecord) -> str:
    last, total, per_epoch = record.last_iteration, record.num_iterations, record.iterations_per_epoch
    where = f"iteration {last}" + (f" of {total}" if total else "")
    if record.has_lost_ending:
        return f"ended after {where} or later, but the record of its end cannot be read"
    if record.ending is None:
        return f"is running, or was killed after {where} or later"
    code, cause = record.ending.exit_code, seen(record.ending.cause.split("\n", 1)[0], _CAUSE).rstrip(".")
    if code == 0 and record.stopped_early_at == last and total:
        return f"stopped early after {last} of {total} iterations"
    if code == 0 and record.unread.parts and total and last < total:
        return f"is done; its readable records end at iteration {last} of {total}"
    if code == 0:
        return f"is done after {last} iterations" + (f" ({last / per_epoch:.3g} epochs)" if per_epoch else "")
    if code == StoppedOnRequestError.exit_code:
        return f"was stopped on request after {where} and can be resumed with --resume auto"
    if code == DivergedError.exit_code:
        return f"diverged after {where} ({cause})"
    return f"ended after {where} with exit code {code} ({cause})"


def _what_it_reached(record: RunRecord) -> str:
    results = results_of(record)
    if not results:
        losses = record.metrics.training["loss"]
        return f"its training loss was {number(float(losses[-1]))}" if losses.size else "nothing was measured"
    split = "test" if "test" in results else next(iter(results))
    found = [f"{name} {number(value)}" for name, (_, value) in results[split].items()]
    left = len(found) - _MOST_VALUES
    values = " and ".join([*found[:_MOST_VALUES], *([f"{left} more values"] if left > 0 else [])])
    at = max(t for t, _ in results[split].values())
    return f"{values} on {split}" + ("" if at == record.last_iteration else f" at iteration {at}")
