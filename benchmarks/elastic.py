#!/usr/bin/env python
"""What a change of workers costs: a loss, against the supervisor's restart, and a worker that joins.

In turns, within one run of the benchmark: an elastic job of `--np` workers loses one (SIGKILL), and the same job under
`launch/supervise.py` does. The time is that from the kill to the next update that is finished, of whichever iteration,
and its parts are those that the run's own history (`attempts.jsonl`) knows. The supervised job has a checkpoint after
every tenth update, so it also repeats updates, which is told apart. Then an elastic job is joined by a worker: what
that costs those who were there is the longest time between two of their updates, less what an update takes.

A link (`--link`, Mbit/s; needs root, and a kernel with tbf) is the loopback device of the job's own network namespace,
which all of its workers share.

    python benchmarks/elastic.py [--networks lenet resnet18_v2] [--np 3] [--rounds 5] [--only join] [--link 1000]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from contenders import SHAPES

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # its driver of jobs is that of the tests

from tests.jobs.elastic import MARK, ROOT, ElasticJob, metrics_of

BIN = Path(sys.executable).parent
WARM_UP = {"lenet": 40, "resnet18_v2": 8}  # updates before anything happens
CHECKPOINT_EVERY = 10
PATIENCE_S = 180.0


def settings(network: str, shards: int) -> list[str]:
    """Of a job that trains until it is told to stop, on random numbers in memory."""
    return [
        "name=run",
        f"data={{name: 'benchmarks.contenders:in_memory', params: {{network: {network}}}}}",
        f"network={{name: {network}}}",
        f"batch={{size: {SHAPES[network][1] // 4}, shards: {shards}}}",
        "train={iterations: 1000000}",
        "log={every: 1it, tensorboard: false}",
        f"checkpoint={{every: {CHECKPOINT_EVERY}it, keep: 2}}",
        "evaluation.every=null",
        "optimizer={name: sgd, params: {momentum: 0.9}}",
        "lr={schedule: {constant: {lr: 0.01}}}",
        "threads_per_rank=1",
    ]


def environment() -> dict[str, str]:
    """Of every job: the benchmark's own data set can be imported."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}


def shaped(megabits: float | None) -> list[str]:
    """The words that give a command a network of its own, whose only link is that fast."""
    if megabits is None:
        return []
    link = f"ip link set lo up && tc qdisc add dev lo root tbf rate {megabits:g}mbit burst 256kb latency 500ms"
    return ["unshare", "--net", "sh", "-c", f'{link} && exec "$@"', "sh"]


def waited(what: str, is_so: Callable[[], Any]) -> Any:
    """What a question answers once that is something.

    Raises:
        SystemExit: if it is not in time.
    """
    began_s = time.monotonic()
    while not (found := is_so()):
        if time.monotonic() - began_s > PATIENCE_S:
            raise SystemExit(f"{what}: not in {PATIENCE_S:g} s")
        time.sleep(0.005)
    return found


def updates_of(run: Path) -> list[dict[str, Any]]:
    """The lines of updates, in their order."""
    return [line for line in metrics_of(run) if line["split"] == "train"]


