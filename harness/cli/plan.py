"""Preview a configuration's learning rates; needs neither mxnet nor horovod nor mpi4py."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness.command import add_config_options, report_failure
from harness.config import RunConfig, load_config
from harness.config.pictures import picture_request
from harness.data import Functions, GroupBy, count_samples, load
from harness.errors import ConfigError, DataError, HarnessError
from harness.finder import read_result, take_result
from harness.plan import LRPlan, Sizes, imbalance, resolve_shards
from harness.plan.decided import describe_decisions
from harness.plan.explaining import explain
from harness.plan.layers import describe_factors
from harness.report import NamedPlan, first_difference, plot_plan, plot_plans, table_of_plans
from harness.units import Duration


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(
        description="Show the learning rate and momentum of every iteration of a run, before running it.",
        allow_abbrev=False,
    )
    add_config_options(parser, "override a setting of --config (repeatable); does not affect --against")
    parser.add_argument(
        "--np",
        type=int,
        nargs="+",
        default=[1],
        metavar="N",
        help="number of workers (default: 1); several numbers share one picture",
    )
    parser.add_argument(
        "--against", metavar="FILE|NAME", help="another configuration: draw both, and say where they first differ"
    )
    parser.add_argument(
        "--explain",
        metavar="LENGTH",
        help="say how the learning rate after a length (3ep, 500it, 10%%) comes about, and write nothing",
    )
    parser.add_argument(
        "--samples", type=int, metavar="N", help="number of training samples, instead of counting the data"
    )
    parser.add_argument(
        "--output", default="plans", metavar="DIR", help="folder for table and picture (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    for name, values in (("np", options.np), ("samples", [options.samples])):
        for value in values:
            if value is not None and value < 1:
                parser.error(f"--{name}: {value} is not possible; allowed: 1 or more")
    if len(set(options.np)) < len(options.np):
        parser.error("--np: a number appears twice; give each once")
    if options.against is not None and len(options.np) > 1:
        parser.error("--against compares two plans for one number of workers; give --np one number")
    if options.explain is not None:
        try:
            options.explain = Duration.parse(options.explain)
        except ValueError as error:
            parser.error(f"--explain: {error}")
        if options.against is not None or len(options.np) > 1:
            parser.error("--explain is of one plan; leave out --against, and give --np one number")
    return options


class Setup(NamedTuple):
    """A configuration with everything that its plan needs.

    Attributes:
        config: the configuration; its base is a number unless the finder still has to find it.
        samples: the number of training samples.
        origin: where that number comes from.
        notes: remarks from reading a finder's result.
    """

    config: RunConfig
    samples: int
    origin: str
    notes: list[str]

    @classmethod
    def read(cls, path: str, overrides: list[str], samples: int | None) -> Setup:
        """Read a configuration, and count its samples unless their number is given."""
        config, notes = take_found_base(load_config(path, overrides))
        if samples and config.data.batches is not None:
            raise ConfigError(
                f"--samples: has no effect with data.batches ({config.data.batches}), which is asked for the batches "
                "of the data; leave it out"
            ).found_in(config.source)
        return cls(config, *((samples, "as given") if samples else count_training_samples(config)), notes)

    def plan(self, workers: int) -> LRPlan:
        """The plan of so many workers."""
        config = self.config
        shards = resolve_shards(config, workers)
        sizes = Sizes.of(
            config.train,
            num_samples=self.samples,
            shards=shards,
            batch_size=config.batch.size,
            num_batches=count_batches(config, shards),
            source=config.source,
        )
        return LRPlan(config.lr, sizes, config.source)


def count_training_samples(config: RunConfig) -> tuple[int, str]:
    """The number of training samples, and where the number comes from."""
    data = config.data
    try:
        functions = Functions.of(data.transform, data.collate) if ":" in data.name else Functions()
        counts = count_samples(
            data.name,
            root=data.root,
            validation=data.validation,
            params=data.params,
            functions=functions,
            pictures=picture_request(data),
        )
    except (ConfigError, DataError) as error:
        error.found_in(config.source)
        raise
    if counts.official:
        return counts.train, f"the published count of {data.name}, because its files are not here"
    return counts.train, f"counted in {data.root or data.name}"


def count_batches(config: RunConfig, shards: int) -> int | None:
    """The number of global batches in an epoch where `data.batches` says which they are, for which the data is read."""
    data = config.data
    if data.batches is None:
        return None
    try:
        group_by = GroupBy.of(None if data.bucket is None else data.bucket.model_dump(), data.batches)
        splits = load(
            data.name,
            root=data.root,
            validation=data.validation,
            params=data.params,
            seed=config.seed,
            labels_are_numbers=True,
            functions=Functions.of(data.transform, data.collate),
            pictures=picture_request(data),
        )
        assert group_by is not None
        grouping = group_by.make(group_by.length(splits.train), shards * config.batch.size)
    except (ConfigError, DataError) as error:
        error.found_in(config.source)
        raise
    return grouping.num_batches


def take_found_base(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The configuration with the number of a finder's result, if `lr.base` is the path of one."""
    base = config.lr.base
    if not isinstance(base, str) or base == "auto":
        return config, []
    return take_result(config, read_result(Path(base)), base)


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Create a folder, and turn errors from writing files there into one with advice.

    Raises:
        ConfigError: if the folder cannot be created, or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written ({error.strerror}); choose another --output"
        ) from None


