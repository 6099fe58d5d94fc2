"""Lists of names in descriptions are those that the code knows."""

import re
from pathlib import Path

import pytest

from harness.config.schema import reference
from harness.data.datasets import DATASETS
from harness.model.metrics import METRICS
from harness.model.networks import OWN_NETWORKS, build_network
from harness.schedules.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]


def named_in(key: str) -> set[str]:
    """The names in backquotes in the description of a key."""
    (row,) = re.findall(rf"^\| `{re.escape(key)}` \| .*? \| (.*) \|$", reference(), re.MULTILINE)
    return {name for name in re.findall(r"`([^`]+)`", row) if re.fullmatch(r"[a-z0-9_]+", name)}


@pytest.mark.parametrize(
    ("key", "known"),
    [("evaluation.metrics", METRICS), ("data.name", DATASETS), ("network.name", OWN_NETWORKS)],
    ids=["metrics", "data sets", "networks"],
)
def test_a_description_names_all_that_there_are(key, known):
    assert named_in(key) == set(known)


@pytest.mark.parametrize("known", [OWN_NETWORKS, DATASETS, CATALOGUE], ids=["networks", "data sets", "schedules"])
def test_the_readme_names_them_too(known):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in known if f"`{name}`" not in readme]


def test_mnist_cnn_is_the_network_of_the_tutorials():
    net = build_network("mnist_cnn", {}, 10)
    layers = [type(layer).__name__ for layer in net]
    assert layers == ["Conv2D", "MaxPool2D", "Conv2D", "MaxPool2D", "Flatten", "Dense", "Dense"]
    assert [layer.weight.shape[0] for layer in (net[0], net[2], net[5], net[6])] == [10, 20, 512, 10]
