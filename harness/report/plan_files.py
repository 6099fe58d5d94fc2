"""What a run's folder says of its plan: `config.yaml`, `plan.json`, `plan.csv` and `plan.png`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.config import RunConfig, dump_config
from harness.errors import ConfigError
from harness.files import replace_file
from harness.folder import (
    CURVE,
    MOST_PHASES,
    PLAN,
    AmendmentRecord,
    FactorGroup,
    Fields,
    Phase,
    PlannedSizes,
    PlanRecord,
    write_object,
)
from harness.plan import Amendment, LRPlan
from harness.report.plots import plot_plan


def write_plan(
    folder: Path,
    config: RunConfig,
    plan: LRPlan,
    amendments: Sequence[Amendment],
    factors: Sequence[FactorGroup] = (),
) -> None:
    """Write `config.yaml` (resolved), `plan.json`, `plan.csv` and `plan.png`.

    Args:
        folder: of the run.
        config: resolved.
        plan: of the run.
        amendments: what was changed in it on the way.
        factors: of groups of parameters, where not all are alike.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    phases = list(_phases(plan))
    record = PlanRecord(
        described=plan.describe(),
        sizes=PlannedSizes(**plan.sizes.to_json()),
        phases=phases[:MOST_PHASES],
        num_phases=len(phases),
        remarks=plan.remarks(),
        amendments=[AmendmentRecord.read(Fields(one.to_json())) for one in amendments],
        factors=factors,
    )
    try:
        replace_file(folder / "config.yaml", dump_config(config))
        write_object(folder / PLAN, record.to_json())
        replace_file(folder / CURVE, plan.to_csv(config.optimizer.own_momentum))
        plot_plan(plan, folder / "plan.png", title=config.run_name)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror or error}); free some disk space, or set output to another "
            f"folder"
        ) from None


def _phases(plan: LRPlan) -> Iterator[Phase]:
    """First and last iteration of every piece of the plan's formula, with the values there."""
    total = plan.sizes.num_iterations
    points = [t for t in plan.breakpoints() if t < total] or [1]
    starts = [t for t, following in zip(points, [*points[1:], total + 1], strict=True) if following > t + 1 or t == 1]
    for first, following in zip(starts, [*starts[1:], total + 1], strict=True):
        last = following - 1
        lr, momentum = (plan.lr(first), plan.lr(last)), (plan.momentum(first), plan.momentum(last))
        yield Phase(first, last, lr, momentum)
