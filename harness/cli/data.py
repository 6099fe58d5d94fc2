"""Picture files: pack folders into RecordIO, check that all can be decoded, index records, show what a network sees."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from harness.command import report_failure
from harness.errors import ConfigError, HarnessError
from harness.parsing import whole_number
from harness.shipped import install_command

_CORES = len(os.sched_getaffinity(0))
_LARGEST_SIDE = 65_500  # of a JPEG file
_CONFIG = "a file, or the name of one in configs/ or of a shipped one"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    pack = _pack_parser(commands)
    _check_parser(commands)
    _index_parser(commands)
    show = _show_parser(commands)
    options = parser.parse_args(arguments)
    if options.command == "pack":
        _refuse_in_pack(pack, options)
    elif options.command == "show":
        _refuse_in_show(show, options)
    return options


def main() -> int:
    """Run the command."""
    options = parse_arguments()
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "pack": _pack,
        "check": _check,
        "index": _index,
        "show": _show,
    }
    try:
        commands[options.command](options)
    except HarnessError as error:
        return report_failure(error, rank=0)
    return 0


def _pack_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    text = "pack a folder of pictures into a .rec file, as im2rec does, and read it back"
    parser = commands.add_parser("pack", help=text, description=f"{text}. A killed one is resumed by the same command.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with a folder of pictures for each class")
    parser.add_argument("output", type=Path, metavar="OUT.rec", help="the file to write; OUT.idx and OUT.lst beside it")
    parser.add_argument("--lst", type=Path, metavar="FILE", help="a list of im2rec: keys, labels, and paths in FOLDER")
    parser.add_argument("--in-order", action="store_true", help="do not shuffle the records as im2rec does")
    parser.add_argument(
        "--train-ratio", type=float, metavar="R", help="write OUT_train.rec with this share, and OUT_val.rec"
    )
    parser.add_argument(
        "--resize",
        type=_number(_LARGEST_SIDE, "pixels"),
        metavar="N",
        help="shrink pictures whose short edge is longer than N pixels (default: pack every file as it is)",
    )
    parser.add_argument(
        "--quality", type=_number(100, "a quality"), metavar="Q", help="of resized pictures, as JPEG (default: 95)"
    )
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged pictures out, and list them")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    parser.add_argument(
        "--workers",
        type=_number(1024, "processes"),
        default=_CORES,
        metavar="N",
        help="processes (default: all cores)",
    )
    return parser


def _check_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "decode every picture of a configuration, and list those that are damaged; exit code 3 if any is"
    parser = commands.add_parser("check", help=text, description=text)
    _add_config(parser)
    parser.add_argument(
        "--workers", type=_number(1024, "threads"), default=_CORES, metavar="N", help="threads (default: all cores)"
    )


def _index_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "write the index of a .rec file, FILE.idx; an earlier one is replaced"
    parser = commands.add_parser("index", help=text, description=text)
    parser.add_argument("file", type=Path, metavar="FILE.rec")


def _show_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    text = "draw what the network sees of some samples, with their labels: a picture and a page"
    parser = commands.add_parser("show", help=text, description=f"{text}.")
    _add_config(parser)
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), default="train", help="of the data (default: %(default)s)"
    )
    parser.add_argument(
        "--samples",
        type=_read_samples,
        metavar="N,N-N",
        help="numbers of samples, such as 0-11,40 (default: 24 from all of the split)",
    )
    parser.add_argument(
        "--epoch",
        type=_number(10**9 - 1, "an epoch"),
        nargs="+",
        metavar="N",
        help="as it is augmented then; of several, each has a column (default: 1)",
    )
    iteration = _number(10**9 - 1, "an iteration")
    parser.add_argument("--iteration", type=iteration, metavar="T", help="the whole batch of iteration T instead")
    parser.add_argument("--output", type=Path, default=Path("sheets"), metavar="DIR", help="(default: %(default)s)")
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help=_CONFIG)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")


def _refuse_in_pack(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.output.suffix != ".rec":
        parser.error(f"OUT.rec: found {options.output}; give a name that ends in .rec")
    if options.quality is not None and options.resize is None:
        parser.error("--quality has no effect without --resize: files are packed as they are")
    if options.lst is not None and (options.train_ratio is not None or options.in_order):
        parser.error("--lst says which pictures are packed, and in which order; remove --train-ratio and --in-order")
    if options.train_ratio is not None and not 0 < options.train_ratio < 1:
        parser.error(f"--train-ratio: {options.train_ratio:g} is not possible; allowed: between 0 and 1")


def _refuse_in_show(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.split != "train" and (options.epoch is not None or options.iteration is not None):
        parser.error(f"--split {options.split}: it is looked at without augmentation; remove --epoch and --iteration")
    if options.iteration is not None and (options.epoch is not None or options.samples is not None):
        parser.error("--iteration says which samples are shown, and of which epoch; remove --samples and --epoch")


def _number(most: int, what: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = whole_number(text, low=1, high=most)
        if number is None:
            raise argparse.ArgumentTypeError(f"{text} is not {what}; allowed: 1 to {most}")
        return number

    return read


def _read_samples(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = whole_number(first), whole_number(last if dash else first)
        if low is None or high is None or high < low:
            raise argparse.ArgumentTypeError(f"{part!r} names no samples; allowed: 7, 0-11, or several with commas")
        found += range(low, min(high, low + 10**6) + 1)
    return found


# import late: each needs other packages


def _pack(options: argparse.Namespace) -> None:
    from harness.cli.data_pack import pack

    pack(options)


def _check(options: argparse.Namespace) -> None:
    from harness.cli.data_check import check

    check(options)


def _index(options: argparse.Namespace) -> None:
    from harness.cli.data_check import index

    index(options.file)


def _show(options: argparse.Namespace) -> None:
    try:
        from harness.cli.data_show import show
    except ModuleNotFoundError as missing:
        if missing.name != "mxnet":
            raise
        raise ConfigError(f"{sys.executable} has no mxnet; run `{install_command('mxnet')}`") from None
    show(options)
