"""What is compared and recorded of the stack, whatever build of MXNet is installed."""

from __future__ import annotations

import sys

import pytest

from harness.versions import versions
from tests.conftest import WITHOUT_HOROVOD


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty folder in place of every folder with packages."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def install(site, name, number, *, top_level="mxnet\n", kind="dist-info", record=None):
    folder = site / f"{name.replace('-', '_')}-{number}.{kind}"
    folder.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
    (folder / ("METADATA" if kind == "dist-info" else "PKG-INFO")).write_text(text)
    if top_level is not None:
        (folder / "top_level.txt").write_text(top_level)
    if record is not None:
        (folder / "RECORD").write_text(record)


def test_this_machine_has_an_mxnet_and_it_is_one():
    assert versions()["mxnet"].startswith("1.")
    horovod = set() if WITHOUT_HOROVOD else {"horovod"}
    assert {"python", "numpy", "mxnet"} | horovod == versions().keys()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mxnet", "1.9.1"),
        ("mxnet-cu117", "1.9.1 (mxnet-cu117)"),
        ("mxnet_cu112", "1.9.1 (mxnet-cu112)"),
        ("mxnet-mkl", "1.9.1 (mxnet-mkl)"),
    ],
)
@pytest.mark.parametrize("kind", ["dist-info", "egg-info"])
def test_every_build_is_found_under_one_name(site, name, said, kind):
    install(site, name, "1.9.1", kind=kind)
    assert versions()["mxnet"] == said


def test_a_build_without_a_list_of_packages_is_known_by_its_files(site):
    (site / "mxnet").mkdir()
    (site / "mxnet/__init__.py").touch()  # from Python 3.12 on a distribution has the files that are there
    install(site, "mxnet-cu117", "1.9.1", top_level=None, record="mxnet/__init__.py,,\n")
    assert versions()["mxnet"] == "1.9.1 (mxnet-cu117)"


def test_two_builds_are_both_told(site):
    install(site, "mxnet", "1.9.1")
    install(site, "mxnet-cu117", "1.9.1.post1")
    assert versions()["mxnet"] == "1.9.1, 1.9.1.post1 (mxnet-cu117)"


def test_what_only_begins_alike_is_no_mxnet(site):
    install(site, "mxnet-horovod-harness", "0.1.0", top_level="harness\nlaunch\n")
    install(site, "mxnet-something", "3", top_level=None)
    assert "mxnet" not in versions()
