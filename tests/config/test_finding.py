"""`--config`: a path, a name in `configs/`, or the name of a shipped configuration."""

from pathlib import Path

import pytest

from harness.config import load_config
from harness.config.finding import find_config
from harness.errors import ConfigError
from harness.shipped import shipped_configs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_shipped_ones_are_those_of_the_checkout():
    assert shipped_configs() == {path.stem: path for path in ROOT.glob("configs/*.yaml")}


@pytest.mark.parametrize("name", ["digits", "digits.yaml"])
def test_a_name_is_found_from_any_folder(folder, name):
    assert find_config(name) == ROOT / "configs/digits.yaml"
    (folder / "digits").mkdir()  # a run's folder, for example
    assert find_config(name) == ROOT / "configs/digits.yaml"
    assert load_config(name).run_name == "digits"


def test_a_file_of_that_name_wins_and_then_one_in_configs(folder):
    own = folder / "configs" / "digits.yaml"
    own.parent.mkdir()
    own.touch()
    (own.parent / "mine.yml").touch()
    assert find_config("digits") == Path("configs/digits.yaml")
    assert find_config("mine") == Path("configs/mine.yml")
    for name in ("digits.yaml", "digits"):
        (folder / name).touch()
        assert find_config(name) == Path(name)


@pytest.mark.parametrize("path", ["configs/digits.yaml", "./digits.yaml", "/nowhere/digits.yaml"])
def test_a_path_is_never_replaced(folder, path):
    assert find_config(path) == Path(path)
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\); did you mean 'digits'\?"):
        load_config(path)


def test_an_unknown_name_lists_those_that_are_known(folder):
    with pytest.raises(ConfigError) as caught:
        load_config("nosuch")
    said = str(caught.value)
    assert said.startswith(
        "nosuch: cannot be read (No such file or directory); give a file, or a name: cifar10_resnet18, "
    )
    assert said.endswith(", ".join(sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))))
    assert "imagenet_resnet50, mnist_cnn, one_cycle, sgdr, slanted_triangular" in said
