"""Two hosts joined by ssh: the bits of one host, a link that is cut, what differs between them, and no shared disk.

`python tests/clusters/hosts.py`, as root, with Debian's openssh-server and iproute2; seven minutes. The hosts are
namespaces of this machine (`network.py`) and gone at the end.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

from network import Network
from stage import ROOT, check, digest

TRAIN = "python launch/train.py"
CONFIG = "configs/digits.yaml"
LONG = "--set train.epochs=300 --set evaluation.every=null --set checkpoint.every=500it"
HOROVODRUN = "horovodrun -np 2 -H host1:1,host2:1"
MPIRUN = "mpirun -np 2 --host host1,host2"
# Debian's Open MPI: it does not pass the environment on by itself
OPEN_MPI = "/usr/bin/mpirun --allow-run-as-root -np 2 --host host1:1,host2:1 -x PATH -x PYTHONPATH -x OMP_NUM_THREADS"


def main() -> None:
    with Network("host1", "host2") as network:
        the_bits_of_one_host(network)
        unbroken = digest(network.run("host1", f"mpirun -np 2 {TRAIN} --set name=unbroken {LONG}"))
        a_short_cut(network, unbroken)
        a_cut(network, "mpi", MPIRUN, f"{LONG} --set guard.stall_after_s=10", unbroken)
        a_cut(network, "mpi-horovodrun", HOROVODRUN, f"{LONG} --set guard.stall_after_s=10", unbroken)
        a_cut(network, "horovod", HOROVODRUN, f"{LONG} --set comm=horovod", unbroken)
        a_supervised_cut(network, unbroken)
        rank_0_elsewhere(network)
        differences(network)
        for name in network.names:
            check(f"nothing is left running on {name}", not network.wait_until_idle(name, 30)[1])


def the_bits_of_one_host(network: Network) -> None:
    launchers = {2: [HOROVODRUN, MPIRUN], 4: ["mpirun -np 4 --host host1:2,host2:2"]}
    has_open_mpi = Path("/usr/bin/mpirun").exists()
    if (
        has_open_mpi
        and "Open MPI" in subprocess.run(["/usr/bin/mpirun", "--version"], capture_output=True, text=True).stdout
    ):
        launchers[2].append(OPEN_MPI)
    for np, across in launchers.items():
        one_host = digest(network.run("host1", f"mpirun -np {np} {TRAIN} --overwrite"))
        for launcher in across:
            found = digest(network.run("host1", f"{launcher} {TRAIN} --overwrite"))
            check(f"{launcher.split(' -')[0]} -np {np} on two hosts: the digest of one host", found == one_host)
    check("host2 has kept nothing", not list(network.runs("host2").iterdir()))


def a_short_cut(network: Network, unbroken: str) -> None:
    job = begin(network, "short-cut", f"{MPIRUN} {TRAIN}", f"{LONG} --set guard.stall_after_s=30")
    network.cut("host2")
    time.sleep(3)
    network.join("host2")
    check("a cut of 3 s is waited out, and the digest is the unbroken one", digest(network.finish(job)) == unbroken)


def a_cut(network: Network, what: str, launcher: str, options: str, unbroken: str) -> None:
    """The link is cut for good; then it is mended, and the job is started again by hand."""
    name = f"cut-{what}"
    job = begin(network, name, f"{launcher} {TRAIN}", options)
    network.cut("host2")
    for host, after_s in ranks_end_s(network).items():
        print(f"# {after_s:.1f} s after the cut no rank is left on {host}")
    for rank, host in enumerate(network.names):
        told = json.loads((network.runs(host) / name / f"failures/rank-{rank}.json").read_text(encoding="utf-8"))
        print(f"# {host}: rank-{rank}.json: {told['cause']}")
        check(f"rank {rank}, on {host}, ended with 7", told["exit_code"] == 7)
        check("it names the rank that is silent", f"rank {1 - rank} (pid " in told["cause"])
    outcome = json.loads((network.runs("host1") / name / "outcome.json").read_text(encoding="utf-8"))
    check("the outcome is 7", outcome["exit_code"] == 7)
    show_left(network, "while the link is cut")
    network.join("host2")
    network.wait_until_idle("host2", 60)
    show_left(network, "with the link back")
    job.terminate()  # MPICH's mpirun is still there
    said = job.communicate(timeout=60)[0]
    print("\n".join(line for line in said.splitlines() if "error: rank" in line))
    for host in network.names:
        check(f"then nothing is left on {host}", not network.wait_until_idle(host, 60)[1])
    again = network.run("host1", f"{launcher} {TRAIN} --resume auto --set name={name} {options}")
    check("it went on from a set", "resuming after iteration" in again)
    check("the digest is the unbroken one", digest(again) == unbroken)


def a_supervised_cut(network: Network, unbroken: str) -> None:
    """The same without anybody who starts it again."""
    command = f"python launch/supervise.py --grace 15 -- {MPIRUN} {TRAIN}"
    job = begin(network, "supervised", command, f"{LONG} --set guard.stall_after_s=10")
    network.cut("host2")
    ranks_end_s(network)
    time.sleep(20)
    network.join("host2")
    said = network.finish(job)
    check("the supervisor started it again", said.count("restarting") == 1)
    check("the digest is the unbroken one", digest(said) == unbroken)


def rank_0_elsewhere(network: Network) -> None:
    turned = MPIRUN.replace("host1,host2", "host2,host1")
    said = network.run("host1", f"{turned} {TRAIN} --resume auto --set name=supervised {LONG}", expect=4)
    check(
        "rank 0 on a host without sets does not begin anew",
        "rank 0, on host2, has no checkpoint, but rank 1 has" in said,
    )


def differences(network: Network) -> None:
    """What is planted on host2 alone, in front of the file that both see, is named and ends the job with 5."""
    sizes, digits, config = (
        ROOT / name for name in ("harness/plan/sizes.py", "harness/data/files/digits.csv.gz", CONFIG)
    )
    metadata = Path(str(distribution("numpy").locate_file(f"numpy-{distribution('numpy').version}.dist-info/METADATA")))
    row, *rows = gzip.decompress(digits.read_bytes()).decode().splitlines(keepends=True)
    other_label = f"{row.rpartition(',')[0]},{(int(row.rpartition(',')[2]) + 1) % 10}\n"
    planted = {
        "code.harness": (sizes, sizes.read_bytes() + b"# edited\n"),
        "versions.numpy": (metadata, re.sub(rb"(?m)^Version: .*$", b"Version: 1.23.4", metadata.read_bytes())),
        "training data": (digits, gzip.compress("".join([other_label, *rows]).encode())),
        "lr.base": (config, config.read_bytes().replace(b"base: 0.1", b"base: 0.2")),
    }
    for number, (what, (path, content)) in enumerate(planted.items()):
        with in_front_of(network, path, content, network.folder / f"planted-{number}"):
            launcher = (MPIRUN, HOROVODRUN)[number % 2]
            expect = 5 if launcher == MPIRUN else 1  # horovodrun's own code is 1, and it tells that of the rank
            said = network.run("host1", f"{launcher} {TRAIN} --overwrite", expect=expect)
        check(f"{what} is named, with both ranks", f"{what}: " in said and " on rank 1" in said)
        check("every rank ended with 5", expect == 5 or "Exit code: 5" in said)


@contextmanager
def in_front_of(network: Network, path: Path, content: bytes, other: Path) -> Iterator[None]:
    """On host2 a path has another content for a while."""
    shutil.copy(path, other)
    other.write_bytes(content)
    network.run("host2", f"mount --bind {other} {path}", quiet=True)
    print(f"# host2 has another {path.name}")
    yield
    network.run("host2", f"umount {path}", quiet=True)


def begin(network: Network, name: str, command: str, options: str) -> subprocess.Popen[str]:
    """Start a job, and wait until it is past iteration 1000, of which there is a set."""
    job = network.start("host1", f"{command} --set name={name} {options}")
    metrics = network.runs("host1") / name / "metrics.jsonl"
    while job.poll() is None and not (metrics.exists() and '"iteration": 1010,' in metrics.read_text(encoding="utf-8")):
        time.sleep(0.05)
    check("the job is past iteration 1000", job.poll() is None)
    return job


def ranks_end_s(network: Network) -> dict[str, float]:
    """Seconds until no rank was left on each host."""
    began_s, found = time.monotonic(), {}
    while len(found) < len(network.names) and time.monotonic() - began_s < 120:
        for name in network.names:
            ranks = [line for line in network.processes(name) if line.startswith(TRAIN)]
            if not ranks and name not in found:
                found[name] = time.monotonic() - began_s
        time.sleep(0.1)
    check("every rank has ended", len(found) == len(network.names))
    return found


def show_left(network: Network, when: str) -> None:
    for name in network.names:
        programs = [Path(line.split()[0]).name.rstrip(":") for line in network.processes(name)]
        print(f"# left on {name} {when}: {', '.join(programs) or 'nothing'}", flush=True)


if __name__ == "__main__":
    main()
