"""What launch/slurm/train.sbatch makes of each end of the ranks, with programs in srun's and scontrol's place."""

import os
import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "launch/slurm/train.sbatch"
SRUN = r"""#!/bin/sh
printf "$OMP_NUM_THREADS threads:"; printf " <%s>" "$@"; echo
[ -z "$OUTCOME" ] || echo "$OUTCOME" > "$HARNESS_JOB/outcome.json"
exit $ENDS_WITH
"""
SCONTROL = '#!/bin/sh\necho "scontrol $*"\nexit $REFUSES\n'


@pytest.fixture
def submit(tmp_path):
    """Run the script as Slurm would, a copy of it and in the folder in which it was submitted."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    (tmp_path / "kept for jobs").mkdir()
    shutil.copy(SCRIPT, tmp_path / "slurm_script")
    (tmp_path / "launch").symlink_to(ROOT / "launch")

    def run(code=0, *arguments, restarts=None, refuses=0, outcome="", **environ):
        environ |= {} if restarts is None else {"SLURM_RESTART_COUNT": str(restarts)}
        environ |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3"}
        environ |= {"ENDS_WITH": str(code), "REFUSES": str(refuses), "TMPDIR": str(tmp_path / "kept for jobs")}
        environ |= {"OUTCOME": f'{{\n "cause": "exit_code: 1",\n "exit_code": {outcome}\n}}' if outcome != "" else ""}
        command = ["bash", str(tmp_path / "slurm_script"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=10)
        assert list((tmp_path / "kept for jobs").iterdir()) == []
        return done

    return run


@pytest.fixture
def submitted(submit):
    """What srun was told, what scontrol was told, and the exit code, of a job that could begin."""

    def run(*arguments, **how):
        done = submit(*arguments, **how)
        srun, *scontrol = done.stdout.splitlines()
        assert len(re.findall(r"train\.sbatch: restart \d+ ended with \d+, outcome: ", done.stderr)) == 1
        return srun, scontrol, done.returncode

    return run


@pytest.mark.parametrize(
    ("code", "restarts", "starts_again"),
    [
        (0, None, False),
        (1, None, False),
        *[(code, 3, False) for code in (2, 3, 4, 5, 6, 8, 16, 70, 127, 128)],
        (75, None, True),
        (75, 99, True),
        *[(code, restarts, restarts != 10) for code in (7, 137, 143) for restarts in (None, 9, 10)],
        *[(code, 9, True) for code in (129, 130, 139, 199, 200, 255)],
    ],
)
def test_what_is_started_again(submitted, code, restarts, starts_again):
    _, scontrol, ended = submitted(code, restarts=restarts)
    assert scontrol == (["scontrol requeue 7"] if starts_again else [])
    assert ended == code


@pytest.mark.parametrize(
    ("code", "outcome", "starts_again"),
    [
        *[(code, outcome, False) for code in (7, 137, 143) for outcome in (0, 1, 2, 3, 4, 5, 6, 8)],
        (137, 7, True),
        (75, 7, True),
        (0, 75, True),
        (143, 75, True),
    ],
)
def test_the_runs_own_outcome_outranks_the_code_of_srun(submitted, code, outcome, starts_again):
    """A rank that was killed after the run had failed for good does not make it worth another start."""
    _, scontrol, ended = submitted(code, outcome=outcome)
    assert scontrol == (["scontrol requeue 7"] if starts_again else [])
    assert ended == outcome


def test_a_lost_rank_that_the_run_noticed_is_counted(submitted):
    assert submitted(137, outcome=7, restarts=10)[1:] == ([], 7)


@pytest.mark.parametrize("outcome", ["}", "null", '"seven"', "[]"])
def test_an_outcome_that_cannot_be_read_counts_as_none(submitted, outcome):
    assert submitted(137, outcome=outcome)[1:] == (["scontrol requeue 7"], 137)


def test_the_limit_is_the_users(submitted):
    assert submitted(7, restarts=1, MAX_RESTARTS="1")[1] == []
    assert submitted(7, restarts=1, MAX_RESTARTS="2")[1] == ["scontrol requeue 7"]
    assert submitted(7, restarts=1, MAX_RESTARTS="")[1] == ["scontrol requeue 7"]


@pytest.mark.parametrize("number", ["ten", "-1", "1.5", "9" * 20, "1 2", "*"])
def test_a_limit_that_is_no_number_is_said_before_anything_is_trained(submit, number):
    done = submit(7, MAX_RESTARTS=number)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"MAX_RESTARTS='{number}' is not a number of restarts; allowed: 0 to 999999999" in done.stderr


def test_the_code_is_kept_where_slurm_refuses(submit):
    done = submit(75, refuses=1)
    assert (done.stdout.splitlines()[1:], done.returncode) == (["scontrol requeue 7"], 75)
    assert "Slurm does not requeue job 7; submit it again" in done.stderr


def test_what_the_ranks_are_told(submitted):
    srun, _, _ = submitted(0, "--set", "network.params={hidden: [8, 8]}")
    assert srun == (
        "3 threads: <--export=ALL> <--mpi=pmi2> <--kill-on-bad-exit=0> <--wait=60> <--cpus-per-task=3> <python> "
        "<launch/train.py> <--resume> <auto> <--set> <network.params={hidden: [8, 8]}>"
    )


@pytest.mark.parametrize(
    ("arguments", "first", "later"),
    [
        ([], "<--resume> <auto>", "<--resume> <auto>"),
        (
            ["--resume", "a path"],
            "<--resume> <auto> <--resume> <a path>",
            "<--resume> <a path> <--resume> <auto>",
        ),
        (["--overwrite", "--quiet"], "<--overwrite> <--quiet>", "<--quiet> <--resume> <auto>"),
        (
            ["--resume", "never", "--overwrite"],
            "<--resume> <never> <--overwrite>",
            "<--resume> <never> <--resume> <auto>",
        ),
        (["--evaluate-only"], "<--evaluate-only>", "<--evaluate-only>"),
    ],
)
def test_a_requeued_job_resumes_what_it_has_begun(submitted, arguments, first, later):
    assert submitted(0, *arguments)[0].partition("<launch/train.py> ")[2] == first
    assert submitted(0, *arguments, restarts=1)[0].partition("<launch/train.py> ")[2] == later


@pytest.mark.parametrize("words", [["--overwrite"], ["--evaluate-only"], ["--resume", "never", "--overwrite"]])
@pytest.mark.parametrize("restarts", [0, 1])
def test_the_command_line_is_one_that_training_takes(submitted, words, restarts):
    from harness.cli.train import parse_arguments

    said = submitted(0, *words, restarts=restarts)[0].partition("<launch/train.py> ")[2]
    parse_arguments(re.findall("<(.*?)>", said))


def test_no_environment_is_said(submit, tmp_path):
    """Without .venv nothing is started, and the job fails."""
    (tmp_path / ".venv/bin/activate").unlink()
    done = submit(0)
    assert (done.returncode, done.stdout) == (1, "")
    assert ".venv/bin/activate: No such file or directory" in done.stderr
    assert f"no environment in {tmp_path}; run sbatch in the project folder, after make setup" in done.stderr


def test_what_slurm_is_asked_for():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", SCRIPT.read_text(), re.MULTILINE))
    assert asked["signal"].startswith("USR1@")
    assert "B:" not in asked["signal"], "the signal is for the ranks, and not for the script"
    assert {"requeue", "open-mode", "ntasks", "cpus-per-task", "time", "output"} <= asked.keys()
    assert asked["open-mode"] == "append"
