"""What `install.sh` says on machines that lack something, and what it remembers; on a PATH of a few tools and fakes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = [
    "awk",
    "bash",
    "cat",
    "cp",
    "cut",
    "df",
    "dirname",
    "grep",
    "head",
    "ldd",
    "mkdir",
    "rm",
    "sed",
    "sh",
    "sha256sum",
]
TOOLS += ["tail", "touch", "tr", "uname"]
DISTRIBUTIONS = {
    "debian 13": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\nVERSION_ID="13"\n',
    "debian sid": 'PRETTY_NAME="Debian GNU/Linux forky/sid"\nID=debian\n',
    "debian 11": 'PRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\nID=debian\nVERSION_ID="11"\n',
    "ubuntu 22.04": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\n',
    "ubuntu 24.04": 'PRETTY_NAME="Ubuntu 24.04.2 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
    "rocky": 'PRETTY_NAME="Rocky Linux 9.6 (Blue Onyx)"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"\n',
    "fedora": 'PRETTY_NAME="Fedora Linux 43"\nID=fedora\nVERSION_ID=43\n',
    "leap": 'PRETTY_NAME="openSUSE Leap 15.6"\nID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n',
    "arch": 'PRETTY_NAME="Arch Linux"\nID=arch\n',
    "alpine": 'PRETTY_NAME="Alpine Linux v3.22"\nID=alpine\nVERSION_ID=3.22.1\n',
    "own": 'PRETTY_NAME="Ours 1"\nID=ours\n',
    "none": "",
}
NEEDED = "Python 3.11, 3.12, 3.13 or 3.14"
# A Python that is one only for install.sh: it says its version, imports all but what LACKS names, makes a .venv of
# itself, and writes down what pip is told to do; pip fails with the text in PIP_FAILS, and without the files that it
# is to read (whose list it splits at spaces).
PYTHON = r"""#!/bin/bash
case "$*" in
--version) echo "Python ${VERSION:-3.13.5}" ;;
*"import sys; print("*%d.%d.%d*) echo "${VERSION:-3.13.5}" ;;
*"import sys; print("*) version=${VERSION:-3.13.5}; echo "${version%.*}" ;;
*"import ctypes; "*) [ "${LACKS:-}" != libgomp ] ;;
-c\ import*) [[ "${LACKS:-none}" != "${2#import }" ]] ;;
*"-m venv --clear"*) rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo "venv" >>"$DID" ;;
*"-m pip --version"*) ;;
*"-m pip"*)
    for file in ${PIP_CONSTRAINT:-}; do [ -e "$file" ] || { echo "ERROR: $file does not exist"; exit 1; }; done
    echo "$*" >>"$DID"; [ -z "${PIP_FAILS:-}" ] || { echo "$PIP_FAILS"; exit 1; } ;;
*"-m harness.build_horovod"*)
    echo "$* ${HOROVOD_GPU_OPERATIONS:-} ${HOROVOD_WITH_MPI:-}" >>"$DID"
    touch "$3/horovod-0.28.1-cp313.whl" ;;
