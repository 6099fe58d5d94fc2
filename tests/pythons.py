"""Other Pythons, and with them other versions of NumPy: the same bits as here, and the tests that are about bits.

    python tests/pythons.py set-up     a clone of this commit for each, in .pythons/, without Horovod
    python tests/pythons.py test       with .venv active: every digest is that of .venv, then the tests

`PYTHONS` names them (default: 3.12 and 3.13), the newest release of each that pyenv or the path has. All have to give
the digests of .venv. The tests run on the last, which is the farthest from .venv in both versions; on those between
only what imports MXNet beside their NumPy. `HARNESS_THOROUGH=1` runs all tests on all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLONES = ROOT / ".pythons"
PYTHONS = os.environ.get("PYTHONS", "3.12 3.13").split()
THOROUGH = os.environ.get("HARNESS_THOROUGH") == "1"
# beside the digests: what computes bits, or reads and writes them
TESTS = ("compat", "schedules", "plan", "data", "checkpoint")
BETWEEN = ("compat",)
# damage and memory, which are as they are in .venv, and take a third of the time
LEFT_TO_THOROUGH = (
    *(f"data/test_{name}.py" for name in ("damaged_pictures", "large_sets")),
    "checkpoint/test_damage.py",
)
# a run with everything that draws at random
CONVOLUTIONS = (
    "network={name: cnn, params: {channels: [6, 16], hidden: 32, dropout: 0.3, batch_norm: true}}",
    "data.augment={pad_crop: 1, flip: true, mean: [0.3], std: [0.4]}",
    "batch={size: 8, shards: 8}",
    "train={iterations: 20}",
)
ENVIRON = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def main() -> None:
    try:
        step = {"set-up": set_up, "test": compare_and_test}[" ".join(sys.argv[1:])]
    except KeyError:
        sys.exit(f"usage: {sys.argv[0]} set-up | test")
    step()


def run(*command: object, cwd: Path = ROOT, **environ: str) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, env={**ENVIRON, **environ}, check=True)


def set_up() -> None:
    for version in PYTHONS:
        clone = CLONES / version
        if not clone.is_dir():
            run("git", "clone", "--quiet", "--no-hardlinks", ROOT, clone)
        run("git", "fetch", "--quiet", "origin", "HEAD", cwd=clone)
        run("git", "reset", "--quiet", "--hard", "FETCH_HEAD", cwd=clone)
        without = ["HOROVOD", "DEV", "TORCH", *([] if tests_of(version) == TESTS else ["PICTURES"])]
        run("./install.sh", cwd=clone, PYTHON=str(path_of(version)), **{f"WITH_{what}": "0" for what in without})
        environment = (clone / ".venv/installed").read_text()
        tested_with = clone / ".venv/tested_with"  # the environment that has the tools
        if not tested_with.is_file() or tested_with.read_text() != environment:
            pip = [clone / ".venv/bin/python", "-m", "pip", "install", "-qq", "--no-compile"]
            run(*pip, "--constraint", "constraints.txt", "pytest", "pytest-xdist", "jsonschema", cwd=clone)
            tested_with.write_text(environment)


def tests_of(version: str) -> tuple[str, ...]:
    """The folders of tests that run on a Python."""
    return TESTS if THOROUGH or version == PYTHONS[-1] else BETWEEN


def path_of(version: str) -> Path:
    """Where a Python is: the newest of pyenv's, or what the path has."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(
        pyenv.glob(f"versions/{version}.*/bin/python{version}"), key=lambda path: int(path.parts[-3].split(".")[2])
    )
    if found:
        return found[-1]
    path = shutil.which(f"python{version}")
    if path is None:
        sys.exit(f"python{version} not found: install it, or name others in PYTHONS (now: {' '.join(PYTHONS)})")
    return Path(path)


def compare_and_test() -> None:
    """All Pythons at a time: the first ones are soon done, and the last one's tests have two processes."""
    with tempfile.TemporaryDirectory(prefix="harness-pythons-") as folder, ThreadPoolExecutor() as pool:
        here = Runs(ROOT, Path(folder) / "here")
        one = pool.submit(lambda: (here.train_eight(), here.train_convolutions()))
        two, (eight, convolutions) = here.train("two", np=2, keep=100), one.result()
        expected = {
            "two ranks": two,
            "resumed from this Python's": two,
            "eight in one": eight,
            "convolutions on three ranks": convolutions,
        }
        checkpoint = here.checkpoint_halfway("two")
        checks = [pool.submit(check, version, Path(folder) / version, checkpoint, expected) for version in PYTHONS]
        for one in checks:
            print(one.result(), flush=True)


def check(version: str, folder: Path, checkpoint: Path, expected: dict[str, str]) -> str:
    """Compare the digests of one Python and run its tests; what was printed, or the end of this program."""
    there = Runs(CLONES / version, folder)
    found = {
        "two ranks": there.train("two", np=2),
        "resumed from this Python's": there.train("resumed", np=2, resume=checkpoint),
        "eight in one": there.train_eight(),
        "convolutions on three ranks": there.train_convolutions(np=3),
    }
    told = [f"{version}: {there.versions()}"]
    for what, digest in expected.items():
        told.append(f"{version}: {what}: {found[what][:12]}")
        if found[what] != digest:
            sys.exit(f"Python {version}, {what}: digest {found[what]}; here it is {digest}")
    tests = [f"tests/{name}" for name in tests_of(version)]
    tests += [] if THOROUGH else [f"--ignore=tests/{name}" for name in LEFT_TO_THOROUGH]
    at_a_time = ["--numprocesses", "2", "--dist", "worksteal"]
    command = [str(there.bin / "python"), "-m", "pytest", "--quiet", *at_a_time, *tests]
    done = subprocess.run(command, cwd=there.checkout, env=ENVIRON, capture_output=True, text=True)
    told.append(done.stdout + done.stderr)
    if done.returncode:
        sys.exit("\n".join(told))
    return "\n".join(told)


class Runs:
    """Runs of the digits by one checkout's environment, in a folder of their own."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout, self.folder, self.bin = checkout, folder, checkout / ".venv/bin"

    def versions(self) -> str:
        code = "import platform, numpy; print('Python', platform.python_version(), 'NumPy', numpy.__version__)"
        return subprocess.check_output([self.bin / "python", "-c", code], text=True, env=ENVIRON).strip()

    def train(self, name: str, np: int, keep: int = 3, resume: Path | None = None) -> str:
        resumed = [] if resume is None else ["--resume", resume]
        return self._digest(np, name, "--set", f"checkpoint.keep={keep}", *resumed)

    def train_eight(self) -> str:
        return self._digest(1, "eight", "--emulate-np", 8)

    def train_convolutions(self, np: int = 1) -> str:
        settings = [word for setting in CONVOLUTIONS for word in ("--set", setting)]
        return self._digest(np, f"convolutions-{np}", *settings)

    def checkpoint_halfway(self, name: str) -> Path:
        kept = sorted((self.folder / name / "checkpoints").iterdir())
        return kept[len(kept) // 2]

    def _digest(self, np: int, name: str, *options: object) -> str:
        launcher = [] if np == 1 else [self.bin / "mpirun", "-np", np]
        where = ["--set", f"output={self.folder}", "--set", f"name={name}"]
        command = [*launcher, self.bin / "python", "launch/train.py", *where, *options]
        environ = {**ENVIRON, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(word) for word in command], cwd=self.checkout, env=environ, capture_output=True, text=True
        )
        digest = re.search(r"digest ([0-9a-f]{64})", done.stdout)
        if digest is None:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return digest[1]


if __name__ == "__main__":
    main()