def show_plan(setup: Setup, workers: int, folder: Path) -> str:
    """Print the breakpoints of one plan; write its table and picture, and return their names."""
    plan, name = setup.plan(workers), setup.config.run_name
    sizes = plan.sizes
    print(f"{name} on {workers} worker{'s' if workers > 1 else ''}: {setup.samples} samples ({setup.origin})")
    per_epoch = sizes.iterations_per_epoch
    print(
        f"iterations: {sizes.num_iterations}, {per_epoch} per epoch, {sizes.shards} shard"
        f"{'s' if sizes.shards > 1 else ''} of {sizes.batch_size}"
    )
    print(f"learning rate: {plan.describe()}")
    for line in describe_factors(setup.config.optimizer):
        print(line)
    print(f"{'iteration':>10} {'epoch':>8} {'lr':>12} {'momentum':>10}")
    for t in plan.breakpoints():
        momentum = plan.momentum(t)
        shown = "" if momentum is None else f"{momentum:.4g}"
        print(f"{t:>10} {t / per_epoch:>8.2f} {plan.lr(t):>12.6g} {shown:>10}".rstrip())
    decided = describe_decisions(setup.config, sizes)
    for remark in [*setup.notes, *decided, *plan.remarks(), *imbalance(sizes.shards, workers)]:
        print(f"note: {remark}")
    table, picture = folder / f"{name}.csv", folder / f"{name}.png"
    with writing_into(folder):
        table.write_text(plan.to_csv(setup.config.optimizer.own_momentum), encoding="utf-8")
        plot_plan(plan, picture, name)
    return f"{table} and {picture}"


def show_world_sizes(setup: Setup, world_sizes: list[int], folder: Path) -> str:
    """Print a table of plans for several worker counts; write their picture, and return its name."""
    name, own_momentum = setup.config.run_name, setup.config.optimizer.own_momentum
    plans = [NamedPlan(str(workers), setup.plan(workers), own_momentum) for workers in world_sizes]
    print(f"{name}: {setup.samples} samples ({setup.origin}), {setup.config.batch.size} a shard")
    print("\n".join([*table_of_plans(plans, "np"), *describe_factors(setup.config.optimizer)]))
    notes = list(setup.notes)
    for workers, named in zip(world_sizes, plans, strict=True):
        remarks = [*describe_decisions(setup.config, named.plan.sizes), *named.plan.remarks()]
        notes += [f"np {workers}: {remark}" for remark in remarks]
        notes += imbalance(named.plan.sizes.shards, workers)
    for note in notes:
        print(f"note: {note}")
    picture = folder / f"{name}-np-{'-'.join(map(str, world_sizes))}.png"
    legend = [replace(named, name=f"np {named.name}, peak {named.peak}") for named in plans]
    with writing_into(folder):
        plot_plans(legend, picture, name)
    return str(picture)


def show_against(setup: Setup, other: Setup, workers: int, folder: Path) -> str:
    """Print a table of two plans and where they first differ; write their picture, and return its name.

    Raises:
        ConfigError: if only one of the plans is in units of a base that is not found yet.
    """
    sides = {"config": setup, "against": other}
    plans = [NamedPlan(side, one.plan(workers), one.config.optimizer.own_momentum) for side, one in sides.items()]
    if plans[0].plan.in_units_of_base != plans[1].plan.in_units_of_base:
        raise ConfigError(
            "lr.base: one of the two plans is in units of a base that the finder has yet to find "
            "(lr.base: auto), and the other is not; give both a number, or both auto"
        ).found_in(other.config.source)
    for side, one in sides.items():
        print(f"{side}: {one.config.source}, {one.samples} samples ({one.origin})")
    print("\n".join(table_of_plans(plans, "plan")))
    first = first_difference(*plans)
    if first is None:
        print(f"equal for the entire run, {plans[0].num_iterations} iterations")
    else:
        print(f"first difference: iteration {first}")
        for named in plans:
            print(f"{named.name:<7}  {named.describe(first)}")
    for side, one, named in zip(sides, sides.values(), plans, strict=True):
        for line in describe_factors(one.config.optimizer):
            print(f"{side}: {line}")
        for remark in [*one.notes, *describe_decisions(one.config, named.plan.sizes), *named.plan.remarks()]:
            print(f"note: {side}: {remark}")
    names = setup.config.run_name, f"against {other.config.run_name}"
    picture = folder / f"{'-'.join(names).replace(' ', '-')}.png"
    legend = [replace(named, name=f"{name}, peak {named.peak}") for name, named in zip(names, plans, strict=True)]
    with writing_into(folder):
        plot_plans(legend, picture, " ".join(names))
    return str(picture)


def explain_plan(setup: Setup, workers: int, moment: Duration) -> list[str]:
    """How the learning rate of one iteration comes about, a line for each term.

    Raises:
        ConfigError: for a moment after the run, or in units that are not known.
    """
    plan = setup.plan(workers)
    try:
        t = plan.sizes.iterations(moment)
    except ValueError as error:
        raise ConfigError(f"--explain: {error}") from None
    total = plan.sizes.num_iterations
    if t > total:
        raise ConfigError(f"--explain: '{moment}' is iteration {t}, but the run has {total}; give an earlier moment")
    return explain(plan, t)


def main() -> int:
    """Build the plans, print the essentials, write the table and the picture."""
    options = parse_arguments()
    folder = Path(options.output)
    try:
        setup = Setup.read(options.config, options.set, options.samples)
        if options.explain is not None:
            print("\n".join(explain_plan(setup, options.np[0], options.explain)))
            return 0
        if options.against is not None:
            written = show_against(setup, Setup.read(options.against, [], options.samples), options.np[0], folder)
        elif len(options.np) > 1:
            written = show_world_sizes(setup, options.np, folder)
        else:
            written = show_plan(setup, options.np[0], folder)
    except HarnessError as error:
        return report_failure(error, rank=0)
    print(f"wrote {written}")
    return 0
