"""Recipes for workers that come and go on a cluster, with programs in the place of the cluster's own.

What a real Slurm and hosts that are cut off make of them is tried by hand, in `tests/clusters/`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess

import pytest
import yaml

from harness.cli.train import parse_arguments
from harness.config import load_config
from tests.conftest import ROOT

SLURM, KUBERNETES = ROOT / "launch/slurm", ROOT / "launch/kubernetes"
OUTCOME = '{\n "exit_code": %d\n}'


@pytest.fixture
def programs(tmp_path):
    """Puts shell scripts in the place of programs, and runs a command with them in a folder of its own."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (tmp_path / "job").mkdir()

    class Programs:
        path = tmp_path
        job = tmp_path / "job"

        def put(self, **scripts):
            for name, text in scripts.items():
                (folder / name).write_text(f"#!/bin/sh\n{text}\n")
                (folder / name).chmod(0o755)

        def run(self, *command, **environ):
            environ = {"PATH": f"{folder}:{os.environ['PATH']}", "HARNESS_JOB": str(self.job), **environ}
            return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30)

    return Programs()


# --- Slurm ---


def discover(programs, **environ):
    given = {"SLURM_JOB_ID": "7", "WORKERS_PER_NODE": "2", **environ}
    return programs.run(str(SLURM / "elastic/hosts.sh"), **given)


def test_the_nodes_of_the_job_are_found(programs):
    programs.put(
        squeue='echo "$*" >>asked; echo "node[1-2]"', scontrol='[ "$3" = "node[1-2]" ] && printf "node1\\nnode2\\n"'
    )
    assert discover(programs).stdout == "node1:2\nnode2:2\n"
    assert discover(programs).stdout == "node1:2\nnode2:2\n"
    assert (programs.path / "asked").read_text() == "--noheader --jobs=7 --format=%N\n", "not asked every second"
    programs.put(scontrol="echo node1")
    os.utime(programs.job / "hosts", (0, 0))
    assert discover(programs).stdout == "node1:2\n"


@pytest.mark.parametrize("squeue", ["exit 1", "echo"])
def test_nodes_are_not_lost_when_the_controller_does_not_answer(programs, squeue):
    programs.put(squeue=squeue, scontrol="echo node9")
    assert discover(programs).returncode != 0
    (programs.job / "hosts").write_text("node1:1\n")
    os.utime(programs.job / "hosts", (0, 0))
    done = discover(programs)
    assert (done.stdout, done.returncode) == ("node1:1\n", 0)


def test_what_horovod_would_start_by_ssh_starts_here(programs):
    """In the words of Horovod itself, so that another version of it cannot change them unnoticed."""
    from horovod.runner.util.remote import get_remote_command

    for how in ({}, {"port": 22, "identity_file": "key"}):
        command = get_remote_command('\'cd / > /dev/null 2>&1 ; env A="1 2" sh -c "pwd; printenv A"\'', "node2", **how)
        done = programs.run("sh", "-c", command, PATH=f"{SLURM}/elastic:{os.environ['PATH']}")
        assert (done.stdout, done.returncode) == ("/\n1 2\n", 0), done.stderr


def work(programs, srun, **environ):
    programs.put(srun=srun, sleep="exit 0")
    words = (str(SLURM / "elastic/worker.sh"), "python", "launch/train.py", "--set", "a=[1, 2]")
    return programs.run(*words, HOROVOD_HOSTNAME="node2", **environ)


def test_a_worker_is_a_step_on_its_node(programs):
    done = work(programs, 'printf "<%s>" "$@"; echo; echo "$PATH"; exit 75')
    words, path = done.stdout.splitlines()
    assert "<--overlap><--nodes=1><--ntasks=1><--nodelist=node2>" in words
    assert words.endswith("<python><launch/train.py><--set><a=[1, 2]>")
    assert done.returncode == 75
    path = f"{SLURM}/elastic:{path}"
    assert work(
        programs, 'echo "$PATH"', PATH=f"{SLURM}/elastic:{programs.path}/programs:{os.environ['PATH']}"
    ).stdout == (f"{path.partition(':')[2]}\n")


