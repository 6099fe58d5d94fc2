"""A new run from weights that others have written: another head, Module's names, an export; and frozen parts."""

from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from harness.checkpoint import read_arrays, read_manifest
from harness.comm import SingleWorld
from harness.config import load_config, parse_config
from harness.errors import CheckpointError, ConfigError
from harness.gluon.state import LearnerState
from harness.model.networks import cnn
from harness.train.build import build_learner
from harness.train.find import find_base
from harness.train.loop import evaluate_only, train
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions

ROOT = Path(__file__).parents[2]
SMALL = (
    "network={name: cnn, params: {channels: [4, 8], hidden: 16}}",
    "train={iterations: 4}",
    "checkpoint.every=2it",
    "lr={base: 0.05, schedule: 1x}",
    "log.tensorboard=false",
    "threads_per_rank=1",
)


def network(classes=10):
    mx.random.seed(3)
    net = cnn(classes=classes, channels=[4, 8], hidden=16)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 1, 8, 8)))
    return net


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that a case begins from: weights with six classes, and an exported network of ten."""
    folder = tmp_path_factory.mktemp("files")
    network(6).save_parameters(str(folder / "six.params"))
    ten = network()
    ten.save_parameters(str(folder / "ten.params"))
    ten.hybridize()
    ten(mx.nd.zeros((1, 1, 8, 8)))
    for epoch in (0, 7):
        ten.export(str(folder / "exported"), epoch=epoch)
    return folder


@pytest.fixture
def run_of(tmp_path):
    def build(*settings, start=None, name="run"):
        words = [*SMALL, f"output={tmp_path}", f"name={name}", *settings]
        return prepare_run(load_config(ROOT / "configs/digits.yaml", words), SingleWorld(), threads=1, start=start)

    return build


def begun(run):
    return build_learner(run).snapshot().parameters


def manifest_of(run, iteration=4):
    return read_manifest(run.folder.path / f"checkpoints/iteration-{iteration:09d}")


def test_another_head_starts_fresh_and_is_told(run_of, files, capsys):
    run = run_of(f"init.from={files}/six.params")
    fresh = begun(run_of())
    file = mx.nd.load(str(files / "six.params"))
    for name, array in begun(run).items():
        expected = fresh[name] if name.startswith("10.") else file[name].asnumpy()
        np.testing.assert_array_equal(array, expected)
    run = run_of(f"init.from={files}/six.params")
    train(run, "warning")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"init.from: {files}/six.params, by structural names: 12 taken, 2 fresh, 0 left"
    assert "  fresh  10.bias: is float32 (6,), expected float32 (10,)" in shown
    told = manifest_of(run)["init"]
    assert (told["from"], list(told["fresh"]), told["left"]) == (f"{files}/six.params", ["10.weight", "10.bias"], [])
    assert len(told["taken"]) == 12
    resumed = run_of("init.from=gone.params", start=StartOptions(resume="auto"))
    resumed.folder.close()
    assert resumed.resume_point.manifest.init == told


@pytest.mark.parametrize("name", ["exported-0000.params", "exported-symbol.json", "exported"])
def test_the_names_of_module_and_of_export_are_read(run_of, files, name):
    run = run_of(f"init.from={files}/{name}")
    learner = build_learner(run)
    expected = mx.nd.load(str(files / "ten.params"))
    for ours, array in learner.snapshot().parameters.items():
        np.testing.assert_array_equal(array, expected[ours].asnumpy())
    assert "by full names with layers counted anew: 14 taken, 0 fresh, 0 left" in learner.remarks[0]


def test_of_an_exported_network_the_newest_weights_are_meant(run_of, files, tmp_path):
    arrays = mx.nd.load(str(files / "exported-0007.params"))
    mx.nd.save(str(tmp_path / "x-0000.params"), {name: array * 0 for name, array in arrays.items()})
    mx.nd.save(str(tmp_path / "x-0012.params"), arrays)
    mx.nd.save(str(tmp_path / "xy-0013.params"), {"other": mx.nd.ones(1)})
    found = begun(run_of(f"init.from={tmp_path}/x-symbol.json"))
    assert found["0.weight"].any()


def test_weights_that_fit_whole_need_no_words(run_of, files):
    run = run_of(f"init.from={files}/ten.params")
    learner = build_learner(run)
    assert learner.remarks == []
    assert len(learner.began_with["taken"]) == 14


def test_a_checkpoint_gives_its_head_up_as_well(run_of, tmp_path):
    mx.random.seed(5)
    train(run_of(name="first"), "error")
    place = tmp_path / "first/checkpoints/iteration-000000002"
    saved = read_arrays(place)["parameters"]
    found = begun(run_of(f"init.from={place}"))
    for name, array in found.items():
        np.testing.assert_array_equal(array, saved[name])


def test_more_than_another_head_is_refused_until_it_is_asked_for(run_of, files):
    wider = "network={name: cnn, params: {channels: [4, 16], hidden: 16}}"
    with pytest.raises(CheckpointError) as caught:
        begun(run_of(f"init.from={files}/ten.params", wider))
    for part in (
        f"init.from: {files}/ten.params does not fit the network",
        "4.weight is float32 (8, 4, 3, 3), expected float32 (16, 4, 3, 3)",
        "only the number of outputs of one layer may differ",
        "--set init.match=shapes",
    ):
        assert part in str(caught.value)
    run = run_of(f"init.from={files}/ten.params", wider, "init.match=shapes")
    assert ": 8 taken, 6 fresh, 0 left" in build_learner(run).remarks[0]
    with pytest.raises(CheckpointError, match="does not fit the network"):
        begun(run_of(f"init.from={files}/six.params", "init.match=all"))


def test_weights_are_evaluated_whole_or_not_at_all(run_of, files):
    for match in ("head", "shapes"):
        with pytest.raises(CheckpointError, match=r"everything has to fit where weights are evaluated"):
            evaluate_only(run_of(f"init.from={files}/six.params", f"init.match={match}"))
    assert evaluate_only(run_of(f"init.from={files}/exported"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(run_of, files, tmp_path, value):
    arrays = mx.nd.load(str(files / "ten.params"))
    arrays["5.running_var"][:] = value
    mx.nd.save(str(tmp_path / "bad.params"), arrays)
    with pytest.raises(CheckpointError, match=r"bad\.params: holds numbers that are not finite, in\n  5\.running_var"):
        begun(run_of(f"init.from={tmp_path}/bad.params"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.params", "there is no such file"),
        ("absent/x", "cannot be read .No such file or directory"),
        ("x" * 5000, "(cannot be read .File name too long|there is no such file)"),  # the latter from Python 3.14 on
        ("exported-symbol.jso", "there is no such file"),
    ],
)
def test_a_path_where_nothing_is(run_of, files, name, reason):
    with pytest.raises(CheckpointError, match=f"init.from: .*{reason}.*; give a .params file"):
        begun(run_of(f"init.from={files}/{name}"))


def test_frozen_features_stay_and_the_head_learns(run_of, files):
    run = run_of(f"init.from={files}/six.params", "init.freeze=['0.*', '1.*', '4.*', '5.*']", "batch.shards=2")
    train(run, "error")
    state = LearnerState.load(run.folder.path / "checkpoints/iteration-000000004")
    file = mx.nd.load(str(files / "six.params"))
    frozen = [name for name in state.parameters if name[:2] in ("0.", "1.", "4.", "5.")]
    assert len(frozen) == 10
    for name in frozen:
        np.testing.assert_array_equal(state.parameters[name], file[name].asnumpy())
    assert list(state.optimizer_state) == ["9.weight/0", "9.bias/0", "10.weight/0", "10.bias/0"]
    assert len(state.numbers["update_counts"]) == 4
    elsewhere = StartOptions(resume=str(run.folder.path / "checkpoints/iteration-000000002"))
    for number, change in enumerate(("init.freeze=[]", "init.freeze=['0.*']")):
        with pytest.raises(CheckpointError, match=r"(?s)frozen parameters or carried state, .*init\.freeze: "):
            run_of(change, "batch.shards=2", start=elsewhere, name=f"other-{number}")
    again = run_of(
        "init.freeze=['0.*', '1.*', '4.*', '5.*']",
        "batch.shards=2",
        start=StartOptions(resume=str(run.folder.path / "checkpoints/iteration-000000002")),
    )
    train(again, "error")
    assert LearnerState.load(run.folder.path / "checkpoints/iteration-000000004").digest() == state.digest()


def test_the_finder_leaves_frozen_parts_alone(run_of, files):
    found = "finder={num_iterations: 20, min_iter: 3}"
    run = run_of(f"init.from={files}/ten.params", "init.freeze=['[0145].*']", "lr.base=auto", found)
    learner = build_learner(run)
    before = learner.digest()
    find_base(run, learner)
    assert learner.digest() == before


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["init.freeze=['fetures.*']"], "init.freeze: the pattern 'fetures.*'"),
        (["init.freeze=['*']"], "freezes every parameter, and nothing is left to train"),
        (["init.freeze=['0.*']", "optimizer.lr_mult={'0.*': 0.1}"], "matches frozen parameters alone"),
    ],
)
def test_frozen_patterns_that_make_no_sense(run_of, settings, part):
    with pytest.raises(ConfigError) as caught:
        begun(run_of(*settings))
    assert part in str(caught.value)
    assert "configs/digits.yaml: " in str(caught.value)


def test_a_match_without_weights_has_no_effect():
    raw = {"train": {"epochs": 1}, "network": {"name": "mlp"}, "lr": {"schedule": 0.1}, "init": {"match": "all"}}
    with pytest.raises(ConfigError, match=r"init\.match: all has no effect without init\.from"):
        parse_config(raw)


def test_a_configuration_of_the_first_version_has_neither():
    old = json.loads((ROOT / "tests/checkpoint/format_1/iteration-000000004/manifest.json").read_text())["config"]
    assert old["init"] == {"from": None}
    assert (parse_config(old).init.match, parse_config(old).init.freeze) == ("head", [])
