#!/usr/bin/env python
"""How fast the harness trains, against the loops that people write: interleaved runs, medians, quartiles, ratios.

Every contender is a job of its own, started by its own launcher, on float32 arrays that lie in memory (`pipeline`: on
bytes that are shuffled and normalised; `crowd`: more and more ranks on the same cores; `horovod-4`: four of Horovod's
ranks, whose gradients the tree or the engine adds up). In every round each contender is started once and stopped
(SIGSTOP) as soon as it has warmed up. Then they go on by turns, in another order every time, because a shared machine
may be a tenth faster or slower a second later. The speed of a run is what it did in all of its turns, by the time that
they took; a ratio is taken within a round, and what counts is its lower quartile.

    python benchmarks/speed.py [--network lenet|mnist_cnn|resnet18_v2] [--np 1|2|4|8|horovod-4|...] [--rounds 15]
                               [--python .pythons/3.13/.venv/bin/python] [--checkout ../before]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from contenders import SHAPES

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NP = ("1", "2", "4", "8", "horovod-2", "horovod-4", "horovod-8", "pipeline", "crowd")
MARKS = {"lenet": 20, "mnist_cnn": 40, "resnet18_v2": 4}  # iterations of all ranks between two marks of a run
WARM_UP, PATIENCE_S = 4, 300.0  # marks; seconds
# and their seconds: more ranks than cores take longer to get going again
TURNS = {"crowd": (4, 3.0), "horovod-4": (8, 2.0), "horovod-8": (4, 3.0)}
USUAL_TURNS = (20, 0.5)
FOR_EVER = 1_000_000


class Contender(NamedTuple):
    """A job: its command, with places for what changes from run to run, and how many ranks it starts."""

    command: list[str]
    ranks: int = 1


def loop(name: str, launcher: list[str]) -> list[str]:
    """The command of one of the usual loops."""
    words = [name, "{network}", "{iterations}", "{every}", "{folder}"]
    return [*launcher, sys.executable, str(ROOT / "benchmarks/contenders.py"), *words]


def harness(launcher: list[str], *settings: str, python: str = sys.executable) -> list[str]:
    """The command of a run of the harness, as its users start it."""
    arguments = [
        "output={folder}",
        "name=run",
        "data={{name: 'contenders:{data}', params: {{network: {network}}}}}",
        "network={{name: {network}}}",
        "batch.size={size}",
        "train={{iterations: {iterations}}}",
        "log.every={every}it",
        "checkpoint={{every: null}}",
        "evaluation.every=null",
        "optimizer={{name: sgd, params: {{momentum: 0.9}}}}",
        "lr={{schedule: {{constant: {{lr: 0.01}}}}}}",
        *settings,
    ]
    return [
        *launcher,
        python,
        str(ROOT / "launch/train.py"),
        *[word for a in arguments for word in ("--set", a)],
    ]


def contenders(np: str) -> dict[str, Contender]:
    """Jobs by name; the first is the one that the others are compared with."""
    if np == "pipeline":
        normalised = "data.augment={{mean: [0.5], std: [0.25]}}"
        return {
            "harness": Contender(harness([], normalised)),
            "DataLoader": Contender(loop("dataloader", [])),
            "arithmetic alone": Contender(loop("computing", [])),
        }
    if np == "crowd":
        return {
            f"harness, {ranks} ranks": Contender(harness([str(BIN / "mpirun"), "-np", str(ranks)]), ranks)
            for ranks in (8, 2)
        }
    if np == "1":
        return {"harness": Contender(harness([])), "bare Gluon": Contender(loop("gluon", []))}
    if np.startswith("horovod-"):
        ranks = np.removeprefix("horovod-")
        return {
            f"harness, sum: {sum_by}": Contender(
                harness([str(BIN / "horovodrun"), "-np", ranks], "comm=horovod", f"sum={sum_by}"), int(ranks)
            )
            for sum_by in ("tree", "engine")
        }
    mpirun, horovodrun = [[str(BIN / name), "-np", np] for name in ("mpirun", "horovodrun")]
    found = {
        "harness, mpirun": harness(mpirun),
        "harness, horovodrun": harness(horovodrun),
        "hvd.DistributedTrainer": loop("horovod", horovodrun),
        "never talking": loop("gluon", mpirun),
        "no step": loop("summing", mpirun),
    }
    if importlib.util.find_spec("torch") is not None:
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={np}"]
        found["PyTorch DDP"] = [*run, *loop("torch", [])[1:]]
    return {name: Contender(command, int(np)) for name, command in found.items()}


def pythons(np: str, others: list[Path]) -> dict[str, Contender]:
    """The harness as run by other Pythons with other versions of NumPy, and by this one; by mpirun on several ranks."""
    found = {}
    for python in map(str, [*others, sys.executable]):
        code = "import platform, numpy; print(f'{platform.python_version()}, NumPy {numpy.__version__}')"
        versions = subprocess.check_output([python, "-c", code], text=True).strip()
        launcher = [] if np == "1" else [str(Path(python).with_name("mpirun")), "-np", np]
        found[f"harness, Python {versions}"] = Contender(harness(launcher, python=python), int(np))
    return found


def checkouts(np: str, others: list[Path]) -> dict[str, Contender]:
    """The harness of other checkouts, such as one of an earlier commit, and of this one; by mpirun on several ranks."""
    launcher = [] if np == "1" else [str(BIN / "mpirun"), "-np", np]
    found = {}
    for root in [*(other.resolve() for other in others), ROOT]:
        commit = subprocess.check_output(["git", "-C", root, "rev-parse", "--short", "HEAD"], text=True).strip()
        command = [word.replace(str(ROOT / "launch"), str(root / "launch")) for word in harness(launcher)]
        found[f"harness, {commit}"] = Contender(["env", f"PYTHONPATH={root}:{ROOT / 'benchmarks'}", *command], int(np))
    return found


def found_by_ranks(np: str) -> Any:
    """What this program finds as ranks of mpirun: started again with `--rank FILE`, into which rank 0 writes it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [str(BIN / "mpirun"), "-np", np, sys.executable, *sys.argv, "--rank", str(file)]
        environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}", "PYTHONWARNINGS": "ignore"}
        subprocess.run(command, env=environ, check=True)
        return json.loads(file.read_text())


