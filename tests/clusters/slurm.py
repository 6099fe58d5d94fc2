"""A real Slurm of one node, and what becomes of `launch/slurm/train.sbatch` on it.

`python tests/clusters/slurm.py`, from the environment that `make setup` made: eight minutes on two quiet cores. Jobs
reach their time limit, lose a rank, lose their node, are preempted, signalled, cancelled and wrong; those that are to
end, end with the bits of a run that nothing happened to.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from stage import ROOT, check, digest, require, run

NODE = socket.gethostname().partition(".")[0]
# short waits instead of the usual minutes; `low` gives way to `urgent`
CONFIGURATION = """
ClusterName=one
SlurmctldHost={node}(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=1
NodeName={node} NodeAddr=127.0.0.1 CPUs={cores}
PartitionName=low Nodes={node} Default=YES PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes={node} PriorityTier=2 PreemptMode=OFF
"""
SETTINGS = ("train.epochs=1500", "evaluation.every=500ep", "checkpoint.every=500it", "log.every=500it")
TRAIN = " ".join(f"--set {setting}" for setting in SETTINGS)
BATCH = "launch/slurm/train.sbatch"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY")


@contextmanager
def daemon(*words: str, log: Path) -> Iterator[None]:
    """One that stays in the foreground, and is ended."""
    with log.open("a") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def munge(folder: Path) -> Iterator[None]:
    """What Slurm's daemons and commands identify themselves by, at `munge.socket` in a folder that all may enter."""
    folder.chmod(0o755)
    subprocess.run(["mungekey", "--create", f"--keyfile={folder}/munge.key"], check=True)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munged = [f"--{option}={folder}/munge.{ending}" for option, ending in files.items()]
    with daemon("munged", "--foreground", *munged, log=folder / "munged"):
        wait_for("munged", (folder / "munge.socket").exists)
        yield


def make_checkout(checkout: Path) -> None:
    """A folder that looks like this checkout after `make setup`, and has runs and logs of its own."""
    checkout.mkdir()
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name != "runs":
            (checkout / path.name).symlink_to(path)
    (checkout / ".venv").symlink_to(sys.prefix)


@contextmanager
def cluster(folder: Path) -> Iterator[Callable[[], None]]:
    """Munge, slurmctld and slurmd, in a folder of their own; whatever jobs are left at the end are cancelled.

    Yields:
        What starts the node anew.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, node=NODE, cores=os.cpu_count()))
    os.environ["SLURM_CONF"] = str(configuration)
    with ExitStack() as stack:
        stack.enter_context(munge(folder))
        stack.enter_context(daemon("slurmctld", "-D", log=folder / "slurmctld"))
        node = stack.enter_context(ExitStack())

        def start_node() -> None:
            node.close()
            node.enter_context(daemon("slurmd", "-D", log=folder / "slurmd"))

        start_node()
        try:
            wait_for("the node", lambda: ask("sinfo -h -o %T") == "idle")
            yield start_node
        except SystemExit:
            for log in ("slurmctld", "slurmd"):
                run(f"tail -n 40 {folder / log}")
            raise
        finally:
            ask("scancel --full --signal=KILL --user=root")
            ask("scancel --user=root")
            wait_for("the last jobs to end", lambda: not ask("squeue -h"))


def ask(command: str) -> str:
    """What a command says, without a line in the transcript; nothing where it fails."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    return done.stdout.strip()


def wait_for(what: str, holds: Callable[[], object], timeout_s: float = 240.0) -> None:
    """Look every quarter of a second.

    Nothing of Slurm's takes long here: a requeued job waits `cred_expire` (5 s) and a scheduler's round (2 s), one that
    is preempted has its `GraceTime` (20 s), ranks that lost their srun end after pmi2 has tried to reach it for 15 s,
    and what is still there after `KillWait` (30 s) is killed. The rest of the limit is for a machine that is busy.

    Raises:
        SystemExit: if it does not come; what Slurm knows is shown before.
    """
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            for shown in ("show job", "show node"):
                print(f"$ scontrol {shown}\n{ask(f'scontrol {shown}')}", flush=True)
            raise SystemExit(f"FAILED: waited {timeout_s:g} s for {what}")
        time.sleep(0.25)


class SlurmJob:
    """A submitted job that trains under its own name."""

    def __init__(self, checkout: Path, name: str, options: str = "--time=10", train: str = TRAIN) -> None:
        """Submit it; `options` are sbatch's, `train` the arguments of launch/train.py."""
        self._run = partial(run, cwd=checkout)
        said = self._run(f"sbatch --job-name={name} {options} {BATCH} --set name={name} {train}")
        self.number = said.split()[-1]
        self._name = name
        self._log = checkout / f"{name}-{self.number}.log"
        self._folder = checkout / "runs" / name

    def field(self, name: str) -> str:
        """One of those that Slurm keeps of the job."""
        return re.findall(rf"\b{name}=(\S+)", ask(f"scontrol --oneliner show job {self.number}"))[0]

    def restarts(self) -> int:
        """How often it was requeued and started again."""
        return int(self.field("Restarts"))

    def wait_until_it_trains(self, restarts: int = 0) -> None:
        """Until that start has saved a set of its own.

        Sets come by iterations. Lines of the log do not: there is one in five seconds, in which a fast machine may
        train to the end.

        Raises:
            SystemExit: if it never will, because the job has ended or was started more often; or does not in time.
        """
        before: int | None = None

        def has_saved() -> bool:
            nonlocal before
            state, count = self.field("JobState"), self.restarts()
            if state in ENDED or count > restarts:
                self.show()
                what = f"job {self.number} is {state} after {count} restarts"
                raise SystemExit(f"FAILED: {what}, before start {restarts} was seen to train")
            if state != "RUNNING" or count != restarts:
                return False
            before = self._saved() if before is None else before
            return self._saved() > before

        wait_for(f"start {restarts} of job {self.number} to save", has_saved)

    def _saved(self) -> int:
        """The iteration of the newest set; 0 if there is none."""
        names = (path.name for path in (self._folder / "checkpoints").glob("iteration-*"))
        return max((int(found[1]) for name in names if (found := re.fullmatch(r"iteration-(\d+)", name))), default=0)

    def wait_for_state(self, state: str, timeout_s: float = 1200.0) -> None:
        """Until the job has ended, and see how."""
        wait_for(f"job {self.number} to end", lambda: self.field("JobState") in ENDED, timeout_s)
        if self.field("JobState") != state:
            self.show()
        check(f"job {self.number} is {state}", self.field("JobState") == state)

    def show(self) -> str:
        """Its log and what Slurm says of it."""
        said = self._run(f"cat {self._log.name}")
        self._run(f"scontrol show job {self.number}")
        return said

    def outcome(self) -> int:
        """The exit code in the run's outcome.json."""
        return int(json.loads((self._folder / "outcome.json").read_text())["exit_code"])

    def kill_rank(self) -> None:
        """End rank 1 as the kernel does when memory is short."""
        processes = ask(f"scontrol listpids {self.number}.0").splitlines()[1:]  # PID JOBID STEPID LOCALID GLOBALID
        pid = next(line.split()[0] for line in processes if line.split()[-1] == "1")
        run(f"kill -KILL {pid}")


def reaches_its_limit(checkout: Path, unbroken: str, minutes: int) -> None:
    """Signalled 20 to 50 s before the limit, again and again; Slurm looks every 30 s."""
    job = SlurmJob(checkout, "limit", f"--time={minutes} --signal=USR1@20")
    job.wait_for_state("COMPLETED")
    said = job.show()
    saved = re.findall(r"stopped on request \(SIGUSR1 to ranks? [\d, ]+\): saved after iteration (\d+)", said)
    gone_on = re.findall(r"resuming after iteration (\d+)", said)
    if not saved:
        raise SystemExit("FAILED: this machine trained to the end before the limit; raise train.epochs in SETTINGS")
    check(f"signalled before its limit, saved after iteration {', '.join(saved)}", True)
    check("each start went on where the one before had saved", saved == gone_on)
    check("Slurm counts these restarts", job.restarts() == len(saved))
    check("the digest is the unbroken run's", digest(said) == unbroken)


def goes_through_everything(checkout: Path, unbroken: str, start_node: Callable[[], None]) -> None:
    """One job to which everything happens that Slurm knows."""
    job = SlurmJob(checkout, "rough")
    job.wait_until_it_trains()
    run(f"scancel --signal=TERM {job.number}")
    job.wait_until_it_trains(restarts=1)
    job.kill_rank()
    job.wait_until_it_trains(restarts=2)
    run(f"scontrol update NodeName={NODE} State=DOWN Reason=test")
    # a node that was really down has forgotten the job
    left = rf"pgrep -f 'name=rough|slurmstepd: \[{job.number}\.'"
    wait_for("the node to be empty", lambda: job.field("JobState") == "PENDING" and not ask(left))
    start_node()
    run(f"scontrol update NodeName={NODE} State=RESUME")
    job.wait_until_it_trains(restarts=3)
    run(f"srun --partition=urgent --ntasks={os.cpu_count()} true")
    job.wait_until_it_trains(restarts=4)
    job.wait_for_state("COMPLETED")
    said = job.show()
    # a third time, if srun lived long enough to pass on what the ranks said when their node was taken down
    check("SIGTERM and preemption: saved", said.count("stopped on request (SIGTERM to rank") in (2, 3))
    check("each start resumed what the one before had saved", said.count("resuming after iteration") == 4)
    check("the digest is the unbroken run's", digest(said) == unbroken)


def is_cancelled(checkout: Path) -> None:
    """`scancel` alone is for good, and saves."""
    job = SlurmJob(checkout, "cancelled")
    job.wait_until_it_trains()
    run(f"scancel {job.number}")
    job.wait_for_state("CANCELLED")
    wait_for("its end", lambda: job.field("JobState") != "COMPLETING")
    time.sleep(10)
    check("it saved, and is not started again", job.outcome() == 75 and job.field("JobState") == "CANCELLED")
    job.show()


def loses_ranks_for_ever(checkout: Path) -> None:
    """A job that must not be started again."""
    os.environ["MAX_RESTARTS"] = "0"
    job = SlurmJob(checkout, "unlucky")
    del os.environ["MAX_RESTARTS"]
    job.wait_until_it_trains()
    job.kill_rank()
    job.wait_for_state("FAILED")
    said = job.show()
    check("srun says that one was killed", "ended with 137, outcome: 7, again: false" in said)
    check("Slurm keeps the run's code", job.field("ExitCode") == "7:0" and job.outcome() == 7)


def is_wrong(checkout: Path) -> None:
    """Each way to be wrong ends at once, with its code."""
    job = SlurmJob(checkout, "wrong", train="--set lr.bse=0.1")
    job.wait_for_state("FAILED")
    job.show()
    check("Slurm keeps the code", job.field("ExitCode") == "2:0" and job.restarts() == 0)
    said = run("srun --ntasks=2 --mpi=none python launch/train.py", cwd=checkout, expect=2)
    check("what to do is said", "srun tells it nothing of the others. Use `srun --mpi=pmi2` for MPICH" in said)
    differ = "exec python launch/train.py --set lr.base=0.$((SLURM_PROCID+1))"
    said = run(["srun", "--ntasks=2", "--mpi=pmi2", "bash", "-c", differ], cwd=checkout, expect=5)
    check("the ranks compare what they were told", "lr.base: 0.1 on rank 0; 0.2 on rank 1" in said)
    absent = "[ $SLURM_PROCID = 1 ] && exit 3; sleep 1000"
    run(["srun", "--ntasks=2", "--wait=5", "bash", "-c", absent], expect=137)


def has_a_bare_environment(checkout: Path) -> None:
    """Ranks get the script's environment, and not the little that was submitted with it."""
    job = SlurmJob(checkout, "bare", "--export=PYTHONPATH --time=10", "--set train.epochs=1")
    job.wait_for_state("COMPLETED")
    check("ranks run in .venv", "done after 22 iterations" in job.show())


def runs_on_open_mpi(checkout: Path) -> None:
    """The other MPI."""
    short = "python launch/train.py --set train.epochs=1 --set name"
    here = partial(run, cwd=checkout)
    mpich = here(f"srun --ntasks=2 --mpi=pmi2 {short}=mpich")
    with_open_mpi = {**os.environ, "MPI4PY_LIBMPI": "libmpi.so.40"}
    open_mpi = here(f"srun --ntasks=2 --mpi=pmix {short}=open-mpi", env=with_open_mpi)
    check("MPICH and Open MPI were at work", "(mpi, MPICH" in mpich and "(mpi, Open MPI" in open_mpi)
    check("and ended with the same bits", digest(mpich) == digest(open_mpi))


def main() -> None:
    """Start Slurm, go through everything, and leave nothing."""
    os.environ.pop("SLURM_CONF", None)
    require(sbatch="slurm-wlm", slurmd="slurm-wlm", munged="munge", **{"mpirun.openmpi": "openmpi-bin"})
    if not list(Path("/usr/lib").glob("*/libpmix.so")):
        raise SystemExit("Slurm's pmix needs libpmix.so: apt-get install libpmix-dev")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("FAILED: told to stop"))
    # ranks of this checkout, whoever's environment they run in
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder, checkout = Path(name), Path(name) / "checkout"
        make_checkout(checkout)
        begun_s = time.monotonic()
        unbroken = digest(run(f"python launch/train.py --emulate-np 2 --set name=unbroken {TRAIN}", cwd=checkout))
        # a limit within the run, and after what a busy machine needs to start ranks
        minutes = max(1, round((time.monotonic() - begun_s) / 120))
        with cluster(folder) as start_node:
            run("srun --version")
            run("srun --mpi=list")
            runs_on_open_mpi(checkout)
            is_wrong(checkout)
            has_a_bare_environment(checkout)
            reaches_its_limit(checkout, unbroken, minutes)
            goes_through_everything(checkout, unbroken, start_node)
            is_cancelled(checkout)
            loses_ranks_for_ever(checkout)
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