def history(run: Path) -> list[dict[str, Any]]:
    """The lines of `attempts.jsonl`."""
    try:
        return [json.loads(line) for line in (run / "attempts.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return []


def lose_elastic(folder: Path, network: str, np: int, prefix: Sequence[str]) -> dict[str, float]:
    """Seconds from a kill to the next update of an elastic job, and their parts."""
    job = ElasticJob(folder, settings(network, 8), np, environ=environment(), prefix=prefix)
    try:
        job.wait_for("an update", lambda: job.iteration() >= WARM_UP[network], PATIENCE_S)
        victim = next(worker for worker in job.workers() if worker.rank == np - 1)
        killed = time.time()
        os.kill(victim.pid, signal.SIGKILL)
        update = waited("the next update", lambda: next_update(job.run, killed))
        (change,) = [line for line in history(job.run) if line.get("changed_at", 0) > killed]
    finally:
        job.kill_all()
    began = change["changed_at"] - change["took_s"]
    return {
        "all": update["time"] - killed,
        "until the others notice": began - killed,
        "until the next world trains": change["took_s"],
        "its first update": update["time"] - change["changed_at"],
    }


def next_update(run: Path, moment: float) -> dict[str, Any] | None:
    """The first update that was logged after a time."""
    return next((line for line in updates_of(run) if line["time"] > moment), None)


def lose_supervised(folder: Path, network: str, np: int, prefix: Sequence[str]) -> dict[str, float]:
    """The same of a job that its supervisor starts again."""
    folder.mkdir()
    words = [word for setting in (*settings(network, 8), f"output={folder}") for word in ("--set", setting)]
    ranks = [str(BIN / "horovodrun"), "-np", str(np), sys.executable, "launch/train.py", "--resume", "auto", *words]
    command = [*prefix, sys.executable, "launch/supervise.py", "--pause", "0", "--", *ranks]
    run, mark = folder / "run", f"{MARK}={folder}".encode()
    with (folder / "log").open("wb") as log:
        environ = {**os.environ, **environment(), MARK: str(folder)}
        supervisor = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)
    try:
        waited("an update", lambda: len(updates_of(run)) >= max(WARM_UP[network], CHECKPOINT_EVERY + 5))
        last = updates_of(run)[-1]["iteration"]
        victim = next(pid for pid in ranks_of(mark, str(np - 1)))
        killed = time.time()
        os.kill(victim, signal.SIGKILL)
        update = waited("the next update", lambda: next_update(run, killed))
        further = waited("a further update", lambda: [one for one in updates_of(run) if one["iteration"] > last])
        lines = history(run)
    finally:
        supervisor.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            supervisor.wait(30)
        for pid in [pid for rank in range(np) for pid in ranks_of(mark, str(rank))]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        supervisor.kill()
        supervisor.wait()
    began = max(line["began_at"] for line in lines if "began_at" in line)
    ended = max((line["ended_at"] for line in lines if (line.get("ended_at") or 0) > killed), default=killed)
    return {
        "all": update["time"] - killed,
        "until the others have ended": ended - killed,
        "until the next attempt trains": began - ended,
        "its first update": update["time"] - began,
        "until it is where it was (beside)": further[0]["time"] - killed,
    }


def ranks_of(mark: bytes, rank: str) -> list[int]:
    """The processes of a job that train as a rank."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark in (environ := (entry / "environ").read_bytes().split(b"\0")):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[1:2] == [b"launch/train.py"] and f"HOROVOD_RANK={rank}".encode() in environ:
                    found.append(int(entry.name))
    return found


def join(folder: Path, network: str, np: int, prefix: Sequence[str]) -> dict[str, float]:
    """What a worker that joins costs the others: seconds without an update, and how slow they are meanwhile."""
    job = ElasticJob(folder, settings(network, 8), np, environ=environment(), prefix=prefix)
    try:
        job.wait_for("an update", lambda: job.iteration() >= WARM_UP[network], PATIENCE_S)
        usual = medians(updates_of(job.run)[WARM_UP[network] // 2 :])
        added = time.time()
        job.add_hosts(1)
        job.wait_for("another worker", lambda: job.size() == np + 1, PATIENCE_S)
        trains = job.worlds()[-1]["time"]
        job.wait_for("an update", lambda: next_update(job.run, trains), PATIENCE_S)
        (change,) = [line for line in history(job.run) if line.get("changed_at", 0) > added]
        lines = updates_of(job.run)
    finally:
        job.kill_all()
    began = change["changed_at"] - change["took_s"]
    before = [line for line in lines if added < line["time"] <= began]
    around = [line for line in lines if line["time"] > began - 5 * usual]
    return {
        "all": longest(around) - usual,
        "without training, as it is recorded": change["took_s"],
        "from the host to the new world (beside)": change["changed_at"] - added,
        "an update before, ms (beside)": 1000 * usual,
        "an update while it prepares, ms (beside)": 1000 * medians(before),
    }


KINDS = {"loss, elastic": lose_elastic, "loss, supervised": lose_supervised, "join": join}


def steps(lines: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds between updates."""
    return [later["time"] - line["time"] for line, later in pairwise(lines)]


def longest(lines: Sequence[dict[str, Any]]) -> float:
    """The longest time between two updates."""
    return max(steps(lines), default=float("nan"))


def medians(lines: Sequence[dict[str, Any]]) -> float:
    """The median time between two updates."""
    return statistics.median(steps(lines) or [float("nan")])


def table(result: dict[str, Any]) -> list[str]:
    """Rows of Markdown: medians, and the range."""
    rows = ["| network | what | part | seconds (median) | range |", "|---|---|---|---|---|"]
    for network, found in result["seconds"].items():
        for name, measured in found.items():
            for part in measured[0]:
                rows.append(_row(network, name, part, [one[part] for one in measured], 2))
        pairs = zip(found.get("loss, elastic", ()), found.get("loss, supervised", ()), strict=False)
        ratios = [ours["all"] / theirs["all"] for ours, theirs in pairs]
        if ratios:
            rows.append(_row(network, "elastic / supervised, a ratio", "all", ratios, 3))
    return rows


def _row(network: str, name: str, part: str, values: Sequence[float], digits: int) -> str:
    shown = [f"{one:.{digits}f}" for one in (statistics.median(values), min(values), max(values))]
    return f"| {network} | {name} | {part} | {shown[0]} | {shown[1]} to {shown[2]} |"


def main() -> None:
    """Measure in turns, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["lenet", "resnet18_v2"], choices=list(WARM_UP))
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="WHAT")
    parser.add_argument("--np", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--link", type=float, metavar="MBIT/S", help="for all jobs (default: not shaped)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # ends the job that is under way, too
    seconds: dict[str, dict[str, list[dict[str, float]]]] = {}
    for network in options.networks:
        seconds[network] = {name: [] for name in options.only}
        for number in range(options.rounds):
            for name in options.only[:: 1 if number % 2 == 0 else -1]:
                with tempfile.TemporaryDirectory() as folder:
                    one = KINDS[name](Path(folder) / "job", network, options.np, shaped(options.link))
                seconds[network][name].append(one)
    result = {"np": options.np, "link": options.link, "seconds": seconds}
    print("\n".join(table(result)))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