def prepared(
    contender: Contender, network: str, data: str, folder: str, iterations: int = FOR_EVER
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a job."""
    values = {"network": network, "iterations": iterations, "folder": folder, "data": data}
    values |= {"size": SHAPES[network][1], "every": max(1, MARKS[network] // contender.ranks)}
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "MASTER_PORT": "0"}
    environ["HOROVOD_GLOO_TIMEOUT_SECONDS"] = "900"  # 30 would end a job that stands still while the others start
    environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"
    return [word.format(**values) for word in contender.command], environ


class Job:
    """A contender that runs, is stopped and goes on: all processes that inherited a variable of its own."""

    def __init__(self, contender: Contender, network: str, data: str, folder: Path) -> None:
        """Start it."""
        self._folder, self._ranks, self._size = folder, contender.ranks, SHAPES[network][1]
        self._turns: list[tuple[float, float]] = []
        self._processes: list[int] = []
        command, environ = prepared(contender, network, data, str(folder))
        name = uuid.uuid4().hex
        self._name = f"BENCHMARK_JOB={name}".encode()
        with (folder / "output").open("wb") as output:
            self._launcher = subprocess.Popen(
                command,
                env=environ | {"BENCHMARK_JOB": name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def warm_up(self) -> None:
        """Wait until every rank trains, and stop it."""
        patience = time.monotonic() + PATIENCE_S
        while not self._is_warm():
            if self._launcher.poll() is not None or time.monotonic() > patience:
                raise self._failed("did not begin to train")
            time.sleep(0.05)
        self._processes = self._find()
        self._signal(signal.SIGSTOP)

    def take_turn(self, turn_s: float) -> None:
        """Go on for some seconds."""
        begun = time.time()
        self._signal(signal.SIGCONT)
        time.sleep(turn_s)
        self._signal(signal.SIGSTOP)
        self._turns.append((begun, time.time()))

    def end(self) -> None:
        """End every process, by force if need be, and wait until none is left."""
        self._processes = self._find()
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        patience = time.monotonic() + 5
        while self._processes:
            if time.monotonic() > patience:
                self._signal(signal.SIGKILL)
            self._launcher.poll()
            time.sleep(0.05)
            self._processes = self._find()
        self._launcher.wait()

    def speed(self) -> float:
        """Images a second of all processes together, while it was its turn."""
        rates = []
        for marks in self._marks():
            inside = [(self._running_s(time_s), t) for time_s, t in marks if time_s >= self._turns[0][0]]
            if len(inside) < len(self._turns) / 2:
                raise self._failed("stood still in its turns")
            (first_s, first), (last_s, last) = inside[0], inside[-1]
            rates.append((last - first) / (last_s - first_s))
        return statistics.mean(rates) * self._ranks * self._size

    def _running_s(self, time_s: float) -> float:
        """How long it had been its turn by then."""
        return sum(max(0.0, min(time_s, ended) - begun) for begun, ended in self._turns)

    def _failed(self, what: str) -> SystemExit:
        said = (self._folder / "output").read_text()[-3000:]
        return SystemExit(f"{' '.join(map(str, self._launcher.args))} {what}:\n{said}")

    def _files(self) -> list[Path]:
        """Where it writes its marks: rank 0 of the harness, or every process of a loop."""
        return list(self._folder.glob("run/metrics.jsonl")) or sorted(self._folder.glob("rank-*.jsonl"))

    def _is_warm(self) -> bool:
        marks = self._marks()
        complete = len(marks) == (1 if (self._folder / "run").is_dir() else self._ranks)
        return complete and all(len(one) > WARM_UP for one in marks)

    def _marks(self) -> list[list[tuple[float, int]]]:
        """Seconds since 1970 and iteration of every mark, of every file."""
        found = []
        for file in self._files():
            lines = [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            found.append([(line["time"], line["iteration"]) for line in lines])
        return found

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _find(self) -> list[int]:
        """Every process that has the variable."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self._name in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found


def shown(values: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values * 2 if len(values) == 1 else values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def measure(network: str, np: str, rounds: int, taking_part: dict[str, Contender]) -> dict[str, list[float]]:
    """Images a second of every contender, a number a round."""
    found: dict[str, list[float]] = {name: [] for name in taking_part}
    data = "pictures" if np == "pipeline" else "in_memory"
    turns, turn_s = TURNS.get(np, USUAL_TURNS)
    for number in range(rounds):
        order = random.Random(number)
        with ExitStack() as stack:
            jobs = {}
            for name in order.sample(list(taking_part), len(taking_part)):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                jobs[name] = Job(taking_part[name], network, data, folder)
                stack.callback(jobs[name].end)
                jobs[name].warm_up()
            for _ in range(turns):
                for job in order.sample(list(jobs.values()), len(jobs)):
                    job.take_turn(turn_s)
            for name, job in jobs.items():
                found[name].append(job.speed())
        print(f"round {number + 1}: " + "  ".join(f"{name} {found[name][-1]:.0f}" for name in found), flush=True)
    return found


def table(found: dict[str, list[float]]) -> list[str]:
    """Rows of Markdown: each contender's speed, and the ratio of every harness to it."""
    ours = [name for name in found if name.startswith("harness")]
    rows = ["| | images/s (median) | " + " | ".join(f"{name} / this (quartiles)" for name in ours) + " |"]
    rows.append("|---|---|" + "---|" * len(ours))
    for name, values in found.items():
        cells = []
        for own in ours:
            cells.append("" if own == name else shown([a / b for a, b in zip(found[own], values, strict=True)]))
        rows.append(f"| {name} | {statistics.median(values):.0f} | " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=MARKS, default="lenet")
    parser.add_argument("--np", default="1", choices=NP)
    parser.add_argument("--only", default="", metavar="REGEX", help="only contenders whose name has it")
    parser.add_argument(
        "--python",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="the harness alone, run by this Python of another environment (tests/pythons.py) and by the own",
    )
    parser.add_argument(
        "--checkout",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="the harness alone, of another checkout, such as one of an earlier commit, and of this one",
    )
    parser.add_argument("--cores", type=int, metavar="N", help="let every contender have but N cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    if options.checkout:
        all_of_them = checkouts(options.np, options.checkout)
    else:
        all_of_them = pythons(options.np, options.python) if options.python else contenders(options.np)
    taking_part = {name: contender for name, contender in all_of_them.items() if re.search(options.only, name)}
    found = measure(options.network, options.np, options.rounds, taking_part)
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
