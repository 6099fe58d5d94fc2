"""A real Slurm of several nodes, and what becomes of `launch/slurm/elastic.sbatch` when a job has fewer of them.

`python tests/clusters/slurm_elastic.py`, as root, with Debian's slurm-wlm, munge, openssh-server and iproute2; some
minutes. The nodes are namespaces of this machine (`network.py`). The job gives a node back, loses another one, is told
to stop, and begins again on what is left; it ends with the bits of one process that nothing happened to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from following import Followed
from network import Network
from slurm import ENDED, daemon, make_checkout, munge, wait_for
from stage import check, digest, require

NODES = ("node1", "node2", "node3")
CONFIGURATION = """
ClusterName=several
SlurmctldHost={first}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdTimeout=10
ReturnToService=2
NodeName={nodes} CPUs={cores}
PartitionName=all Nodes=ALL Default=YES
"""
TRAIN = (
    "--config configs/digits.yaml --set batch.shards=4 --set 'train={iterations: 6000}' --set evaluation.every=null "
    "--set checkpoint.every=1000it --set log.every=100it --set guard.stall_after_s=20"
)


class Cluster:
    """Slurm on the nodes of a network; its commands are typed on the first one."""

    def __init__(self, network: Network, folder: Path) -> None:
        """It runs already.

        Args:
            network: the nodes.
            folder: with `slurm.conf`, and the folder in which jobs are submitted.
        """
        self.network, self.checkout = network, folder / "checkout"
        self._prefix = f"cd {self.checkout}; export SLURM_CONF={folder}/slurm.conf;"

    def run(self, command: str) -> str:
        """Type a command, and show what it says."""
        print(f"{NODES[0]}$ {command}", flush=True)
        said = self.ask(command)
        print(said, flush=True)
        return said

    def ask(self, command: str) -> str:
        """What a command says, without a line in the transcript."""
        return self.network.run(NODES[0], f"{self._prefix} {command}", quiet=True, expect=None).strip()

    def nodes_of(self, job: str) -> list[str]:
        """Those that a job has."""
        return self.run(f"scontrol show hostnames $(squeue -h -j {job} -o %N)").split()


@contextmanager
def cluster(network: Network) -> Iterator[Cluster]:
    """Munge, slurmctld on the first node and slurmd on each; whatever jobs are left at the end are cancelled."""
    folder = network.folder
    (folder / "state").mkdir()
    for node in NODES:
        (folder / f"spool-{node}").mkdir()
    configuration = folder / "slurm.conf"
    nodes = ",".join(NODES)
    configuration.write_text(
        CONFIGURATION.format(folder=folder, first=NODES[0], nodes=nodes, cores=os.cpu_count()), encoding="utf-8"
    )
    make_checkout(folder / "checkout")
    with munge(folder), daemons(network, configuration):
        found = Cluster(network, folder)
        wait_for("the nodes", lambda: found.ask("sinfo -h -o %T") == "idle")
        try:
            yield found
        finally:
            found.ask("scancel --full --signal=KILL --user=root; scancel --user=root")
            wait_for("the last jobs to end", lambda: not found.ask("squeue -h"))


@contextmanager
def daemons(network: Network, configuration: Path) -> Iterator[None]:
    """Slurm's own."""
    with ExitStack() as stack:
        for name, nodes in (("slurmctld", NODES[:1]), ("slurmd", NODES)):
            for node in nodes:
                words = network.inside(node, f"SLURM_CONF={configuration} exec {name} -D")
                stack.enter_context(daemon(*words, log=network.folder / f"{name}-{node}.log"))
        yield


class Job(Followed):
    """A job of the recipe."""

    def __init__(self, slurm: Cluster, name: str) -> None:
        """Submit it."""
        self._slurm, self._name = slurm, name
        command = "HOROVOD_GLOO_IFACE=eth0 sbatch --nodes=1-3 --time=20 launch/slurm/elastic.sbatch"
        self.number = slurm.run(f"{command} --set name={name} {TRAIN}").split()[-1]
        super().__init__(slurm.checkout / "runs" / name, lambda: self.field("JobState") == "FAILED", self.show)

    def field(self, name: str) -> str:
        """One of those that Slurm keeps of it."""
        return re.findall(rf"\b{name}=(\S+)", self._slurm.ask(f"scontrol --oneliner show job {self.number}"))[0]

    def show(self) -> str:
        """Its log."""
        log = self._slurm.checkout / f"elastic-{self.number}.log"
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        return "\n".join(
            line for line in text.splitlines() if "images/s" not in line and "uncaught exception" not in line
        )


def shrinks_and_goes_on(slurm: Cluster, unbroken: str) -> None:
    """One job that gives a node back, loses another, is told to stop, and begins again on two."""
    job = Job(slurm, "shrinking")
    job.wait_until(200)
    check("it has three nodes", len(slurm.nodes_of(job.number)) == 3)
    slurm.run(f"squeue --steps --jobs={job.number} --format='%i %N'")
    slurm.run(f"scontrol update JobId={job.number} NumNodes=2")
    job.wait_for_change(1, 2)
    victim = next(node for node in slurm.nodes_of(job.number) if node != job.field("BatchHost"))
    slurm.network.cut(victim)
    job.wait_for_change(2, 1)
    slurm.run("sinfo --Node")
    slurm.run(f"scancel --signal=USR1 {job.number}")
    job.wait_for("the job to begin again", lambda: job.field("Restarts") == "1" and job.field("JobState") == "RUNNING")
    slurm.run(f"squeue --jobs={job.number} --format='%i %T %D %N'")
    slurm.network.join(victim)
    wait_for("its end", lambda: job.field("JobState") in ENDED)
    print(job.show(), flush=True)
    check("it is completed", job.field("JobState") == "COMPLETED")
    check("its digest is the unbroken run's", digest(job.show()) == unbroken)
    job.has_metrics_of(job.folder.with_name("unbroken"))


def main() -> None:
    """Start Slurm, go through everything, and leave nothing."""
    require(sbatch="slurm-wlm", slurmd="slurm-wlm", munged="munge")
    os.environ.pop("SLURM_CONF", None)
    with Network(*NODES) as network, cluster(network) as slurm:
        unbroken = digest(slurm.ask(f"python launch/train.py --set name=unbroken {TRAIN}"))
        shrinks_and_goes_on(slurm, unbroken)
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
