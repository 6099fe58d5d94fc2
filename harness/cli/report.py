"""Show a run on one page, or compare several; needs neither mxnet nor horovod nor mpi4py."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from harness.command import report_failure
from harness.errors import HarnessError
from harness.report import write_comparison, write_run_report


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(
        description="Write the page of a run from its folder as it is now, or one page that compares several runs.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run, such as runs/digits")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the page (default: RUN/report.html, or comparison.html beside the first of several)",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Read, draw, write."""
    options = parse_arguments()
    runs, output = options.runs, options.output
    try:
        if len(runs) == 1:
            output = output or runs[0] / "report.html"
            sentences = [write_run_report(runs[0], output)]
        else:
            output = output or runs[0].parent / "comparison.html"
            sentences = write_comparison(runs, output)
    except HarnessError as error:
        return report_failure(error, rank=0)
    try:
        print(*sentences, f"wrote {output}", sep="\n", flush=True)
    except BrokenPipeError:  # the reader has gone (`| head -1`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