def test_a_node_that_is_lost_is_not_taken_for_the_end_of_the_job(programs):
    done = work(programs, "exit 0")
    assert (done.returncode, done.stderr) == (1, "worker.sh: node2 was lost\n")
    (programs.job / "outcome.json").write_text(OUTCOME % 75)
    assert work(programs, "exit 0").returncode == 1
    (programs.job / "outcome.json").write_text(OUTCOME % 0)
    assert work(programs, "exit 0").returncode == 0


@pytest.fixture
def submit(programs):
    """Run the batch script as Slurm would, with a horovodrun that ends as it is told."""
    shutil.copy(SLURM / "elastic.sbatch", programs.path / "slurm_script")
    (programs.path / "launch").symlink_to(ROOT / "launch")
    (programs.path / ".venv/bin").mkdir(parents=True)
    (programs.path / ".venv/bin/activate").touch()
    programs.put(
        horovodrun='printf " <%s>" "$@"; echo; [ -z "$OUTCOME" ] || echo "$OUTCOME" >$HARNESS_JOB/outcome.json; '
        '[ -z "$BEGUN" ] || touch "$HARNESS_JOB/rank-0.pid"; echo "$OMP_NUM_THREADS threads"; exit $CODE',
        squeue='[ "$1" = --steps ] || echo x',
        scontrol='[ "$1" = requeue ] && echo "$*" || printf "node1\\nnode2\\n"',
        ip='echo "default via 10.0.0.1 dev eth7 proto dhcp"',
    )

    def run(*arguments, code=0, outcome=None, **environ):
        environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "4", **environ}
        environ |= {"CODE": str(code), "OUTCOME": "" if outcome is None else OUTCOME % outcome}
        done = programs.run("bash", "slurm_script", *arguments, **environ)
        assert not list(programs.path.glob(".job-*"))
        return done

    return run


def test_what_horovodrun_is_told(submit):
    first, threads = submit("--config", "configs/x.yaml", WORKERS_PER_NODE="2").stdout.splitlines()
    assert "<-np> <4> <--min-np> <1> <--network-interface> <eth7>" in first
    assert first.endswith("<python> <launch/train.py> <--resume> <auto> <--config> <configs/x.yaml>")
    assert threads == "2 threads"
    parse_arguments(re.findall("<(.*?)>", first.partition("<launch/train.py> ")[2]))
    [script, worker] = re.findall(r"<(\S+/launch/slurm/elastic/\w+\.sh)>", first)
    assert os.access(script, os.X_OK)
    assert os.access(worker, os.X_OK)
    again = submit("--overwrite", SLURM_RESTART_COUNT="1", MIN_WORKERS="2", HOROVOD_GLOO_IFACE="ib0").stdout
    assert "<-np> <2> <--min-np> <2> <--network-interface> <ib0>" in again
    assert "<launch/train.py> <--resume> <auto>\n" in again


def test_one_node_alone_has_the_interface_that_horovodrun_wants(submit):
    assert "<--network-interface> <lo>" in submit(SLURM_JOB_NUM_NODES="1", HOROVOD_GLOO_IFACE="ib0").stdout


@pytest.mark.parametrize(
    ("code", "outcome", "begun", "ended", "starts_again"),
    [
        (0, 0, "yes", 0, False),
        (1, 75, "yes", 75, True),
        (1, 7, "yes", 7, True),
        (1, 2, "yes", 2, False),
        (1, None, "yes", 7, True),  # no worker is left that could have said why
        (1, None, "", 1, False),
        (2, None, "", 2, False),
    ],
)
def test_what_is_started_again(submit, code, outcome, begun, ended, starts_again):
    done = submit(code=code, outcome=outcome, BEGUN=begun)
    assert done.returncode == ended
    assert ("requeue 7" in done.stdout.splitlines()) == starts_again


