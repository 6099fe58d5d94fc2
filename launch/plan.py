#!/usr/bin/env python
"""Look at a configuration's learning rates before anything runs: needs neither mxnet nor horovod nor mpi4py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.config import RunConfig, load_config
from harness.data import count_samples
from harness.errors import HarnessError
from harness.finder import read_result, take_result
from harness.guard import report_failure
from harness.plan import LRPlan
from harness.report import plot_plan
from harness.sizes import Sizes, resolve_shards


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(
        prog="plan.py",
        description="Show the learning rate and momentum of every iteration of a run, before running it.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", default="configs/digits.yaml", metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting (repeatable)"
    )
    parser.add_argument("--np", type=int, default=1, metavar="N", help="number of workers (default: %(default)s)")
    parser.add_argument("--samples", type=int, metavar="N", help="number of training samples, instead of the data's")
    parser.add_argument(
        "--output", default="plans", metavar="DIR", help="folder for table and picture (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    for name in ("np", "samples"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: {value} is not possible; allowed: 1 or more")
    return options


def count_training_samples(config: RunConfig) -> tuple[int, str]:
    """The number of training samples, and where the number comes from."""
    data = config.data
    counts = count_samples(data.name, root=data.root, validation=data.validation, params=data.params)
    if counts.official:
        return counts.train, f"the published count of {data.name}, because its files are not here"
    return counts.train, f"counted in {data.root or data.name}"


def take_found_base(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The configuration with the number of a finder's result, if `lr.base` is the path of one."""
    base = config.lr.base
    if not isinstance(base, str) or base == "auto":
        return config, []
    return take_result(config, read_result(Path(base)), base)


def main() -> int:
    """Build the plan, print its breakpoints, write the table and the picture."""
    options = parse_arguments()
    try:
        config = load_config(options.config, options.set)
        config, notes = take_found_base(config)
        samples, origin = (options.samples, "as given") if options.samples else count_training_samples(config)
        shards = resolve_shards(config, options.np)
        sizes = Sizes.of(
            config.train, num_samples=samples, shards=shards, batch_size=config.batch.size, source=config.source
        )
        plan = LRPlan(config.lr, sizes, config.source)
    except HarnessError as error:
        return report_failure(error, rank=0)
    print(f"{config.run_name} on {options.np} worker{'s' if options.np > 1 else ''}: {samples} samples ({origin})")
    per_epoch = sizes.iterations_per_epoch
    print(
        f"iterations: {sizes.num_iterations}, {per_epoch} an epoch, {shards} shard{'s' if shards > 1 else ''} of "
        f"{sizes.batch_size}"
    )
    print(f"learning rate: {plan.describe()}")
    print(f"{'iteration':>10} {'epoch':>8} {'lr':>12} {'momentum':>10}")
    for t in plan.breakpoints():
        momentum = plan.momentum(t)
        shown = "" if momentum is None else f"{momentum:.4g}"
        print(f"{t:>10} {t / per_epoch:>8.2f} {plan.lr(t):>12.6g} {shown:>10}".rstrip())
    for remark in [*notes, *plan.remarks()]:
        print(f"note: {remark}")
    folder = Path(options.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table, picture = folder / f"{config.run_name}.csv", folder / f"{config.run_name}.png"
        table.write_text(plan.to_csv(config.optimizer.own_momentum), encoding="utf-8")
        plot_plan(plan, picture, config.run_name)
    except OSError as error:
        print(
            f"error: {error.filename or folder}: cannot be written ({error.strerror}); give another --output",
            file=sys.stderr,
        )
        return 2
    print(f"wrote {table} and {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
