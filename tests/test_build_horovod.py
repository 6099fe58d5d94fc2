"""How Horovod's wheel is built: with an sdist and a pip that stand in for the real ones."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from importlib.util import spec_from_file_location

import pytest

from harness import build_horovod
from harness.build_horovod import CHANGES, build, build_environment, main

SPAN = "    data_ = other.data_;\n    count_ = other.count_;\n"
CMAKE = (
    'string(REPLACE "-O2" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")\n'
    "    add_subdirectory(third_party/gloo)\n"
)
LIBRARY, *PAIRS = CHANGES[3:]
PAIR = "".join(change.before for change in PAIRS)
# downloads the archive that lies beside it, and builds a wheel of the names and sizes of what it is given
PIP = """
import importlib.util, pathlib, shutil, sys
command, *options = sys.argv[1:]
if command == "download":
    shutil.copy(pathlib.Path(__file__).with_name("horovod-0.28.1.tar.gz"), options[options.index("--dest") + 1])
else:
    source = pathlib.Path(options[-1])
    if "refuse" in (source / "CMakeLists.txt").read_text():
        sys.exit("a.cc:1: error: refused\\nCMake Error: no")
    if " " in importlib.util.find_spec("mxnet").origin:
        sys.exit("No rule to make target")
    wheel = pathlib.Path(options[options.index("--wheel-dir") + 1], "horovod-0.28.1-cp3-linux.whl")
    wheel.write_text("".join(path.read_text() for path in sorted(source.rglob("*.*")) if path.is_file()))
"""


@pytest.fixture
def sdist(tmp_path, monkeypatch):
    """Plants an sdist with these files, and a pip that finds it."""
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "pip.py").write_text(PIP)
    monkeypatch.setattr(build_horovod, "PIP", (sys.executable, str(planted / "pip.py")))
    monkeypatch.setattr(build_horovod, "require_tools", lambda environ: None)

    def plant(cmake: str = CMAKE, span: str = SPAN) -> None:
        with tarfile.open(planted / "horovod-0.28.1.tar.gz", "w:gz") as archive:
            texts = ((CHANGES[0], span), (CHANGES[1], cmake), (LIBRARY, LIBRARY.before), (PAIRS[0], PAIR))
            for change, text in texts:
                member = tarfile.TarInfo(f"horovod-0.28.1/{change.path}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))

    return plant


def test_the_wheel_is_built_from_the_changed_source_and_nothing_else_is_left(sdist, tmp_path):
    sdist()
    wheel = build(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["horovod-0.28.1-cp3-linux.whl", "planted"]
    assert wheel.read_text() == (
        'string(REPLACE "-O2 -g" "-O2" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")\n'
        "    add_subdirectory(third_party/gloo EXCLUDE_FROM_ALL)\n"
        f"{LIBRARY.after}    data_ = other.data_;\n" + "".join(change.after for change in PAIRS)
    )


def test_mxnet_in_a_folder_with_a_space_is_found_by_a_path_without(sdist, tmp_path, monkeypatch):
    package = tmp_path / "my project" / "mxnet" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.touch()
    monkeypatch.setattr(build_horovod, "find_spec", lambda name: spec_from_file_location(name, package))
    monkeypatch.setenv("PYTHONPATH", str(package.parents[1]))
    sdist()
    assert build(tmp_path).exists()


def test_another_release_is_refused_by_name(sdist, tmp_path):
    sdist(span="")
    with pytest.raises(
        SystemExit, match=r"horovod-0.28.1: third_party/flatbuffers/\S+ does not have .* once; 0.28.1 is"
    ):
        build(tmp_path)


def test_a_build_that_fails_shows_its_errors_and_keeps_the_log(sdist, tmp_path):
    sdist(cmake=CMAKE + "refuse\n")
    with pytest.raises(SystemExit) as told:
        main([str(tmp_path / "cache" / "key")])
    shown, last = str(told.value).rsplit("\n", 1)
    assert shown == "a.cc:1: error: refused\nCMake Error: no"
    assert last == f"building Horovod failed: above are the first errors and the end of {tmp_path}/cache/key/build.log"
    assert os.listdir(tmp_path / "cache/key") == ["build.log"]


def test_what_the_user_sets_stays():
    assert build_environment({})["HOROVOD_WITHOUT_MPI"] == "1"
    mine = build_environment({"HOROVOD_WITH_MPI": "1", "HOROVOD_WITH_GLOO": "0", "MAKEFLAGS": "-j4"})
    assert "HOROVOD_WITHOUT_MPI" not in mine
    assert (mine["HOROVOD_WITH_GLOO"], mine["MAKEFLAGS"]) == ("0", "-j4")


@pytest.mark.parametrize("flags", ["", "w", " -j8 --jobserver-auth=3,4"])
def test_make_runs_a_compiler_a_core_where_nobody_says_otherwise(flags):
    """`make train` hands on flags of its own, and Horovod takes eight at a time where there are none."""
    assert build_environment({"MAKEFLAGS": flags})["MAKEFLAGS"] == f"-j{len(os.sched_getaffinity(0))}"


def test_what_is_missing_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SystemExit, match=r"needs a C\+\+ compiler \(g\+\+\), make, cmake: install that first"):
        build(tmp_path)
