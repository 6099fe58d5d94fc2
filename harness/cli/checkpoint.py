"""List a run's checkpoints, verify their checksums, compare two, and exchange weights with Gluon."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.checkpoint import (
    BEST,
    locate,
    newest_valid,
    read_arrays,
    read_manifest,
    read_numbers,
    verify,
    write_checkpoint,
)
from harness.command import report_failure
from harness.errors import CheckpointError, HarnessError
from harness.folder import RecordError, read_object, seen

_PATH_HELP = "a checkpoint (runs/NAME/checkpoints/iteration-000000100), a folder of checkpoints, or a run's folder"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("list", "every checkpoint, with its iteration, size, and whether it is valid"),
        ("verify", "verify the checksums of every checkpoint; exit code 4 if one is damaged"),
        ("show", "the manifest of the newest valid checkpoint, and its arrays"),
    ):
        commands.add_parser(name, help=summary, description=summary).add_argument("path", type=Path, help=_PATH_HELP)
    diff = commands.add_parser("diff", help="how two checkpoints differ: state, configuration, arrays")
    diff.add_argument("path", type=Path, help=_PATH_HELP)
    diff.add_argument("other", type=Path, help="the other checkpoint, or a folder as before")
    out = commands.add_parser("export", help="write a checkpoint's weights as a Gluon .params file")
    out.add_argument("path", type=Path, help=_PATH_HELP)
    out.add_argument("file", type=Path, help="the .params file to write")
    out.add_argument("--average", action="store_true", help="write the average of the weights (ema, swa) instead")
    back = commands.add_parser("import", help="make a checkpoint from a Gluon .params file, for init.from")
    back.add_argument("file", type=Path, help="a .params file, from net.save_parameters")
    back.add_argument("path", type=Path, help="the folder for the checkpoint; it is created")
    return parser.parse_args(arguments)


def list_all(path: Path) -> None:
    """Print a line for each checkpoint."""
    for place in locate(path):
        best = " best" if _is_best(place) else ""
        try:
            manifest = verify(place)
        except CheckpointError as error:
            print(f"{place.name}  damaged: {str(error).removeprefix(f'{place}: ')}")
            continue
        size = sum(file["bytes"] for file in manifest["files"].values())
        print(f"{place.name}  {size / 1e6:8.2f} MB  valid{best}")


def verify_all(path: Path) -> None:
    """Verify each checkpoint.

    Raises:
        CheckpointError: naming every checkpoint that is damaged.
    """
    places = locate(path)
    problems = []
    for place in places:
        try:
            verify(place)
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError("\n".join(problems))
    print(f"{len(places)} of {len(places)} checkpoints are valid")


def show(path: Path) -> None:
    """Print the content of a checkpoint."""
    place = _newest(path)
    manifest = read_manifest(place)
    print(f"{place}")
    print(json.dumps({key: value for key, value in manifest.items() if key != "config"}, indent=1))
    for kind, arrays in read_arrays(place).items():
        print(f"{kind}: {len(arrays)} arrays, {sum(array.nbytes for array in arrays.values()) / 1e6:.2f} MB")
        for name, array in arrays.items():
            print(f"  {seen(name)}  {array.dtype} {array.shape}")


def diff(path: Path, other: Path) -> None:
    """Print how two checkpoints differ; a single line if they do not."""
    places = [_newest(path), _newest(other)]
    manifests = [read_manifest(place) for place in places]
    lines = []
    for part in ("state", "shards", "batch_size", "sizes", "data", "plan", "config", "environment"):
        lines += _differences(part, *(manifest.get(part) for manifest in manifests))
    arrays = [read_arrays(place) for place in places]
    for kind in {**arrays[0], **arrays[1]}:
        lines += _array_differences(kind, arrays[0].get(kind, {}), arrays[1].get(kind, {}))
    print("\n".join([f"{places[0]} against {places[1]}:", *(f"  {line}" for line in lines or ["no difference"])]))


def export(path: Path, file: Path, *, average: bool = False) -> None:
    """Write weights and running statistics, or their average, for `net.load_parameters`.

    Raises:
        CheckpointError: if there is no average.
    """
    from harness.gluon.weights import write_params

    place = _newest(path)
    kinds, numbers = read_arrays(place), read_numbers(place) or {}
    if average and "averages" not in kinds:
        raise CheckpointError(
            f"{place}: holds no average of its weights (ema, swa); leave out --average for the weights"
        )
    arrays = kinds["averages" if average else "parameters"]
    write_params(file, arrays)
    told = f", {_described_average(numbers['average'])}" if average and "average" in numbers else ""
    print(f"{file}: {len(arrays)} arrays of {place}{told}")


def _described_average(numbers: Mapping[str, Any]) -> str:
    times = numbers["num_updates"]
    updates = "1 update" if times == 1 else f"{times} updates"
    return f"averaged ({numbers['kind']} of {updates}, running statistics: {numbers['statistics']})"


def bring_in(file: Path, path: Path) -> None:
    """Make a checkpoint that contains only weights: for `init.from`, not for resuming."""
    from harness.gluon.weights import read_weights

    arrays = read_weights(str(file))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be created ({error.strerror}); choose another folder") from None
    place = write_checkpoint(path, 0, {"parameters": arrays, "slots": {}}, {"imported_from": file.name})
    print(f"{place}: {len(arrays)} arrays; start a run from it with --set init.from={place}")


def main() -> int:
    """Run the command; damaged checkpoints end with exit code 4."""
    options = parse_arguments()
    commands = {"list": list_all, "verify": verify_all, "show": show}
    try:
        if options.command in commands:
            commands[options.command](options.path)
        elif options.command == "diff":
            diff(options.path, options.other)
        elif options.command == "export":
            export(options.path, options.file, average=options.average)
        else:
            bring_in(options.file, options.path)
    except HarnessError as error:
        return report_failure(error, 0)
    return 0


def _newest(path: Path) -> Path:
    found = newest_valid(locate(path))
    for _, reason in found.rejected:
        print(f"rejected: {reason}", file=sys.stderr)
    if found.newest is None:
        raise CheckpointError(f"{path}: contains no valid checkpoint")
    return found.newest


def _is_best(place: Path) -> bool:
    try:
        return read_object(place.parent / BEST).text("set") == place.name
    except RecordError:
        return False


def _differences(key: str, one: Any, two: Any) -> list[str]:
    if one == two:
        return []
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        names = [*one, *(name for name in two if name not in one)]
        return [line for name in names for line in _differences(f"{key}.{name}", one.get(name), two.get(name))]
    return [seen(f"{key}: {one} -> {two}", 400)]


def _array_differences(kind: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    lines = [f"{kind}: {name} only in the first" for name in one if name not in two]
    lines += [f"{kind}: {name} only in the second" for name in two if name not in one]
    for name in one:
        if name not in two or (one[name].tobytes() == two[name].tobytes() and one[name].shape == two[name].shape):
            continue
        if one[name].shape != two[name].shape or one[name].dtype != two[name].dtype:
            forms = [f"{array.dtype} {array.shape}" for array in (one[name], two[name])]
            lines.append(f"{kind}: {name} is {forms[0]} and {forms[1]}")
            continue
        distance = np.abs(one[name].astype(np.float64) - two[name].astype(np.float64))
        changed = np.count_nonzero(distance)
        lines.append(f"{kind}: {name} differs in {changed} of {distance.size} numbers, by up to {distance.max():.3g}")
    return lines
