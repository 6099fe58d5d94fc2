"""Builds a wheel of Horovod for the installed MXNet: `python -m harness.build_horovod [FOLDER]`.

Horovod 0.28.1 is its last release, and comes as source alone. The wheel goes into FOLDER; without one it is installed
into the environment whose Python runs this, as the command `harness-build-horovod` does. Imports the standard library
alone. What the build reads of the environment stays in force: `HOROVOD_WITH_MPI=1` builds MPI in as well,
`HOROVOD_GPU_OPERATIONS=NCCL` for GPUs, `CXX`, `CXXFLAGS` and `MAKEFLAGS` are the compiler's and make's.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NamedTuple

# Headers that sources of Horovod and Gloo use without including them; GCC's own included them up to version 12.
_HEADERS = ("cstdint", "string", "stdexcept")
_COMPILERS = ("g++", "c++", "clang++")
_ERROR = re.compile(r"CMake Error|[^a-z]error:|No space left")
_GLOO_PAIR = "third_party/gloo/gloo/transport/tcp/pair.cc"
PIP = (sys.executable, "-m", "pip")


class Change(NamedTuple):
    """A change of a source file: the first of two texts, which occurs once, becomes the second."""

    path: str
    before: str
    after: str

    def apply(self, source: Path) -> None:
        """Change the file below this folder.

        Raises:
            SystemExit: if the text does not occur exactly once; this is another release then.
        """
        path = source / self.path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text.count(self.before) != 1:
            raise SystemExit(
                f"{source.name}: {self.path} does not have {self.before!r} once; 0.28.1 is what can be built"
            )
        path.write_text(text.replace(self.before, self.after), encoding="utf-8")


CHANGES = (
    # assigns to a constant member, which GCC refuses from 14 on; nothing calls it (google/flatbuffers#7227)
    Change("third_party/flatbuffers/include/flatbuffers/stl_emulation.h", "    count_ = other.count_;\n", ""),
    # Gloo is compiled for the C++ ABI of MXNet's wheel; a second one for the compiler's own is used by nothing
    Change(
        "CMakeLists.txt", "add_subdirectory(third_party/gloo)", "add_subdirectory(third_party/gloo EXCLUDE_FROM_ALL)"
    ),
    # debugging information is most of what the compiler writes: 47 MB of 49
    Change(
        "CMakeLists.txt",
        'string(REPLACE "-O2" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO ',
        'string(REPLACE "-O2 -g" "-O2" CMAKE_CXX_FLAGS_RELWITHDEBINFO ',
    ),
    # headers are most of what the compiler reads: several files at a time take two thirds of the time. Not with what is
    # for GPUs and MPI, where nobody has tried whether names get into each other's way
    Change(
        "horovod/mxnet/CMakeLists.txt",
        'set_target_properties(${Mxnet_TARGET_LIB} PROPERTIES OUTPUT_NAME "mpi_lib")\n',
        'set_target_properties(${Mxnet_TARGET_LIB} PROPERTIES OUTPUT_NAME "mpi_lib")\n'
        'if("$ENV{HOROVOD_GPU_OPERATIONS}$ENV{HOROVOD_WITH_MPI}" MATCHES "^0?$")\n'
        "    set_target_properties(${Mxnet_TARGET_LIB} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 7)\n"
        "endif()\n",
    ),
    # whoever waits for a message that has gone, or come, in part when its connection fails is not told, and waits for
    # Gloo's time limit of 30 s; Horovod's messages are all of this kind, to and from buffers that are "unbound"
    Change(
        _GLOO_PAIR,
        "  for (auto& op : tx_) {\n    if (op.buf != nullptr) {\n",
        "  auto tell = [&ex](Op& op) {\n"
        "    NonOwningPtr<UnboundBuffer> buf(op.ubuf);\n"
        "    if (buf) {\n      buf->signalException(ex);\n    }\n"
        "  };\n"
        "  tell(rx_);\n"
        "  for (auto& op : tx_) {\n    tell(op);\n    if (op.buf != nullptr) {\n",
    ),
    # a rank whose operation has failed goes on to the next one, and its messages reach a rank that is still at the
    # first: too long a one ended that process, and too short a one counted as received, with what was there before
    Change(
        _GLOO_PAIR,
        "    GLOO_ENFORCE_LE(op.preamble.length, op.nbytes);\n",
        "    if (op.preamble.length != op.nbytes) {\n"
        '      signalException(GLOO_ERROR_MSG("A message of another operation from ", peer_.str()));\n'
        "      return -1;\n    }\n",
    ),
)


def build_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the build: a part that is missing is an error, and what is set stays.

    >>> build_environment({"CXXFLAGS": "-O1", "HOROVOD_WITH_MPI": "1", "MAKEFLAGS": "-j4"})["CXXFLAGS"]
    '-include cstdint -include string -include stdexcept -O1'
    """
    wanted = {"HOROVOD_WITH_MXNET": "1", "HOROVOD_WITH_GLOO": "1"}
    wanted |= {"HOROVOD_WITHOUT_TENSORFLOW": "1", "HOROVOD_WITHOUT_PYTORCH": "1"}
    if environ.get("HOROVOD_WITH_MPI") != "1":
        wanted["HOROVOD_WITHOUT_MPI"] = "1"
    flags = environ.get("MAKEFLAGS", "")
    if "-j" not in flags or "jobserver" in flags:  # Horovod's own choice is 8 compilers at a time
        environ = {**environ, "MAKEFLAGS": f"-j{len(os.sched_getaffinity(0))}"}
    wanted["CMAKE_POLICY_VERSION_MINIMUM"] = "3.5"  # for Gloo, with CMake 4
    included = " ".join(f"-include {header}" for header in _HEADERS)
    return {
        **wanted,
        **environ,
        "CXXFLAGS": f"{included} {environ.get('CXXFLAGS', '')}".strip(),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', '')}",  # for cmake's wheel
    }


