"""Asked to stop before anything has begun, a program says so in one line: 75 for a run, 130 for a tool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.processes import descendants
from tests.conftest import launched_by

ROOT = Path(__file__).parents[2]
SLOW_IMPORT = """
import pathlib, sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name in ("pydantic", "harness.supervising.supervise"):
            pathlib.Path({told!r}, "import.pid").touch()
            time.sleep(3600)

sys.meta_path.insert(0, Slow())
"""
NOTHING = "before the first update; nothing was changed"


def _take_ctrl_c():
    """A suite that was started in the background of a shell ignores Ctrl-C, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(command, folder, num=1, **environ):
    """A process that has come to what takes long, which tells so in a folder."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_take_ctrl_c,
    )
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.pid"))) < num and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def ended(process):
    try:
        return process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (["launch/train.py"], signal.SIGINT, 75),
        (["launch/train.py"], signal.SIGTERM, 75),
        (["launch/find_lr.py"], signal.SIGINT, 75),
        (["launch/plan.py"], signal.SIGINT, 130),
        (["launch/report.py", "runs/x"], signal.SIGINT, 130),
        (["launch/compare.py", "runs/x", "runs/y"], signal.SIGINT, 130),
        (["launch/checkpoint.py", "list", "runs/x"], signal.SIGINT, 130),
        (["launch/data.py", "check", "x.yaml"], signal.SIGINT, 130),
        (["launch/doctor.py"], signal.SIGINT, 130),
        (["launch/supervise.py", "--", "true"], signal.SIGINT, 130),
    ],
)
def test_in_the_very_imports(tmp_path, words, number, code):
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT.format(told=str(tmp_path)))
    process = started([sys.executable, *words], tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    process.send_signal(number)
    out, err = ended(process)
    assert (process.returncode, out) == (code, "")
    assert err.count("\n") == 1
    assert (NOTHING if code == 75 else "stopped by Ctrl-C") in err


def settings(tmp_path):
    data = f"data={{name: 'tests.programs.slow_data:load', params: {{told: '{tmp_path}'}}}}"
    return ["--set", data, "--set", f"output={tmp_path}", "--set", "network.name=mlp"]


def test_while_data_are_read(tmp_path):
    words = [sys.executable, "launch/train.py", *settings(tmp_path)]
    process = started(words, tmp_path, PYTHONPATH=str(ROOT))
    process.send_signal(signal.SIGINT)
    _, err = ended(process)
    assert process.returncode == 75
    assert err == f"stopped on request (SIGINT) {NOTHING}\n"
    assert not (tmp_path / "digits").exists()


def test_a_signal_to_one_rank_stops_all_and_the_supervisor_hears_of_it(tmp_path):
    words = [*launched_by("mpirun", 2), sys.executable, "launch/train.py", *settings(tmp_path)]
    command = [sys.executable, "launch/supervise.py", "--at-most", "0", "--", *words]
    process = started(command, tmp_path, num=2, PYTHONPATH=str(ROOT))
    os.kill(int(next(tmp_path.glob("*.pid")).stem), signal.SIGTERM)
    _, err = ended(process)
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert "exit code 75: stopped on request (SIGTERM to rank" in err
    assert NOTHING in err


def test_a_signal_to_one_rank_in_its_imports_stops_all_and_the_supervisor_hears_of_it(tmp_path):
    """MPICH's launcher waits for the others, who wait for the rank, where that ends before MPI_Init."""
    slow = SLOW_IMPORT.format(told=str(tmp_path)).replace("if name", "if os.environ.get('PMI_RANK') == '1' and name")
    (tmp_path / "sitecustomize.py").write_text(f"import os{slow}")
    words = [*launched_by("mpirun", 2), sys.executable, "launch/train.py", "--set", f"output={tmp_path}"]
    command = [sys.executable, "launch/supervise.py", "--at-most", "0", "--", *words]
    process = started(command, tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    waiting = [pid for pid in descendants(process.pid) if b"PMI_RANK=1" in environ_of(pid)]
    os.kill(waiting[0], signal.SIGTERM)
    _, err = ended(process)
    assert process.returncode == 75, err
    assert f"supervise: exit code 75: stopped on request (SIGTERM) {NOTHING}" in err


def environ_of(pid):
    return (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
