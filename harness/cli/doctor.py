"""Check this machine: `python launch/doctor.py`. How a run would scale: `mpirun -np 2 python ... --scaling`."""

from __future__ import annotations

import argparse

from harness.comm import read_launch
from harness.command import JobContext, RunParser, add_run_options, report_failure, run_job
from harness.config import RunConfig, load_config
from harness.doctor import as_json, as_text, check_up, exit_code, summary
from harness.errors import ConfigError, HarnessError
from harness.shipped import DEFAULT_CONFIG, name_command


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = RunParser(
        description="Check this machine as a run of the configuration would use it: versions, what Horovod was "
        "built with, MPI, GPUs, threads, sums over two ranks, the disk. Or measure the cost of communication, and "
        "predict the time of an update on more ranks.",
        epilog="Ends with 1 if there is anything to fix. What each line means: docs/doctor.md.",
        allow_abbrev=False,
    )
    add_run_options(parser)
    parser.add_argument("--np", type=int, metavar="N", help="ranks on this host (default: one per core)")
    parser.add_argument(
        "--quick", action="store_true", help="start no ranks and write little: for a health check beside a training run"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--scaling", action="store_true", help="measure latency and bandwidth on real ranks, and predict up to 1024"
    )
    parser.add_argument(
        "--input", metavar="FILE|NAME", help="measure how fast samples of a configuration are made, by how many workers"
    )
    options = parser.parse_args(arguments)
    if options.input is not None:
        if options.scaling or options.json or options.quick or options.np is not None or options.emulate_np:
            parser.error("--np, --quick, --json, --scaling and --emulate-np have no effect with --input; remove them")
        if options.config != DEFAULT_CONFIG:
            parser.error(f"--input: measures {options.input}, so --config has no effect; remove it")
        options.config = options.input
    if options.emulate_np:
        parser.error("--emulate-np sends nothing to measure; start real ranks: mpirun -np 2")
    if options.scaling and (options.np is not None or options.json or options.quick):
        parser.error("--np, --quick and --json have no effect with --scaling; remove them")
    if options.quick and options.np is not None:
        parser.error("--np is for the check of threads, which --quick skips; remove one of them")
    if options.np is not None and options.np < 1:
        parser.error(f"--np: {options.np} is not possible; allowed: 1 or more")
    if not options.scaling and read_launch().size > 1:
        parser.error(f"the doctor starts ranks itself; start it without a launcher: {name_command('doctor')}")
    return options


def check(config: RunConfig) -> None:
    """Refuse what cannot be measured."""
    if config.lr.is_found:
        raise ConfigError(f"lr.base: {config.lr.base} is not used for measuring; give a number: --set lr.base=0.1")


def measure_input(options: argparse.Namespace) -> int:
    """Measure how fast samples are made."""

    def work(job: JobContext) -> None:
        # import late: MXNet reads the number of threads at import, so it must be set first
        from harness.doctor.input import show_input

        show_input(job)

    return run_job(options, lambda config: None, work)


def predict_scaling(options: argparse.Namespace) -> int:
    """Measure on all ranks, predict on rank 0."""
    from harness.doctor.scaling import predict

    return run_job(options, check, predict)


def main() -> int:
    """Print each finding as soon as it is known."""
    findings = []
    try:
        options = parse_arguments()
        if options.input is not None:
            return measure_input(options)
        if options.scaling:
            return predict_scaling(options)
        config = load_config(options.config, options.set)
        for finding in check_up(config, options.np, quick=options.quick):
            findings.append(finding)
            if not options.json:
                print(as_text(finding), flush=True)
    except HarnessError as error:
        return report_failure(error, rank=0)
    print(as_json(findings) if options.json else summary(findings))
    return exit_code(findings)
