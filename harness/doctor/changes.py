"""What it costs if the workers of an elastic job change, in words and as a table."""

from __future__ import annotations

import math

from harness.doctor.cost_model import JOIN_S, LOSS_S, PAUSE_S, RELAUNCH_S, Changes, Reduction, ranks_from
from harness.doctor.measure import UpdateCosts
from harness.units import ClockTime


def explain_changes(kind: str, changes: Changes, reduction: Reduction, update: UpdateCosts) -> list[str]:
    """The prediction, with its formulas and its assumptions.

    Args:
        kind: of the world that measured.
        changes: what it measured of them.
        reduction: of its sums.
        update: of its updates.
    """
    lines = [
        "If the workers of an elastic job change, or the whole job is restarted, nobody trains for",
        "",
        f"loss(p)    = {LOSS_S:.2f} s + meet(p-1) + connect(p-1) + give(p-1) + update(p)",
        f"leave(p)   = {LOSS_S:.2f} s + meet(p-1) + connect(p-1)",
        f"join(p)    = {JOIN_S:.2f} s + meet(p) + connect(p+1) + give(p+1)",
        f"restart(p) = {RELAUNCH_S:.2f} s (launch) + {PAUSE_S:.2f} s (pause) + {changes.start_s:.2f} s (start)"
        " + meet(p) + connect(p)",
        "",
        f"meet(p)    = 3 p^2 ask                            ask {1e3 * changes.ask_s:.3f} ms",
        f"connect(p) = 10 p (p - 1) ask + 4 (p - 1) pair    pair {1e3 * changes.pair_s:.3f} ms",
        f"give(p)    = ceil(log2 p) / {math.ceil(math.log2(changes.ranks)):d} state               "
        f"state {1e3 * changes.state_s:.2f} ms ({update.state_bytes / 1e6:.2f} MB)",
        "",
        " ranks    loss, s   leave, s    join, s   restart, s   repeated, s   loss/restart",
    ]
    alone_s = max(update.update_s - reduction.seconds(changes.ranks, update.summed_bytes), 0.0)
    for p in ranks_from(changes.ranks):
        update_s = alone_s + reduction.seconds(p, update.summed_bytes)
        lost, repeated_s = changes.seconds(p, update_s), _repeated_s(update.saved_every, update_s)
        cells = [f"{p:6d}", *(f"{cell:9.2f}" for cell in lost[:3]), f"{lost.restart_s:11.2f}"]
        cells += [f"{'everything' if repeated_s is None else format(repeated_s, '.2f'):>12}"]
        lines.append("  ".join([*cells, f"{lost.loss_s / (lost.restart_s + (repeated_s or 0.0)):13.2f}"]))
    lines += [
        "",
        "Measured here: ask (a question at a server that all ranks ask), pair (a connection), state (its transfer),",
        "start (imports, data, network, first update) and update. Not measured here: the other seconds, which are",
        "those of three workers on one machine (docs/doctor.md). The powers of p are counted in the programs; more",
        "than eight workers were not tried.",
        "Assumptions: the launcher's server answers as fast as the one measured, meet is one look of each worker at",
        "all others, a lost host is noticed at once, all hosts start processes at once, and a checkpoint is read in no",
        "time. What a restart repeats is half of what lies between two checkpoints (checkpoint.every). A job that is",
        "not elastic, and sums by MPI, restarts without meet and connect.",
    ]
    if kind.startswith("mpi"):
        lines.append("These ranks sum by MPI, those of an elastic job by Horovod: --set comm=horovod measures that.")
    return lines


def _repeated_s(saved_every: int | ClockTime | None, update_s: float) -> float | None:
    """What a restart repeats on the average, in seconds; `None` for everything."""
    if saved_every is None:
        return None
    return saved_every.seconds / 2 if isinstance(saved_every, ClockTime) else saved_every / 2 * update_s
