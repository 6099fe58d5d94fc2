"""A hook of your own: a function that is told what happens in a run, and a YAML file that names it.

This one shows how each evaluation compares with the best before it, and asks for a checkpoint of every new best one.
Run it from the project folder:
python launch/train.py --config examples/own_hook.yaml
"""

from __future__ import annotations

from harness.hooks import Ask, Ended, Evaluated, Event, Opened

best: dict[str, float] = {}  # of the run that this process trains


def compare(event: Event, metric: str = "accuracy") -> Ask | None:
    """The function that `hooks: [{examples.own_hook:compare: {metric: accuracy}}]` calls.

    Args:
        event: what has happened.
        metric: the value to look at.

    Returns:
        What the run should do: save, or (None) nothing.
    """
    if isinstance(event, Opened):
        best.clear()
        print(f"hook: {event.name} begins after iteration {event.iteration}, highest rate {event.lr.max():.3g}")
    if isinstance(event, Ended):
        print(f"hook: ended with {event.outcome.exit_code}, best {metric} {best.get(metric, 0.0):.4f}")
    if not isinstance(event, Evaluated):
        return None
    value, before = event.lines[0].values[metric], best.get(metric, 0.0)
    print(f"hook: iteration {event.iteration}: {metric} {value:.4f} ({value - before:+.4f})")
    best[metric] = max(value, before)
    return Ask(save=value > before)