def build(folder: Path) -> Path:
    """Build the wheel, for the MXNet of this environment; takes one to two minutes on two cores.

    Args:
        folder: where the wheel goes. It holds `build.log` if the build fails.

    Returns:
        The wheel's path.

    Raises:
        SystemExit: with the first errors and the end of the log, if the build fails; or with what is missing.
    """
    environ = build_environment(os.environ)
    require_tools(environ)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="building.", dir=folder)))
        log = stack.enter_context(open(folder / "build.log", "w+b"))
        environ = _without_spaces(environ, place)
        here = ["--no-deps", "--no-build-isolation", "--no-cache-dir"]
        _run(["download", *here, "--no-binary=horovod", "--dest", str(place), "horovod"], environ, log)
        [archive] = place.glob("horovod-*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extraction_filter = getattr(tarfile, "data_filter", None)  # from 3.11.4 on
            packed.extractall(place)
        source = place / archive.name.removesuffix(".tar.gz")
        for change in CHANGES:
            change.apply(source)
        _run(["wheel", *here, "--wheel-dir", str(place), str(source)], environ, log)
        [wheel] = place.glob("horovod-*.whl")
        built = wheel.replace(folder / wheel.name)
    (folder / "build.log").unlink()
    return built


def _without_spaces(environ: dict[str, str], place: Path) -> dict[str, str]:
    """Let the build find MXNet by a link, if its path has spaces, at which Horovod's CMake would split it."""
    spec = find_spec("mxnet")
    packages = Path(spec.origin).parents[1] if spec and spec.origin else place
    if " " not in str(packages):
        return environ
    (place / "packages").symlink_to(packages)
    return {**environ, "PYTHONPATH": str(place / "packages")}


def require_tools(environ: Mapping[str, str]) -> None:
    """Check that the build finds what it needs.

    Raises:
        SystemExit: with all that is missing.
    """
    if find_spec("mxnet") is None:
        raise SystemExit("Horovod is built for an MXNet that is installed, and there is none: pip install mxnet first")
    compilers = [environ["CXX"]] if environ.get("CXX") else _COMPILERS
    missing = [] if any(shutil.which(name.split()[0]) for name in compilers) else ["a C++ compiler (g++)"]
    missing += [name for name in ("make", "cmake") if shutil.which(name, path=environ["PATH"]) is None]
    missing += [module for module in ("setuptools", "packaging") if find_spec(module) is None]
    if missing:
        raise SystemExit(f"Horovod is built from source, which needs {', '.join(missing)}: install that first")


def _run(words: Sequence[str], environ: Mapping[str, str], log: IO[bytes]) -> None:
    """Run pip with its output in the log."""
    if subprocess.run([*PIP, *words], env=environ, stdout=log, stderr=subprocess.STDOUT, check=False).returncode:
        log.seek(0)
        shown = excerpt(log.read().decode(errors="replace"))
        raise SystemExit(f"{shown}\nbuilding Horovod failed: above are the first errors and the end of {log.name}")


def excerpt(text: str, errors: int = 5, after: int = 5, last: int = 20) -> str:
    r"""The first errors of a build's log, each with the lines after it, and the end.

    >>> print(excerpt("fine\na.cc:1: error: no\nhere\nmore\nthe end", after=1, last=1))
    a.cc:1: error: no
    here
    ...
    the end
    """
    lines = text.splitlines()
    found = [number for number, line in enumerate(lines) if _ERROR.search(line)][:errors]
    shown = {at for number in found for at in range(number, number + after + 1)}
    shown |= set(range(len(lines) - last, len(lines)))
    parts: list[str] = []
    previous = -1
    for at in sorted(at for at in shown if 0 <= at < len(lines)):
        parts += ["..."] if parts and at != previous + 1 else []
        parts.append(lines[at])
        previous = at
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the wheel into a folder, or install it here."""
    parser = argparse.ArgumentParser(prog="harness-build-horovod", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where the wheel goes; without it Horovod is installed here"
    )
    folder = parser.parse_args(arguments).folder
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        build(folder)
        return
    print("building Horovod (one to two minutes on two cores)", flush=True)
    with tempfile.TemporaryDirectory(prefix="harness-horovod-") as name:
        wheel = build(Path(name))
        if subprocess.run(
            [*PIP, "install", "--quiet", "--force-reinstall", "--no-deps", str(wheel)], check=False
        ).returncode:
            raise SystemExit("installing Horovod's wheel failed: pip's message is above")
    if subprocess.run([*PIP, "install", "--quiet", "horovod"], check=False).returncode:  # what it needs
        raise SystemExit("installing what Horovod needs failed: pip's message is above")


if __name__ == "__main__":
    main()