@pytest.mark.parametrize("number", ["0", "5", "two", "-1"])
def test_a_number_of_workers_that_a_node_cannot_have_is_refused(submit, number):
    done = submit(WORKERS_PER_NODE=number)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"WORKERS_PER_NODE='{number}' is not a number of workers from 1 to the 4 cores of a node" in done.stderr


def test_nodes_are_asked_for_such_that_slurm_gives_as_many_as_there_are():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", (SLURM / "elastic.sbatch").read_text(), re.MULTILINE))
    assert re.fullmatch(r"1-\d+", asked["nodes"])
    assert not {"ntasks", "ntasks-per-node"} & asked.keys()
    assert {"no-kill", "requeue", "signal", "cpus-per-task"} <= asked.keys()
    assert asked["signal"].startswith("USR1@")


# --- Kubernetes ---


def test_a_pod_is_found_when_its_sshd_has_answered(programs):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        port = server.getsockname()[1]
        (programs.path / "listed.sh").write_text("#!/bin/sh\necho 127.0.0.1\necho no-such-host.invalid\n")
        (programs.path / "listed.sh").chmod(0o755)
        environ = {"DISCOVER_HOSTS": "./listed.sh", "TMPDIR": str(programs.job)}
        script = str(KUBERNETES / "elastic/hosts.sh")
        unused = str(closed.getsockname()[1])
        closed.close()
        assert programs.run(script, SSH_PORT=unused, **environ).stdout == ""
        assert programs.run(script, SSH_PORT=str(port), **environ).stdout == "127.0.0.1:1\n"
        # one that does not answer for a moment is still there, until the operator says otherwise
        assert programs.run(script, SSH_PORT=unused, **environ).stdout == "127.0.0.1:1\n"
    (programs.path / "listed.sh").write_text("#!/bin/sh\n")
    assert programs.run(script, SSH_PORT=unused, **environ).stdout == ""


def manifest(name):
    return yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text(encoding="utf-8"))


def container(job, role):
    return job["spec"]["mpiReplicaSpecs"][role]["template"]["spec"]["containers"][0]


def test_the_elastic_job_drives_workers_as_the_other_job_has_them():
    job, other = manifest("elastic"), manifest("mpijob")
    worker, plain = container(job, "Worker"), container(other, "Worker")
    for key in ("image", "securityContext", "args", "lifecycle", "readinessProbe", "resources"):
        assert worker[key] == plain[key], key
    assert worker["volumeMounts"] == container(other, "Launcher")["volumeMounts"], "rank 0 may be in any of them"
    assert job["spec"]["sshAuthMountPath"] == other["spec"]["sshAuthMountPath"]

    env, path, horovodrun, *words = container(job, "Launcher")["args"]
    assert (env, horovodrun) == ("env", "horovodrun")
    workdir = "/opt/harness"
    first = path.removeprefix("PATH=").split(":")[0]
    assert first == f"{workdir}/launch/kubernetes/elastic"
    script = words[words.index("--host-discovery-script") + 1]
    for name in (script, f"{first}/ssh"):
        assert os.access(ROOT / name.removeprefix(f"{workdir}/"), os.X_OK)
    replicas = job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]
    assert int(words[words.index("-np") + 1]) <= replicas * job["spec"]["slotsPerWorker"], "or it waits for ever"
    options = parse_arguments(words[words.index("launch/train.py") + 1 :])
    config = load_config(ROOT / options.config, options.set)
    assert options.resume == "auto"
    assert config.batch.shards > replicas, "otherwise no worker can join"
    assert config.threads_per_rank == int(worker["resources"]["limits"]["cpu"])


def test_the_ssh_of_the_launcher_notices_a_host_that_does_not_answer():
    said = (KUBERNETES / "elastic/ssh").read_text()
    interval, count = (int(found) for found in re.findall(r"ServerAlive\w+=(\d+)", said))
    assert interval * count <= 20, "before those that are cut off end by themselves"
