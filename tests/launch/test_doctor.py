"""The check-up of this machine, and of this machine with faults in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import WITHOUT_HOROVOD

ROOT = Path(__file__).parents[2]
CHECKS = ["python", "numpy", "mxnet", "horovod", "host", "mpi4py", "mpi", "gpu"]
CHECKS += ["threads", "horovodrun", "mpirun", "disk"]


def levels(out: str) -> dict[str, str]:
    return {finding["check"]: finding["level"] for finding in json.loads(out)["findings"]}


@pytest.fixture
def start_on_tmpfs(tmp_path):
    """Run the check-up with a folder of runs that is a small file system of its own."""
    alone = ["unshare", "--mount", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here (unshare --mount --map-root-user)")

    def run(options: str, *arguments: str, **environ: str):
        mount = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
        doctor = [sys.executable, "launch/doctor.py", "--set", f"output={tmp_path}", *arguments]
        return subprocess.run(
            [*alone, "sh", "-c", mount, str(tmp_path), *doctor],
            cwd=ROOT,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def before(folder: Path, variable: str) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get(variable)])])


def plant_package(folder: Path, name: str, version: str) -> None:
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.long
def test_this_machine(start, tmp_path):
    out = start("launch/doctor.py", "--np", "1", "--json", "--set", f"output={tmp_path}")
    found = levels(out.stdout)
    assert list(found) == CHECKS
    assert "fix" not in found.values()
    told = {finding["check"]: finding["found"] for finding in json.loads(out.stdout)["findings"]}
    summed = r"mpi, .*, started by horovodrun: 1 KB in [\d.]+ ms, 16 MB at [\d.]+ GB/s"
    assert re.fullmatch("not tested, because of horovod" if WITHOUT_HOROVOD else summed, told["horovodrun"])
    assert re.fullmatch(r"mpi, .*: 1 KB in [\d.]+ ms, 16 MB at [\d.]+ GB/s", told["mpirun"])
    assert told["threads"].startswith("1 rank x 1 thread on ")
    assert re.search(r"digits: [\d.]+ GB free, written at \d+ MB/s", told["disk"])
    assert not list(tmp_path.iterdir())


@pytest.mark.horovod
def test_a_library_missing_a_gpu_without_code_too_many_threads_and_a_read_only_folder(start_on_tmpfs, tmp_path_factory):
    planted = tmp_path_factory.mktemp("planted")
    plant_package(planted, "mxnet-cu117", "1.9.1")
    (planted / "mxnet").mkdir()
    missing = "libcudnn.so.8: cannot open shared object file: No such file or directory"
    (planted / "mxnet/__init__.py").write_text(f"raise OSError({missing!r})\n")
    (planted / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 9.0'\n")
    (planted / "nvidia-smi").chmod(0o755)
    ended = start_on_tmpfs(
        "ro",
        "--np=2",
        PYTHONPATH=before(planted, "PYTHONPATH"),
        PATH=before(planted, "PATH"),
        OMP_NUM_THREADS=str(os.cpu_count()),
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    lines = ended.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    found = dict(reversed(line.split()[:2]) for line in lines[:-1] if not line.startswith(" "))
    assert [check for check, level in found.items() if level == "fix"] == ["mxnet", "gpu", "threads", "disk"]
    assert [check for check, level in found.items() if level == "warning"] == ["horovodrun", "mpirun"]
    text = re.sub(r"\s+", " ", ended.stdout)
    for told in (
        f"1.9.1 cannot be imported: OSError: {missing} -> install the library it names, or put its folder on",
        "NVIDIA H100 80GB HBM3 (compute capability 9.0): mxnet-cu117 has no machine code for it -> no build of MXNet",
        f"2 ranks x {os.cpu_count()} threads on ",
        "digits cannot be written: Read-only file system",
        "not tested, because of mxnet -> fix mxnet first",
    ):
        assert told in text
    assert lines[-1] == "4 to fix, 2 warnings"


@pytest.mark.horovod
def test_horovod_without_mxnet_and_no_space(start_on_tmpfs, tmp_path_factory):
    planted = tmp_path_factory.mktemp("planted")
    # a build without MXNet has everything but the extension
    built = Path(find_spec("horovod").submodule_search_locations[0])
    shutil.copytree(built, planted / "horovod", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    ended = start_on_tmpfs("size=1m", "--np=1", "--json", PYTHONPATH=before(planted, "PYTHONPATH"), OMP_NUM_THREADS="1")
    assert (ended.returncode, ended.stderr) == (1, "")
    found = levels(ended.stdout)
    assert [check for check, level in found.items() if level == "fix"] == ["horovod", "disk"]
    assert found["horovodrun"] == "warning"
    told = {finding["check"]: finding for finding in json.loads(ended.stdout)["findings"]}
    assert told["horovod"]["found"].endswith("was built without MXNet")
    assert "it builds for MXNet" in told["horovod"]["to_do"]
    assert "digits: No space left on device, 0.0 GB free" in told["disk"]["found"]
    assert told["mpirun"]["found"].startswith("mpi, "), "it needs no Horovod"


def test_beside_a_training_run_no_ranks_are_started_and_little_is_written(start_on_tmpfs):
    ended = start_on_tmpfs("size=8m", "--quick", "--json")
    found = levels(ended.stdout)
    assert list(found) == [check for check in CHECKS if check not in ("threads", "horovodrun", "mpirun")]
    assert (found["disk"], ended.returncode) == ("warning", 0), "8 MB are little room, and enough"


@pytest.mark.parametrize(
    ("arguments", "environ", "text"),
    [
        (["--np", "0"], {}, "--np: 0 is not possible; allowed: 1 or more"),
        (["--scaling", "--json"], {}, "have no effect with --scaling"),
        (["--scaling", "--quick"], {}, "have no effect with --scaling"),
        (["--quick", "--np", "2"], {}, "--np is for the check of threads, which --quick skips"),
        (["--emulate-np", "2"], {}, "start real ranks: mpirun -np 2"),
        ([], {"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"}, "start it without a launcher: python launch/doctor.py"),
        (["--set", "trian=1"], {}, "trian: unknown key"),
    ],
)
def test_command_lines_that_mean_nothing(command, monkeypatch, arguments, environ, text):
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    ended = command("doctor", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert text in ended.err


def test_a_number_of_threads_that_cannot_be_is_no_traceback(command, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5000")
    ended = command("doctor")
    assert ended.code == 2
    assert ended.err.startswith("error: OMP_NUM_THREADS: '5000' in the environment is not a number of threads")
