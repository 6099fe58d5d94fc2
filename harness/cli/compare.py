"""Tell where two runs begin to differ, and by what; needs neither mxnet nor horovod nor mpi4py."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.command import report_failure
from harness.errors import HarnessError
from harness.report.difference import Comparison, compare_runs
from harness.report.record import read_record

DIFFERENT = 1  # as `diff` and `cmp` end


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(
        description="Tell in which iteration two runs begin to differ, and by what. Ends with 0 if they do not, with "
        "1 if they do, and with 2 if one cannot be read.",
        allow_abbrev=False,
    )
    parser.add_argument("one", type=Path, metavar="RUN", help="the folder of a run, such as runs/digits")
    parser.add_argument("other", type=Path, metavar="OTHER", help="the run that it is compared with")
    return parser.parse_args(arguments)


def main() -> int:
    """Read both, compare, print."""
    options = parse_arguments()
    try:
        one, other = read_record(options.one), read_record(options.other)
    except HarnessError as error:
        return report_failure(error, rank=0)
    found = compare_runs(one, other)
    try:
        for record in (one, other):
            for name, count in record.unread.counts.items():
                print(f"{record.folder}/{name}: {count} places cannot be read, and are left out", file=sys.stderr)
        print(*_lines(found), sep="\n", flush=True)
    except BrokenPipeError:  # the reader has gone (`| head -1`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if found.is_equal else DIFFERENT


def _lines(found: Comparison) -> Iterator[str]:
    for one in found.without_effect:
        yield f"differs, without effect: {one.what}: {one.said}"
    for said in found.equal:
        yield f"equal: {said}"
    for one in found.causes:
        yield f"differs: {one.what}: {one.said}"
    for one in found.effects:
        yield f"differs {one.when()}: {one.what}: {one.said}"
    yield found.conclusion()
