"""Jobs that are forked behave as those that are started: the same bits, ends, signals and files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import CLIENT, ROOT

PROGRAM = """
import atexit, os, sys, time
atexit.register(print, "ended")
print(sys.argv, os.getcwd(), os.environ.get("SOME"), "mxnet" in sys.modules, os.getpid(), flush=True)
print("an error", file=sys.stderr)
how = sys.argv[1]
if how == "raises":
    raise RuntimeError("a fault")
if how == "waits":
    sys.stdin.read(1)
    time.sleep(60)
sys.exit(int(how))
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize(("how", "code"), [("0", 0), ("7", 7), ("raises", 1)])
def test_a_job_gets_what_it_is_given_and_ends_as_it_ends(start, program, tmp_path, how, code):
    forked = start(program, how, exit_code=code, cwd=tmp_path, SOME="x")
    fresh = start(program, how, exit_code=code, cwd=tmp_path, SOME="x", fresh=True)
    assert forked.stdout.rsplit(" ", 2)[:1] == fresh.stdout.rsplit(" ", 2)[:1]
    assert ("True" in forked.stdout, "True" in fresh.stdout) == (True, False)
    assert ("RuntimeError: a fault" in forked.stderr) == (how == "raises")
    assert forked.stderr.startswith("an error\n")
    assert forked.stdout.endswith("\nended\n")


def test_what_is_read_when_modules_are_imported_makes_it_an_ordinary_process(start, program):
    assert " False " in start(program, "0", OMP_NUM_THREADS="2").stdout


def test_modules_are_found_where_pythonpath_says(start, tmp_path):
    """As an ordinary process finds them, which a job becomes where they would replace some that are imported."""
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "asked_for.py").write_text("import sys\nprint(sys.path[:5])\n")
    program = tmp_path / "program.py"
    program.write_text("import asked_for, sys\nprint('mxnet' in sys.modules)\n")
    path = os.pathsep.join(filter(None, ["beside", os.environ.get("PYTHONPATH")]))
    fresh = start(program, cwd=tmp_path, PYTHONPATH=path, fresh=True).stdout
    assert str(beside) in fresh
    assert start(program, cwd=tmp_path, PYTHONPATH=path).stdout == fresh.replace("False", "True")
    (beside / "harness.py").touch()
    assert start(program, cwd=tmp_path, PYTHONPATH=path).stdout == fresh


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_signals_reach_the_job_and_its_end_comes_back(fork_server, program, number):
    client = [sys.executable, "-I", "-S", str(CLIENT), str(program), "waits"]
    environ = {**os.environ, **fork_server.environ}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(client, cwd=ROOT, env=environ, text=True, **pipes) as process:
        pid = int(process.stdout.readline().split()[-1])
        assert pid != process.pid
        assert fork_server.num_jobs() == 1
        process.stdin.write("go")
        process.stdin.flush()
        os.kill(process.pid, number)
        assert process.wait(timeout=60) == -number
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)
    assert fork_server.num_jobs() == 0


def test_a_forked_run_has_the_bits_of_a_fresh_one(start, tmp_path):
    def digest(name, **how):
        settings = ("train={iterations: 20}", "lr.schedule=1x", f"output={tmp_path}", f"name={name}")
        words = [word for setting in settings for word in ("--set", setting)]
        return re.search(r"digest ([0-9a-f]{64})", start("launch/train.py", *words, np=2, **how).stdout)[1]

    assert digest("fresh", fresh=True, launcher="mpirun") == digest("forked", launcher="mpirun") == digest("horovod")


def test_code_and_modules_are_run_as_well(start):
    code = "import sys; print(__name__, sys.argv, 'mxnet' in sys.modules); sys.exit(3)"
    assert start("-c", code, "x", exit_code=3).stdout == "__main__ ['-c', 'x'] True\n"
    assert start("-m", "harness.comm.smoke").stdout == start("-m", "harness.comm.smoke", fresh=True).stdout


TOGETHER = """
import os, time
import mpi4py.MPI
if os.environ["PMI_RANK"] == "0":
    open("begun", "w").close()
    time.sleep(0.2)
    print("the end of rank 0", flush=True)
while not os.path.exists("begun"):
    time.sleep(0.01)
os._exit(7)
"""


def test_a_rank_of_mpirun_that_fails_leaves_the_others_a_moment(start, tmp_path):
    """Clients end later than their processes, and mpirun would kill those of ranks that fail at the same time."""
    program = tmp_path / "together.py"
    program.write_text(TOGETHER)
    assert "the end of rank 0" in start(program, np=2, launcher="mpirun", exit_code=7, cwd=tmp_path).stdout


SPAWNS = """
import multiprocessing, os, sys
def tell(pipe):
    pipe.send("mxnet" in sys.modules)
    os.setsid()
    sys.exit(5)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=tell, args=(there,))
    process.start()
    print(here.recv())
    process.join()
    sys.exit(process.exitcode)
"""


def test_what_a_job_spawns_is_forked_and_may_make_a_session_of_its_own(start, tmp_path):
    program = tmp_path / "spawns.py"
    program.write_text(SPAWNS)
    assert start(program, exit_code=5).stdout == "True\n"
    assert start(program, exit_code=5, fresh=True).stdout == "False\n"


def test_every_job_draws_numbers_of_its_own(start, tmp_path):
    program = tmp_path / "draws.py"
    program.write_text("import random\nimport numpy\nprint(random.random(), numpy.random.random())")
    first, second = (start(program).stdout.split() for _ in range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))
