"""The wheel and the sdist: what they hold, and the commands of an installed package in an empty folder."""

from __future__ import annotations

import configparser
import email
import os
import pkgutil
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import NamedTuple

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

import harness

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "runs", "plans", "sheets", "build", "dist")
BUILD = "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_wheel(out); b.build_sdist(out)"
HELP_OF_ALL = """
import contextlib, sys
from harness.cli import scripts

for name in sys.argv[1:]:
    sys.argv = ["/bin/harness-" + name.replace("_", "-"), "--help"]
    with contextlib.suppress(SystemExit):
        getattr(scripts, name)()
"""
COMMANDS = sorted(path.stem for path in ROOT.glob("launch/*.py"))
SHORT = ("--set", "train={iterations: 20}", "--set", "checkpoint={every: 20it}")

pytestmark = pytest.mark.long


class Built(NamedTuple):
    """What was built from one folder."""

    wheel: Path
    sdist: Path


def build(source: Path, output: Path) -> Built:
    """Build the folder of a project, with the tools of this environment."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(output)]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel], [sdist] = output.glob("*.whl"), output.glob("*.tar.gz")
    return Built(wheel, sdist)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files_in(folder: Path) -> set[str]:
    """The files of a folder of the checkout, relative to the checkout."""
    found = (path.relative_to(ROOT) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Built from a copy, because building writes beside the sources."""
    folder = tmp_path_factory.mktemp("building")
    copytree(ROOT, folder / "project", ignore=ignore_patterns(*LEFT_OUT))
    return build(folder / "project", folder)


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Run a command of the wheel, in an environment that has nothing else of its own and no checkout on its path."""
    place, folder = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("empty")
    venv.create(place, symlinks=True)
    python, bare = place / "bin" / "python", {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(built.wheel)], env=bare, check=True)
    purelib = sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
    # as a line of a .pth file, a folder is on the path, but its own .pth files (an editable checkout's) are not read
    here = sysconfig.get_path("purelib")
    distutils = Path(here, "distutils-precedence.pth").read_text(encoding="utf-8")  # of setuptools, which lies there
    Path(purelib, "of_the_tests.pth").write_text(f"{here}\n{distutils}\n", encoding="utf-8")
    library = Path(sys.prefix, "lib", "libmpi.so.12")
    bare |= {"MPI4PY_LIBMPI": str(library)} if library.exists() else {}
    bare |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    bare["PATH"] = os.pathsep.join([str(place / "bin"), str(Path(sys.executable).parent), bare["PATH"]])

    def run(*words: object, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        command = list(map(str, words))
        done = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == exit_code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def test_the_wheel_holds_the_package_its_configurations_and_nothing_else(built):
    names = {name for name in contents(built.wheel) if ".dist-info/" not in name}
    configs = {f"harness/{name}" for name in files_in(ROOT / "configs")}
    assert {"harness/configs/digits.yaml", "harness/configs/schema.json"} <= configs
    assert {"harness/py.typed", "harness/report/templates/run.html"} <= names
    assert names == files_in(ROOT / "harness") | files_in(ROOT / "harness_compat") | configs | {"harness_compat.pth"}


def test_the_sdist_builds_the_same_wheel_and_holds_no_tests(built, tmp_path):
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [project] = tmp_path.iterdir()
    needed = {"LICENSE", "Makefile", "README.md", "configs", "constraints.txt", "docs", "install.sh", "launch"}
    assert needed <= set(os.listdir(project))
    assert not {"tests", "benchmarks", ".ci"} & set(os.listdir(project))
    assert contents(build(project, tmp_path).wheel) == contents(built.wheel)


def test_the_metadata(built):
    files = {name.partition(".dist-info/")[2]: content for name, content in contents(built.wheel).items()}
    Metadata.from_email(files["METADATA"], validate=True)
    metadata = email.message_from_bytes(files["METADATA"])
    assert metadata["Version"] == harness.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert files["licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# ")
    pythons = re.findall(r"Python :: (3\.\d+)$", "\n".join(metadata.get_all("Classifier")), re.MULTILINE)
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize(("python", "brought"), [("3.12", {"mxnet"}), ("3.13", set())])
def test_the_extra_for_cpus_brings_mxnet_where_its_metadata_allows_the_numpy(built, python, brought):
    metadata = next(content for name, content in contents(built.wheel).items() if name.endswith("/METADATA"))
    requirements = [Requirement(line) for line in email.message_from_bytes(metadata).get_all("Requires-Dist")]
    of_cpu = {"python_version": python, "extra": "cpu"}
    extra = {one.name for one in requirements if one.marker is not None and one.marker.evaluate(of_cpu)}
    assert extra == brought | {"graphviz", "requests", "mpich"}
    assert "horovod" not in {one.name for one in requirements}, "an index's is built without MXNet"


def test_every_program_has_a_command(built):
    files = {name.partition(".dist-info/")[2]: content for name, content in contents(built.wheel).items()}
    entries = configparser.ConfigParser()
    entries.read_string(files["entry_points.txt"].decode())
    scripts = dict(entries["console_scripts"])
    expected = {f"harness-{name.replace('_', '-')}": f"harness.cli.scripts:{name}" for name in COMMANDS}
    assert scripts == {**expected, "harness-build-horovod": "harness.build_horovod:main"}
    assert all(callable(pkgutil.resolve_name(place)) for place in scripts.values())


def test_a_command_calls_itself_as_it_was_typed(installed):
    typed = [f"harness-{name.replace('_', '-')}" for name in COMMANDS]
    said = installed("python", "-c", HELP_OF_ALL, *COMMANDS).stdout
    assert re.findall(r"^usage: (\S+)", said, re.MULTILINE) == typed


def test_the_installed_package_is_the_wheels(installed):
    said = installed("python", "-c", "import harness; print(harness.__file__)").stdout
    assert re.search(r"/installed\d+/lib/", said)


def digest(output: str) -> str:
    return re.search(r"digest ([0-9a-f]{64})$", output, re.MULTILINE)[1]


def test_it_trains_as_the_checkout_does(installed, start, tmp_path):
    expected = start("launch/train.py", *SHORT, "--set", f"output={tmp_path}").stdout
    supervised = installed("harness-supervise", "--", "harness-train", *SHORT, "--set", "name=one").stdout
    assert digest(supervised) == digest(expected)
    expected = start("launch/train.py", *SHORT, "--overwrite", "--set", f"output={tmp_path}", np=2, launcher="mpirun")
    two = installed("mpirun", "-np", "2", "harness-train", "--config", "digits", *SHORT, "--set", "name=two").stdout
    assert digest(two) == digest(expected.stdout)

    listed = installed("harness-checkpoint", "list", "runs/two").stdout
    assert re.fullmatch(r"iteration-000000020 +[\d.]+ MB  valid\n", listed)
    installed("harness-report", "runs/two", "--output", "page.html")
    page = installed("cat", "page.html").stdout
    assert "mpirun -np 2 harness-train --config digits" in page
    assert re.search(r"mpirun -np 2 harness-train --config runs/two/config.yaml --set name=two-again", page)


def test_it_finds_a_learning_rate(installed):
    said = installed("harness-find-lr", "--config", "digits.yaml", "--set", "finder.num_iterations=40").stdout
    assert "state restored: digest" in said
    assert "wrote runs/digits/finder/report.html" in said


def test_it_previews_a_shipped_configuration_by_name_and_lists_them(installed):
    said = installed("harness-plan", "--config", "one_cycle", "--against", "digits", "--samples", "6400").stdout
    assert re.search(r"^config: \S+/harness/configs/one_cycle\.yaml, 6400 samples", said, re.MULTILINE)
    said = installed("harness-plan", "--config", "nosuch", exit_code=2).stderr
    assert said.startswith(
        "error: nosuch: cannot be read (No such file or directory); give a file, or a name: cifar10_"
    )


def test_its_doctor_finds_the_stack(installed):
    said = installed("harness-doctor", "--quick").stdout
    assert re.search(r"^ok +mxnet +1\.9\.1$", said, re.MULTILINE)


def test_what_is_missing_is_named_with_what_installs_it(installed):
    start = "import sys; sys.modules['mxnet'] = None; sys.argv = ['harness-train']; import harness.cli.scripts as s; "
    said = installed("python", "-c", f"{start} sys.exit(s.train())", exit_code=2).stderr
    option = "--no-deps " if sys.version_info >= (3, 13) else ""
    assert said.endswith(f"has no mxnet; run `pip install {option}mxnet==1.9.1`\n")
    start = start.replace("mxnet", "pydantic")
    said = installed("python", "-c", f"{start} sys.exit(s.train())", exit_code=1).stderr
    assert said.endswith("has no 'pydantic'; see pip check\n")
