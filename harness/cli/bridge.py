"""Carry a run to PyTorch: match its arrays with a module's, verify, replay side by side, export."""

from __future__ import annotations

import argparse
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harness.bridge.verdict import ORDERS
from harness.command import report_failure
from harness.command.options import number_of
from harness.config.reading import parse_yaml
from harness.errors import ConfigError, DisagreementError, HarnessError, listed
from harness.shipped import install_command, name_command

if TYPE_CHECKING:
    from harness.bridge.mapping import ArrayMap
    from harness.bridge.opening import Opened
    from harness.bridge.sides import Sides, TorchNames

_RUN_HELP = "a run's folder (its newest checkpoint counts), or one of its checkpoints"
_NO_PARAMS = "{}"
_SAMPLES, _ITERATIONS = 16, 200


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        epilog="Exit codes: 0 done, 2 command line, module or mapping, 3 data, 4 checkpoint, 5 the networks differ.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("match", "propose which array of the module comes from which of the run, and write mapping.yaml"),
        ("verify", "compare predictions, losses, gradients and running statistics of both by the mapping"),
        ("replay", "train on in both from the checkpoint, and compare their losses on a page"),
        ("export", "write weights, optimizer and plan for a program of yours that trains on"),
    ):
        one = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        one.add_argument("run", type=Path, metavar="RUN", help=_RUN_HELP)
        one.add_argument("--module", required=True, metavar="MODULE:FUNCTION", help="returns the torch.nn.Module")
        one.add_argument("--params", default=_NO_PARAMS, metavar="YAML", help="its keyword arguments: {classes: 10}")
        one.add_argument("--loss", metavar="MODULE:FUNCTION", help="its loss, where the run has one of your own")
        one.add_argument("--forward", metavar="MODULE:FUNCTION", help="calls both, where the run has network.forward")
        one.add_argument("--mapping", type=Path, metavar="FILE", help="default: RUN/bridge/mapping.yaml")
        one.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="as for training: data.root=..."
        )
        one.add_argument(
            "--samples",
            type=number_of("samples", 2),
            default=_SAMPLES,
            metavar="N",
            help="to compare on (default: %(default)s)",
        )
        if name == "match":
            one.add_argument("--overwrite", action="store_true", help="move a mapping that has been edited aside")
        if name == "replay":
            one.add_argument(
                "--iterations",
                type=number_of("iterations"),
                default=_ITERATIONS,
                metavar="N",
                help="default: %(default)s",
            )
            one.add_argument(
                "--orders",
                type=number_of("orders"),
                default=ORDERS,
                metavar="N",
                help="runs of MXNet that add in other orders, each as slow as the run's own (default: %(default)s)",
            )
        if name in ("replay", "export"):
            where = "the page" if name == "replay" else "the folder"
            one.add_argument("--output", type=Path, metavar="PATH", help=f"{where} (default: in RUN/bridge)")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the command; 5 if the networks differ."""
    options = parse_arguments()
    try:
        if find_spec("torch") is None:
            raise ConfigError(f"{sys.executable} has no torch; run `{install_command('torch')}`")
        from harness.bridge.opening import opened

        commands = {"match": match, "verify": verify, "replay": replay_both, "export": export_all}
        with opened(options.run, options.set) as run:
            commands[options.command](run, options)
    except HarnessError as error:
        return report_failure(error, 0)
    return 0


def match(run: Opened, options: argparse.Namespace) -> None:
    """Propose a mapping, write it, and say whether predictions agree by it.

    Raises:
        ConfigError: if there are layers without a counterpart, or some that could be exchanged; the file is written.
            Or if there is a file that has been edited.
        DisagreementError: if predictions differ; the file is written.
    """
    from harness.bridge.mapping_file import write_mapping
    from harness.bridge.sides import both_sides, default_mapping
    from harness.bridge.verify import PREDICTIONS
    from harness.data.leaves import count_of

    sides = both_sides(run, names_of(options), options.samples)
    proposal = sides.propose()
    path = options.mapping or default_mapping(run)
    mapping = proposal.mapping
    moved = write_mapping(path, mapping, proposal.pairs, options.module, overwrite=options.overwrite)
    if moved is not None:
        print(f"moved the edited mapping to {moved}")
    problems = proposal.all_problems(sides.run_shapes, sides.module_shapes)
    count = len(mapping.sources)
    print(f"{path}: {count} of {count + len(mapping.open)} arrays matched, in {len(proposal.pairs)} layers", flush=True)
    if problems:
        raise ConfigError(f"{path}: is not complete; correct the module, or the file by hand:{listed(problems)}")
    apart = sides.distance(mapping)
    agree = apart <= PREDICTIONS
    told = "agree" if agree else "DIFFER"
    print(f"predictions of {count_of(sides.data)} samples, by {apart:.2g}: {told}", flush=True)
    if not agree:
        raise DisagreementError(
            f"{options.module} by this mapping is not the network of {run.checkpoint}; `{_again('verify', options)}` "
            "says where they differ"
        )


def verify(run: Opened, options: argparse.Namespace) -> None:
    """Compare both networks by the mapping.

    Raises:
        DisagreementError: naming what differs.
    """
    from harness.bridge.sides import both_sides, counted
    from harness.bridge.verification import verified

    path, mapping = _mapping_of(run, options)
    sides = both_sides(run, names_of(options), options.samples)
    proposed, by_hand = counted(mapping, sides.propose())
    print(f"{path}: {proposed} arrays as proposed, {by_hand} by hand", flush=True)
    found = verified(sides, mapping)
    for worst in found.compared:
        print(worst, flush=True)
    for line in found.remarks:
        print(line)
    if found.differences:
        raise DisagreementError(f"{options.module} is not the network of {run.checkpoint}:{listed(found.differences)}")
    print(f"{options.module} is the network of {run.checkpoint}")


def replay_both(run: Opened, options: argparse.Namespace) -> None:
    """Train on in both, and write the page.

    Raises:
        DisagreementError: if the losses differ by more than rounding.
    """
    from harness.bridge.replay import replay, write_replay

    sides, mapping = _mapped(run, options)
    found = replay(run, sides, mapping, options.iterations, options.orders)
    path = options.output or run.folder / "bridge" / "replay.html"
    write_replay(path, run.folder.name, options.module, found)
    first, last = found.rows[0], found.rows[-1]
    print(f"iterations {first.t} to {last.t}: loss {last.mxnet:.6f} in MXNet, {last.torch:.6f} in PyTorch")
    weights = f"weights are {found.weights:.2g} of their way apart, in MXNet {found.weights_rounding:.2g}"
    print(f"{weights}; wrote {path}", flush=True)
    if not found.agrees:
        raise DisagreementError(found.verdict())
    print(found.verdict())


def export_all(run: Opened, options: argparse.Namespace) -> None:
    """Write what a program needs to train on."""
    from harness.bridge.export import export

    sides, mapping = _mapped(run, options)
    for path in export(run, sides, mapping, options.output or run.folder / "bridge", names_of(options)):
        print(f"wrote {path}")


def _mapped(run: Opened, options: argparse.Namespace) -> tuple[Sides, ArrayMap]:
    """Both sides, and a mapping that is complete.

    Raises:
        ConfigError: naming what is missing.
    """
    from harness.bridge.sides import both_sides

    path, mapping = _mapping_of(run, options)
    sides = both_sides(run, names_of(options), options.samples)
    problems = mapping.problems(sides.run_shapes, sides.module_shapes)
    if problems:
        raise ConfigError(f"{path}:{listed(problems)}")
    return sides, mapping


def _mapping_of(run: Opened, options: argparse.Namespace) -> tuple[Path, ArrayMap]:
    """The file with the mapping, and what it says.

    Raises:
        ConfigError: if there is none, or it is another module's.
    """
    from harness.bridge.mapping_file import read_mapping
    from harness.bridge.sides import default_mapping

    path, command = options.mapping or default_mapping(run), _again("match", options)
    if not path.exists():
        raise ConfigError(f"{path}: there is no mapping yet; write it with `{command}`")
    mapping, module = read_mapping(path)
    if module not in ("", options.module):
        raise ConfigError(
            f"{path}: is the mapping of {module}, not of {options.module}; write one with `{command}`, or, if this one "
            "is right, correct its `module`"
        )
    return path, mapping


def _again(name: str, options: argparse.Namespace) -> str:
    """Another of the commands with the arguments that they have in common, as the user types it."""
    words = [name, str(options.run), "--module", options.module]
    for option in ("params", "loss", "forward", "mapping"):
        value = getattr(options, option)
        words += [f"--{option}", str(value)] if value not in (None, _NO_PARAMS) else []
    words += [word for setting in options.set for word in ("--set", setting)]
    return f"{name_command('bridge')} {shlex.join(words)}"


def names_of(options: argparse.Namespace) -> TorchNames:
    """What the command line says of the PyTorch side."""
    from harness.bridge.sides import TorchNames

    params = parse_yaml(options.params, "--params")
    if not isinstance(params, dict):
        raise ConfigError(f"--params: {options.params!r} is not a mapping; give keyword arguments: {{classes: 10}}")
    return TorchNames(options.module, params, options.loss, options.forward)