*) echo "$*" >>"$DID" ;;
esac
"""


class Machine:
    """A PATH of its own, a distribution, and the files of a checkout that the set-up reads."""

    def __init__(self, folder: Path) -> None:
        self.path, self.checkout, self.did = folder / "bin", folder / "a checkout", folder / "did"
        self.path.mkdir()
        (self.checkout / "harness").mkdir(parents=True)
        for name in ("install.sh", "constraints.txt", "setup.py", "harness/build_horovod.py"):
            shutil.copy(ROOT / name, self.checkout / name)
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool))
        self.is_called("debian 13")
        for tool in ("g++", "make"):
            self.has(tool, "#!/bin/sh\n")
        self.has("python3", PYTHON)

    def has(self, name: str, script: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        (self.path / name).write_text(script)
        (self.path / name).chmod(0o755)

    def lacks(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink()

    def is_called(self, distribution: str) -> None:
        (self.path.parent / "os-release").write_text(DISTRIBUTIONS[distribution])

    def set_up(self, **environ: str) -> subprocess.CompletedProcess:
        own = {"PATH": str(self.path), "OS_RELEASE": str(self.path.parent / "os-release"), "DID": str(self.did)}
        own |= {"HOME": str(self.path.parent)}
        command = ["bash", str(self.checkout / "install.sh")]
        return subprocess.run(command, env={**own, **environ}, capture_output=True, text=True, check=False, timeout=300)

    def is_told(self, **environ: str) -> str:
        """The one line with which a set-up ends that cannot be done."""
        ended = self.set_up(**environ)
        assert ended.returncode == 1, ended.stdout + ended.stderr
        assert not (self.checkout / ".venv/installed").exists()
        [line] = ended.stderr.splitlines()
        return line.removeprefix("setup: ")

    def choices(self) -> str:
        return (self.checkout / ".venv/choices").read_text()

    def calls(self) -> list[str]:
        """What the fake Python was told to do since the last time."""
        done = self.did.read_text().splitlines() if self.did.exists() else []
        self.did.unlink(missing_ok=True)
        return done


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("distribution", "hint"),
    [
        ("debian 13", "On Debian GNU/Linux 13 (trixie): apt-get install python3 python3-venv"),
        ("debian sid", "On Debian GNU/Linux forky/sid: apt-get install python3 python3-venv"),
        (
            "debian 11",
            "Debian GNU/Linux 11 (bullseye) has no such Python: install uv, which brings one, or set PYTHON=",
        ),
        ("ubuntu 22.04", "On Ubuntu 22.04.5 LTS: apt-get install python3.11 python3.11-venv"),
        ("ubuntu 24.04", "On Ubuntu 24.04.2 LTS: apt-get install python3 python3-venv"),
        ("rocky", "On Rocky Linux 9.6 (Blue Onyx): dnf install python3.12"),
        ("leap", "On openSUSE Leap 15.6: zypper install python312"),
        ("arch", "On Arch Linux: pacman -S python"),
        ("own", "Install that on Ours 1, whose packages are not known here"),
        ("none", "Install that"),
    ],
)
def test_no_python(machine, distribution, hint):
    machine.lacks("python3")
    machine.is_called(distribution)
    assert machine.is_told().startswith(f"this machine lacks {NEEDED}. {hint}")


def test_a_python_that_is_too_old_or_too_new(machine):
    for version in ("3.9.2", "3.10.13", "3.15.0"):
        found = machine.is_told(VERSION=version)
        assert found.startswith(f"this machine lacks {NEEDED} ({machine.path}/python3 is {version}). On Debian")
    machine.has("old", PYTHON)
    chosen = machine.is_told(PYTHON="old", VERSION="3.9.2")
    assert chosen == f"PYTHON={machine.path}/old is Python 3.9.2; set it to the path of a {NEEDED}"
    assert machine.is_told(PYTHON="/no/python").startswith("PYTHON=/no/python cannot be run; set it to the path of")


def test_another_python_is_found_beside_one_that_does_not_fit(machine):
    machine.has("python3.12", PYTHON.replace("VERSION", "OTHER"))
    assert machine.set_up(VERSION="3.9.2", OTHER="3.12.1", WITH_HOROVOD="0").returncode == 1  # has no mpirun
    assert f"PYTHON={machine.path}/python3.12\n" in machine.choices()


@pytest.mark.parametrize(
    ("distribution", "hint"),
    [
        ("debian 13", ": apt-get install python3.13-venv"),
        ("fedora", ": dnf install python3.13-pip"),
        ("leap", ": zypper install python313-pip"),
    ],
)
def test_no_venv(machine, distribution, hint):
    machine.is_called(distribution)
    found = machine.is_told(LACKS="ensurepip, venv")
    assert found.startswith(f"this machine lacks the modules venv and ensurepip of {machine.path}/python3. On ")
    assert found.endswith(hint)


def test_a_python_without_ssl(machine):
    assert "was built without the module ssl, which pip or MXNet needs: set PYTHON=" in machine.is_told(LACKS="ssl")


@pytest.mark.parametrize(
    ("distribution", "compiler"),
    [("debian 13", "apt-get install g++"), ("rocky", "dnf install gcc-c++"), ("leap", "zypper install gcc-c++")],
)
def test_no_compiler(machine, distribution, compiler):
    machine.lacks("g++")
    machine.is_called(distribution)
    found = machine.is_told()
    assert found.startswith("this machine lacks a C++ compiler. On ")
    assert found.endswith(
        f": {compiler} (or choose WITH_HOROVOD=0, which builds nothing: one process, or mpirun on CPUs)"
    )


def test_all_that_is_missing_is_told_at_once(machine):
    machine.lacks("g++", "make")
    found = machine.is_told(LACKS="libgomp")
    assert "lacks libgomp.so.1 or libquadmath.so.0, which MXNet loads; a C++ compiler; make. On Debian" in found
    assert ": apt-get install libgomp1 libquadmath0 g++ make (or choose WITH_HOROVOD=0" in found
    machine.lacks("python3")
    assert ": apt-get install python3 python3-venv g++ make (or" in machine.is_told()


def test_no_make(machine):
    machine.lacks("make")
    assert machine.is_told().startswith(
        "this machine lacks make. On Debian GNU/Linux 13 (trixie): apt-get install make (or"
    )


def test_no_space(machine):
    machine.has("df", "#!/bin/sh\necho Filesystem Blocks Used Available\necho /dev/vda 9 9 204800 9% /\n")
    found = machine.is_told()
    assert found.startswith(f"200 MB are free in {machine.checkout}, and .venv needs 1300 MB: free some, or move the ")


def test_no_space_while_pip_installs(machine):
    found = machine.is_told(PIP_FAILS="ERROR: Could not install packages: [Errno 28] No space left on device")
    assert found.startswith("installing setuptools: no space left (")
    assert found.endswith(f"Free some and run this again; the log is {machine.checkout}/.venv/setup.log")
    machine.calls()
    machine.is_told(PIP_FAILS="ERROR: something else")
    assert machine.calls()[0] == "venv", "what was half installed is not built upon"


def test_no_network(machine):
    machine.has("python3", f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} "$@"\n')
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1"}
    found = machine.is_told(**unreachable)
    refused = "Failed to establish a new connection: [Errno 111] Connection refused"
    assert found.startswith(
        f"installing setuptools: pip cannot reach its package index ({refused}). Check the network, "
    )
    assert found.endswith(f"says; the log is {machine.checkout}/.venv/setup.log")


def test_other_failures_of_pip_are_one_line(machine):
    found = machine.is_told(PIP_FAILS="Collecting setuptools\nERROR: No matching distribution found for setuptools==1")
    assert found.startswith(
        "installing setuptools: ERROR: No matching distribution found for setuptools==1; the log is "
    )


def test_musl_and_other_machines(machine):
    machine.is_called("alpine")
    assert machine.is_told().startswith("Alpine Linux v3.22 has the C library musl, but MXNet's wheels need glibc: use")
    machine.is_called("own")
    machine.has("ldd", "#!/bin/sh\necho 'musl libc (x86_64)' >&2\nexit 1\n")
    assert machine.is_told().startswith("Ours 1 has the C library musl")
    machine.has("uname", '#!/bin/sh\n[ "$1" = -s ] && echo Linux || echo aarch64\n')
    assert machine.is_told() == "this is Linux on aarch64, but MXNet's wheels are for Linux on x86_64 alone"


def test_uv_brings_a_python(machine):
    machine.has("python3.12-uv", PYTHON)
    machine.has("uv", f'#!/bin/bash\necho "uv $*" >>"$DID"\n[ "$2" != find ] || echo {machine.path}/python3.12-uv\n')
    machine.has("mpirun", '#!/bin/bash\necho "ready: summed"\n')
    machine.lacks("python3")
    assert machine.set_up(WITH_HOROVOD="0").returncode == 0
    assert machine.calls()[:2] == ["uv python install --quiet 3.12", "uv python find 3.12"]
    machine.has("python3", PYTHON)
    assert machine.set_up(USE_UV="1").returncode == 0
    assert machine.calls() == ["uv python find 3.12"], "it is what .venv was made with"
    assert machine.set_up(PYTHON="python3").returncode == 0
    assert f"PYTHON={machine.path}/python3\n" in machine.choices()
    assert machine.set_up(USE_UV="1").returncode == 0
    assert f"PYTHON={machine.path}/python3.12-uv\n" in machine.choices()
    machine.lacks("uv")
    shutil.rmtree(machine.checkout / ".venv")
    assert machine.is_told(USE_UV="1").startswith("USE_UV=1, but uv is not on PATH")


def test_what_was_chosen_is_remembered(machine):
    machine.has("mpirun", '#!/bin/bash\necho "ready: summed"\n')
    machine.lacks("g++", "make")
    first = machine.set_up(WITH_HOROVOD="0", WITH_DEV="0")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines()[-1] == "setup: ready: summed"
    calls = machine.calls()
    assert any("--editable .[mpich] " in call for call in calls)
    assert not any("horovod" in call or "cmake" in call for call in calls if "uninstall" not in call)
    again = machine.set_up()
    assert (again.returncode, again.stdout) == (0, "setup: without Horovod (WITH_HOROVOD=1 make setup adds it)\n")
    assert machine.calls() == []
    assert "lacks a C++ compiler; make" in machine.set_up(WITH_HOROVOD="1").stderr
    assert machine.set_up(WITH_DEV="1").returncode == 0
    assert any("--editable .[mpich,dev] " in call for call in machine.calls())


def test_horovod_is_built_as_chosen_and_once(machine):
    machine.has("horovodrun", '#!/bin/bash\necho "[0]<stdout>:ready: summed"\n')
    cache = {"HARNESS_CACHE": str(machine.did.parent / "cache")}
    machine.has("g++", "#!/bin/sh\necho 14\n")
    done = machine.set_up(**cache)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "setup: ready: summed")
    [built] = [call for call in machine.calls() if "build_horovod" in call]
    assert re.search(r"/cache/horovod-0\.28\.1_mxnet-1\.9\.1_mpi0_\S*_14_[0-9a-f]{8}  $", built)
    shutil.rmtree(machine.checkout / ".venv")
    assert machine.set_up(**cache).returncode == 0
    assert not [call for call in machine.calls() if "build_horovod" in call], "its wheel is there"
    assert machine.set_up(**cache, WITH_CUDA="cu117", WITH_MPI="1").returncode == 0
    venv, *calls = machine.calls()
    assert venv == "venv", "two builds of MXNet would share a folder"
    [built] = [call for call in calls if "build_horovod" in call]
    assert re.search(r"_mxnet-cu117-1\.9\.1_mpi1_\S*_14_[0-9a-f]{8} NCCL 1$", built)
    assert machine.set_up(**cache, WITH_CUDA="", WITH_MPI="0").returncode == 0
    assert "WITH_CUDA=\n" in machine.choices()


def test_ranks_that_cannot_sum_are_one_line_with_the_first_cause(machine):
    machine.has("mpirun", '#!/bin/bash\nprintf "trace\\n[1]OSError: no network\\nRuntimeError: later\\n" >&2\nexit 1\n')
    found = machine.is_told(WITH_HOROVOD="0")
    assert found.startswith("a sum over two ranks failed: OSError: no network; the log is ")
    assert found.endswith(". .venv/bin/activate && mpirun -np 2 python -m harness.comm.smoke auto")


def test_choices_that_contradict_each_other(machine):
    assert machine.is_told(WITH_HOROVOD="0", WITH_CUDA="cu117").startswith("WITH_HOROVOD=0, but WITH_CUDA=cu117")
    assert machine.is_told(WITH_DEV="no").endswith("WITH_DEV=no WITH_PICTURES=0 WITH_TORCH=0: each is 0 or 1")


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_an_image_is_set_up_from_all_that_the_set_up_reads(name, tmp_path):
    stage = (ROOT / name).read_text().split("\nFROM ")[1]
    for sources, target in re.findall(r"^COPY (.+) (\S+)$", stage, re.MULTILINE):
        for path in (path for pattern in sources.split() for path in ROOT.glob(pattern)):
            place = tmp_path / target
            place.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, place, dirs_exist_ok=True) if path.is_dir() else shutil.copy(path, place)
    assert {"install.sh", "constraints.txt", "setup.py", "pyproject.toml"} <= set(os.listdir(tmp_path))
    modules = [f"harness.comm.{path.stem}" for path in (ROOT / "harness/comm").glob("*.py")]
    # an editable installation may have a finder, which would look into the checkout for what is not here
    program = "import sys; sys.meta_path = [one for one in sys.meta_path if 'editable' not in str(one).lower()]; "
    program += f"import harness_compat, harness.build_horovod, {', '.join(sorted(modules))}"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
