"""A newcomer's commands on Debian 12, 13 and unstable: `python tests/clusters/distributions.py [--suite] [NAME ...]`.

Each distribution is made by debootstrap, without Python, compilers and caches. Then its packages are installed by the
line of the README, and an ordinary user clones the project and types `make train`, twice; on a second copy of the
machine with `WITH_HOROVOD=0`, and without a compiler. A table tells what became of it. `--suite` adds `make test`.
As root, with Debian's debootstrap; ten minutes a distribution, and the time of the tests.

What pip is configured to here holds there too, and so does how apt fetches. Distributions come from the mirrors that
this machine has, or from `--mirror NAME=URL`; one that has neither is left out, and said to be.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from image import debian_like
from stage import ROOT, check, digest, require

ORIGINS = {"bookworm": "Debian", "trixie": "Debian", "sid": "Debian", "noble": "Ubuntu"}  # whose mirror has it
COMMANDS = {"make train": True, "WITH_HOROVOD=0 make train": False}  # and whether a compiler is there
USER, HOST, CHECKOUT = "newcomer", "somewhere", "mxnet-horovod-harness"
# in namespaces of its own, which go when it ends: what a booted machine has, files of this one, then the command
ENTER = """
set -e
root=$1 name=$2; shift 2
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do mount --bind -o ro "$1" "$root$1"; shift; done
shift
hostname "$name"
exec chroot "$@"
"""


@dataclass(frozen=True)
class Row:
    """What became of one machine; the fields are the columns of the table."""

    distribution: str
    command: str
    python: str = "-"
    numpy: str = "-"
    gcc: str = "-"
    setup_s: str = "-"
    train_s: str = "-"
    digest: str = "-"
    tests: str = "-"


class Machine:
    """A distribution in a folder."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self._root = root
        self._environment, self._carried = pip_settings()

    def prepare(self) -> None:
        """Add what an installer asks for (a name, a user), how to reach the mirror, and a clone of the project."""
        (self._root / "etc/hostname").write_text(f"{HOST}\n")
        (self._root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {HOST}\n")
        shutil.copy("/etc/resolv.conf", self._root / "etc/resolv.conf")
        fetching = r"^Acquire::(?:Check|http|https|Retries).*;$"
        settings = re.findall(fetching, quietly("apt-config", "dump"), re.MULTILINE)
        settings.append('APT::Get::Assume-Yes "true";')
        (self._root / "etc/apt/apt.conf.d/00here").write_text("\n".join([*settings, ""]))
        self.run("apt-get update --quiet --quiet", user="root")
        self.run(f"useradd --create-home --shell /bin/bash {USER}", user="root")
        quietly("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), f"{self._root}/home/{USER}/{CHECKOUT}")
        self.run(f"chown -R {USER}: /home/{USER}", user="root")

    def run(self, command: str, *, user: str = USER, timeout_s: float = 1800.0) -> str:
        """Run a shell command, show it and what it says while it says it, and return that.

        Raises:
            SystemExit: if it does not end with 0, or not in time.
        """
        print(f"{self.name}{'#' if user == 'root' else '$'} {command}", flush=True)
        spaces = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child")
        words = [
            "timeout",
            "--foreground",
            "--signal=KILL",
            str(timeout_s),
            "unshare",
            *spaces,
            "sh",
            "-c",
            ENTER,
            "enter",
        ]
        words += [str(self._root), HOST, *self._inside(command, user)]
        said = []
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as job:
            for line in job.stdout or ():
                said.append(line.decode(errors="replace"))
                print(said[-1], end="", flush=True)
        if job.returncode:
            raise SystemExit(f"FAILED: `{command}` ended with {job.returncode} on {self.name}")
        return "".join(said)

    def _inside(self, command: str, user: str) -> list[str]:
        """The files of this machine that are seen there, and the words of the command."""
        home = "/root" if user == "root" else f"/home/{user}"
        environment = {"HOME": home, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        carried: Sequence[Path] = ()
        if user == "root":
            environment["DEBIAN_FRONTEND"] = "noninteractive"
        else:
            environment |= self._environment
            carried = self._carried
        for path in carried:
            place = self._root / path.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(exist_ok=True) if path.is_dir() else place.touch()
        folder = home if user == "root" else f"{home}/{CHECKOUT}"
        assignments = [f"{key}={value}" for key, value in environment.items()]
        shell = ["env", "-i", *assignments, "sh", "-c", f"cd {folder}; {command}"]
        as_user = [] if user == "root" else [f"--userspec={user}:{user}"]
        return [*map(str, carried), "--", *as_user, str(self._root), *shell]


def pip_settings() -> tuple[dict[str, str], list[Path]]:
    """This machine's settings of pip as environment variables, and the files that they name."""
    said = quietly(sys.executable, "-m", "pip", "config", "list")
    found = [line.split("=", 1) for line in said.splitlines() if "=" in line]
    found.sort(key=lambda pair: pair[0].startswith(":env:"))  # those of the environment count more
    environment = {f"PIP_{key.split('.')[-1].upper().replace('-', '_')}": ast.literal_eval(text) for key, text in found}
    named = re.findall(r"(?<![\w:/])(file://)?(/[^\s:]+)", " ".join(environment.values()))
    # the files of an index lie beside it
    paths = {Path(path).parent if is_index else Path(path) for is_index, path in named}
    return environment, sorted(path for path in paths if path.exists())


def quietly(*words: str) -> str:
    """What a command says that is no part of what is shown."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def mirrors() -> dict[str, str]:
    """Where this machine gets the packages of each origin (Debian, Ubuntu) from."""
    said = quietly("apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages")
    found = [line.split() for line in said.splitlines()]
    return {words[0]: words[-1] for words in reversed(found) if len(words) == 3 and words[0] == words[1]}


def packages_of_the_readme(*, compiler: bool) -> str:
    """The README's command that installs what is needed, with or without a compiler."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in re.findall(r"apt-get install(?:\s+[a-z0-9][a-z0-9+.-]*)+", readme):
        if ("g++" in command) == compiler:
            return " ".join(command.split())
    raise SystemExit(f"FAILED: the README has no apt-get install line {'with' if compiler else 'without'} g++")


def a_newcomer(machine: Machine, command: str, packages: str) -> Row:
    """What a newcomer does and gets, on a machine that has nothing."""
    machine.prepare()
    machine.run(packages, user="root")
    began_s = time.monotonic()
    first = machine.run(command)
    first_s = time.monotonic() - began_s
    second = machine.run(command)
    second_s = time.monotonic() - began_s - first_s
    check("the second time nothing is installed", "setup: installing" not in second)
    check("and the bits are the same", digest(second) == digest(first))
    versions = machine.run(
        ".venv/bin/python -c 'import platform, numpy; print(platform.python_version(), numpy.__version__)'; "
        "g++ -dumpfullversion 2>/dev/null || echo none"
    )
    python, numpy, gcc = versions.split()
    return Row(machine.name, command, python, numpy, gcc, f"{first_s - second_s:.0f}", f"{second_s:.0f}", digest(first))


def the_suite(machine: Machine) -> str:
    """Passed, failed and skipped of `make test`."""
    said = machine.run("make test || true", timeout_s=7200)
    [summary] = re.findall(r"^=+ (.*\d+ (?:passed|failed|error).*) =+$", said, re.MULTILINE)[-1:] or ["no summary"]
    return str(summary)


def table(rows: Sequence[Row]) -> str:
    """The rows under their titles."""
    lines = [tuple(field.name for field in fields(Row)), *map(astuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def base(folder: Path, name: str, mirror: str) -> Path:
    """A distribution as debootstrap leaves it, made once in a folder."""
    root = folder / f"{name}-base"
    if not root.exists():
        debian_like(folder / f"{name}-unfinished", name, mirror).rename(root)
    return root


def attempt(machine: Machine, command: str, *, compiler: bool, suite: bool) -> Row:
    """A newcomer's row of the table, or one that tells where it ended."""
    try:
        row = a_newcomer(machine, command, packages_of_the_readme(compiler=compiler))
        return replace(row, tests=the_suite(machine)) if suite else row
    except SystemExit as error:
        print(error, flush=True)
        return Row(machine.name, command, digest=str(error))


def all_rows(folder: Path, distributions: Mapping[str, str], *, suite: bool) -> list[Row]:
    """Try every command on a new machine of each distribution, which is given with its mirror."""
    rows = []
    for name, mirror in distributions.items():
        for command, compiler in COMMANDS.items():
            root = folder / (name if compiler else f"{name}-without-horovod")
            if root.exists():
                shutil.rmtree(root)
            quietly("cp", "-a", str(base(folder, name, mirror)), str(root))
            rows.append(attempt(Machine(name, root), command, compiler=compiler, suite=suite and compiler))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"by default all of {', '.join(ORIGINS)}")
    parser.add_argument("--suite", action="store_true", help="run the tests too, where Horovod is built")
    parser.add_argument("--folder", type=Path, help="where to make the machines; by default the temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave them in FOLDER; the next call takes their bases")
    parser.add_argument("--mirror", action="append", default=[], metavar="NAME=URL", help="of a distribution")
    options = parser.parse_args()
    require(debootstrap="debootstrap", unshare="util-linux", git="git")
    given, here = dict(pair.split("=", 1) for pair in options.mirror), mirrors()
    distributions = {}
    for name in options.names or ORIGINS:
        mirror = given.get(name) or here.get(ORIGINS.get(name, "Debian"))
        if mirror is None:
            print(f"# {name}: left out, this machine has no mirror of it; --mirror {name}=URL gives one", flush=True)
        else:
            distributions[name] = mirror
    if not distributions:
        raise SystemExit("nothing to try")
    folder = options.folder or Path(tempfile.gettempdir())
    if options.keep:
        folder.mkdir(parents=True, exist_ok=True)
        rows = all_rows(folder, distributions, suite=options.suite)
    else:
        with tempfile.TemporaryDirectory(prefix="distributions-", dir=folder) as name:
            rows = all_rows(Path(name), distributions, suite=options.suite)
    print(table(rows), flush=True)
    digests = {row.digest for row in rows}
    check("every machine trains, and all with the same bits", len(digests) == 1 and "FAILED" not in str(digests))


if __name__ == "__main__":
    main()
