"""What launch/slurm/train.sbatch makes of each end of the ranks, with programs in srun's and scontrol's place."""

import os
import re
import shutil
import subprocess

import pytest

from tests.launch.conftest import ROOT

SCRIPT = ROOT / "launch/slurm/train.sbatch"
SRUN = '#!/bin/sh\nprintf "$OMP_NUM_THREADS threads:"; printf " <%s>" "$@"; echo\nexit $ENDS_WITH\n'
SCONTROL = '#!/bin/sh\necho "scontrol $*"\nexit $REFUSES\n'


@pytest.fixture
def submitted(tmp_path):
    """Run the script as Slurm would, a copy of it and in the folder in which it was submitted."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    spooled = tmp_path / "slurm_script"
    shutil.copy(SCRIPT, spooled)

    def run(code, *arguments, restarts=None, refuses=0, **environ):
        environ |= {} if restarts is None else {"SLURM_RESTART_COUNT": str(restarts)}
        environ |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3"}
        environ |= {"ENDS_WITH": str(code), "REFUSES": str(refuses)}
        done = subprocess.run(
            ["bash", spooled, *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=10
        )
        srun, *scontrol = done.stdout.splitlines()
        assert done.stderr.count("train.sbatch:") == 1
        return srun, scontrol, done.returncode

    return run


@pytest.mark.parametrize(
    ("code", "restarts", "starts_again"),
    [
        (0, None, False),
        (1, None, False),
        *[(code, 3, False) for code in (2, 3, 4, 5, 6, 8, 16)],
        (75, None, True),
        (75, 99, True),
        *[(code, restarts, restarts != 10) for code in (7, 137, 143) for restarts in (None, 9, 10)],
    ],
)
def test_what_is_started_again(submitted, code, restarts, starts_again):
    _, scontrol, ended = submitted(code, restarts=restarts)
    assert scontrol == (["scontrol requeue 7"] if starts_again else [])
    assert ended == code


def test_the_limit_is_the_users(submitted):
    assert submitted(7, restarts=1, MAX_RESTARTS="1")[1] == []
    assert submitted(7, restarts=1, MAX_RESTARTS="2")[1] == ["scontrol requeue 7"]


def test_the_code_is_kept_where_slurm_refuses(submitted):
    assert submitted(75, refuses=1)[1:] == (["scontrol requeue 7"], 75)


def test_what_the_ranks_are_told(submitted):
    srun, _, _ = submitted(0, "--set", "network.params={hidden: [8, 8]}")
    assert srun == (
        "3 threads: <--mpi=pmi2> <--kill-on-bad-exit=0> <--wait=60> <--cpus-per-task=3> <python> <launch/train.py> "
        "<--resume> <auto> <--set> <network.params={hidden: [8, 8]}>"
    )


def test_a_set_to_go_on_from_is_for_the_first_start(submitted):
    assert submitted(0, "--resume", "PATH")[0].endswith(" <--resume> <auto> <--resume> <PATH>")
    assert submitted(0, "--resume", "PATH", restarts=1)[0].endswith(" <--resume> <PATH> <--resume> <auto>")


def test_no_environment_is_said(submitted, tmp_path):
    """Without .venv nothing is started, and the job fails."""
    (tmp_path / ".venv/bin/activate").unlink()
    done = subprocess.run(["bash", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=10)
    assert done.returncode == 1
    assert ".venv/bin/activate: No such file or directory" in done.stderr


def test_what_slurm_is_asked_for():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", SCRIPT.read_text(), re.MULTILINE))
    assert asked["signal"].startswith("USR1@")
    assert "B:" not in asked["signal"], "the signal is for the ranks, and not for the script"
    assert {"requeue", "open-mode", "ntasks", "cpus-per-task", "time", "output"} <= asked.keys()
    assert asked["open-mode"] == "append"
