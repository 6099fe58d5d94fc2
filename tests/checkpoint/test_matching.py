"""Which array of a file is which parameter, by every way of naming that MXNet's programs use."""

from __future__ import annotations

import pytest

from harness.checkpoint.matching import Target, accept, match, without_kinds
from harness.errors import CheckpointError


def form(*shape):
    return "float32", shape


# structural name, full name, shape: a network that a process makes second
NET = {
    "features.0.weight": ("conv2_weight", (4, 1, 3, 3)),
    "features.1.gamma": ("batchnorm2_gamma", (4,)),
    "features.1.running_mean": ("batchnorm2_running_mean", (4,)),
    "features.3.weight": ("conv3_weight", (4, 4, 3, 3)),
    "output.weight": ("dense1_weight", (10, 16)),
    "output.bias": ("dense1_bias", (10,)),
}
TARGETS = {name: Target(full, form(*shape)) for name, (full, shape) in NET.items()}
STRUCTURAL = {name: target.form for name, target in TARGETS.items()}


def renamed(rename):
    return {rename(name, target.full_name): target.form for name, target in TARGETS.items()}


def counted_from(conv, norm, dense, net=""):
    def rename(_, full):
        for kind, first, ours in (("conv", conv, 2), ("batchnorm", norm, 2), ("dense", dense, 1)):
            if full.startswith(kind):
                number, _, rest = full.removeprefix(kind).partition("_")
                return f"{net}{kind}{int(number) - ours + first}_{rest}"
        raise AssertionError(full)

    return renamed(rename)


@pytest.mark.parametrize(
    ("found", "way"),
    [
        (STRUCTURAL, "structural names"),
        (renamed(lambda _, full: full), "full names"),
        (counted_from(0, 0, 0), "full names with layers counted anew"),
        (counted_from(9, 9, 9), "full names with layers counted anew"),  # where 10 comes after 9
        (counted_from(0, 5, 7, net="net3_"), "full names with layers counted anew"),
        (renamed(lambda name, _: f"model.{name}"), "structural names under a prefix"),
    ],
)
def test_every_way_of_naming(found, way):
    matched = match(TARGETS, found)
    assert (matched.way, matched.fits, len(matched.taken)) == (way, True, len(TARGETS))
    assert list(matched.taken.items()) == list(zip(TARGETS, found, strict=True)) or set(matched.taken) == set(TARGETS)
    for ours, theirs in matched.taken.items():
        assert TARGETS[ours].form == found[theirs]
        assert ours.rpartition(".")[2] == theirs.rpartition(".")[2] or theirs.endswith(ours.rpartition(".")[2])


def test_layers_that_are_counted_otherwise_are_not_guessed():
    """One convolution more on one side: which is which, nobody can tell."""
    found = {**counted_from(0, 0, 0), "conv7_weight": form(4, 4, 3, 3)}
    matched = match(TARGETS, found)
    assert not [name for name in matched.taken if "features.0" in name or "features.3" in name]
    assert set(matched.taken) == {"features.1.gamma", "features.1.running_mean", "output.weight", "output.bias"}
    assert matched.left == ["conv0_weight", "conv1_weight", "conv7_weight"]


def test_a_part_of_a_network_is_found_in_the_whole():
    backbone = {name.removeprefix("features."): f for name, f in STRUCTURAL.items() if name.startswith("features.")}
    matched = match(TARGETS, backbone)
    assert matched.way == "structural names under a prefix"
    assert list(matched.fresh) == ["output.weight", "output.bias"]
    assert matched.left == []


def test_two_prefixes_under_which_a_part_stands_are_ambiguous():
    targets = {f"{side}.0.weight": Target(f"x_{side}", form(2, 2)) for side in ("left", "right")}
    assert match(targets, {"0.weight": form(2, 2)}).taken == {}


OTHER_HEAD = {**STRUCTURAL, "output.weight": form(6, 16), "output.bias": form(6)}
REFUSED_BY_HEAD = [
    ({**OTHER_HEAD, "output.weight": form(6, 8)}, "output.weight is float32 (6, 8), expected float32 (10, 16)"),
    ({**OTHER_HEAD, "features.1.gamma": form(8)}, "features.1.gamma is float32 (8,)"),
    ({**OTHER_HEAD, "output.bias": form(7)}, "output.bias is float32 (7,)"),
    ({**OTHER_HEAD, "output.bias": ("float64", (6,))}, "output.bias is float64 (6,)"),
    ({**STRUCTURAL, "spare": form(1)}, "spare is not expected"),
    ({k: v for k, v in STRUCTURAL.items() if k != "features.0.weight"}, "features.0.weight is missing"),
    ({("featurez" + k[8:] if k == "features.0.weight" else k): v for k, v in STRUCTURAL.items()}, "is missing"),
]


def test_another_head_is_taken_by_head_and_by_shapes_and_not_by_all():
    matched = match(TARGETS, OTHER_HEAD)
    assert matched.other_outputs == "output"
    for policy in ("head", "shapes"):
        accept(matched, policy, "w.params")
    with pytest.raises(CheckpointError) as caught:
        accept(matched, "all", "w.params")
    for part in ("w.params does not fit the network", "output.bias is float32 (6,)", "--set init.match=shapes"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("found", "part"), REFUSED_BY_HEAD)
def test_more_than_another_head_is_refused_unless_asked_for(found, part):
    matched = match(TARGETS, found)
    with pytest.raises(CheckpointError) as caught:
        accept(matched, "head", "w.params")
    assert part in str(caught.value)
    assert "only the number of outputs of one layer may differ" in str(caught.value)
    accept(matched, "shapes", "w.params")


def test_nothing_that_fits_is_an_error_even_by_shapes():
    with pytest.raises(CheckpointError, match=r"w\.params: nothing in it fits the network"):
        accept(match(TARGETS, {"a": form(1), "b": form(2)}), "shapes", "w.params")


def test_the_table_names_everything():
    table = match(TARGETS, {**OTHER_HEAD, "spare": form(1)}).table("w.params")
    assert table[0] == "init.from: w.params, by structural names: 4 taken, 2 fresh, 1 left"
    assert "  taken  features.0.weight" in table
    assert "  fresh  output.bias: is float32 (6,), expected float32 (10,)" in table
    assert "  left  spare" in table
    many = {f"{n}.weight": Target(f"dense{n}_weight", form(2)) for n in range(60)}
    table = match(many, {name: target.form for name, target in many.items()}).table("w.params")
    assert len(table) == 22
    assert table[-1] == "  taken  and 40 more; all are named in every manifest.json (init)"


def test_the_kinds_of_module_are_left_out():
    assert without_kinds(["arg:a", "aux:b", "c"]) == {"a": "arg:a", "b": "aux:b", "c": "c"}
    with pytest.raises(CheckpointError, match="a appears twice, as arg:a and aux:a"):
        without_kinds(["arg:a", "aux:a"])
