"""What needs neither MXNet nor Horovod nor mpi4py must not ask for them: here none of them can be imported."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.report.folders import make_run

ROOT = Path(__file__).parents[2]
_HEAVY = ("mxnet", "horovod", "mpi4py")
_RUN = """
import runpy, sys
for name in ("mxnet", "horovod", "mpi4py"):
    sys.modules[name] = None
sys.path.insert(0, ".")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SCRIPTS = ("train", "plan", "doctor")
_SEVERAL = """
import contextlib, io, json, runpy, sys
for name in ("mxnet", "horovod", "mpi4py"):
    sys.modules[name] = None
sys.path.insert(0, ".")
for sys.argv in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as leaving:
            code = leaving.code
    print(json.dumps([code or 0, out.getvalue(), err.getvalue()]))
"""


def ends_of(*arguments):
    """Exit code, output and errors of each script with these arguments, one after the other in one process."""
    ended = python(_SEVERAL, json.dumps([[f"launch/{script}.py", *arguments] for script in SCRIPTS]))
    assert (ended.returncode, ended.stderr) == (0, "")
    return dict(zip(SCRIPTS, map(json.loads, ended.stdout.splitlines()), strict=True))


def test_help_without_mxnet():
    for script, (code, out, err) in ends_of("--help").items():
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: {script}.py")
        assert "--set KEY=VALUE" in out


def test_config_errors_without_mxnet():
    for code, out, err in ends_of("--set", "trian=1", "--set", "lr.base=x").values():
        assert (code, out) == (2, "")
        assert err.startswith("error: configs/digits.yaml: ")
        assert "trian: unknown key; did you mean 'train'?" in err
        assert "lr.base: found 'x'; must be" in err
        assert "Traceback" not in err


def test_plans_without_mxnet(tmp_path):
    ended = python(_RUN, "launch/plan.py", "--np", "2", "--output", tmp_path, "--set", "lr.base=0.05")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "0.05 at batch 32 x 2 shards (linear) = 0.1" in ended.stdout
    assert (tmp_path / "digits.png").stat().st_size > 10_000


def test_reports_without_mxnet(tmp_path):
    ended = python(_RUN, "launch/report.py", make_run(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"wrote {tmp_path}/digits/report.html" in ended.stdout


def test_runs_are_compared_without_mxnet(tmp_path):
    folders = [make_run(tmp_path, name) for name in ("a", "b")]
    ended = python(_RUN, "launch/compare.py", *folders)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_pictures_are_packed_and_checked_without_mxnet(tmp_path):
    simplejpeg = pytest.importorskip("simplejpeg")
    pytest.importorskip("cv2")
    (tmp_path / "set/one").mkdir(parents=True)
    (tmp_path / "set/one/a.jpg").write_bytes(simplejpeg.encode_jpeg(np.zeros((9, 9, 3), np.uint8)))
    ended = python(_RUN, "launch/data.py", "pack", tmp_path / "set", tmp_path / "a.rec", "--workers", "1")
    assert (ended.returncode, ended.stderr) == (0, "")
    said = "1 records, 0.0 MB; the harness (there is no MXNet here) reads key, labels and picture of each as they were"
    assert said in ended.stdout
    pictures = ["--set", "data.name=records", "--set", f"data.pictures={{train: {{rec: {tmp_path}/a.rec}}}}"]
    ended = python(_RUN, "launch/data.py", "check", "digits", *pictures)
    assert (ended.returncode, ended.stderr) == (0, "")
    ended = python(_RUN, "launch/data.py", "show", "digits", "--output", tmp_path)
    assert (ended.returncode, ended.stderr) == (2, f"error: {sys.executable} has no mxnet; run `make setup`\n")


def test_the_block_is_real():
    ended = python(_RUN, "launch/train.py", "--set", "output=/nonexistent/nowhere")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {sys.executable} has no mxnet; run `make setup`\n"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("harness", (*_HEAVY, "numpy", "pydantic", "yaml", "matplotlib")),
        ("harness.schedules", (*_HEAVY, "pydantic", "yaml", "matplotlib")),
        ("harness.config", (*_HEAVY, "matplotlib")),
        ("harness.plan", (*_HEAVY, "matplotlib")),
        ("harness.data", (*_HEAVY, "matplotlib")),
        ("harness.comm", _HEAVY),
        ("harness.guard", _HEAVY),
        ("harness.report", (*_HEAVY, "matplotlib")),
        ("harness.doctor", (*_HEAVY, "matplotlib")),
    ],
)
def test_importing_is_cheap_and_silent(module, absent):
    code = "import importlib, sys, os, logging; before = dict(os.environ); importlib.import_module(sys.argv[1]); "
    code += "assert dict(os.environ) == before; assert not logging.getLogger().handlers; print(*sys.modules)"
    ended = python(code, module)
    assert (ended.returncode, ended.stderr) == (0, "")
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert module.partition(".")[0] in loaded
    assert not loaded & set(absent)


def test_the_supervisor_starts_at_once():
    """It imports neither what reads configurations nor ranks, which would take longer than all that it does."""
    slow = ("numpy", "pydantic", "yaml", "harness.comm", "harness.config")
    ended = python(f"import sys, harness.cli.supervise; print(sorted({{*{slow}}} & sys.modules.keys()))")
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
