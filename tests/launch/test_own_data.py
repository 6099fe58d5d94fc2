"""Data of the user's own through whole runs: tokens, masks, several inputs, random items; what is refused and how."""

from __future__ import annotations

import hashlib
import json
import re

import mxnet as mx
import numpy as np
import pytest

from harness.comm import SingleWorld
from harness.config import load_config
from harness.errors import CheckpointError, ConfigError, DataError
from harness.train.build import build_learner
from harness.train.loop import train
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions
from tests.programs import own_data

OWN = "tests.programs.own_data"
BASE = (
    "batch={size: 16, shards: 2}",
    "train={epochs: 2}",
    "optimizer={name: sgd, params: {momentum: 0.9}}",
    "lr={base: 0.05, schedule: 1x}",
    "threads_per_rank=1",
    "log.tensorboard=false",
    "name=own",
)


@pytest.fixture
def trained(tmp_path):
    """Train in this process, without a run's folder; returns what the evaluation found, the digest and the losses."""

    def run(data, network, *settings, upset=lambda: None):
        words = [*BASE, f"output={tmp_path}", f"data.name={OWN}:{data}", f"network={network}", *settings]
        run = prepare_run(load_config("configs/digits.yaml", words), SingleWorld(), threads=1)
        losses = []
        with run.stream() as stream:
            learner = build_learner(run)
            for t in range(1, run.sizes.num_iterations + 1):
                losses.append(float(learner.update(stream(t), run.plan.lr(t), run.plan.momentum(t))))
                upset()
        results = run.evaluate(learner, "test") if run.data.held_out else {}
        return results, learner.digest(), losses

    return run


def of(name, **params):
    return f"{{name: '{OWN}:{name}', params: {params}}}" if params else f"{{name: '{OWN}:{name}'}}"


ADAM = ("optimizer={name: adam, params: {}}", "lr.base=0.02", "train.epochs=6", "batch.shards=1")


@pytest.mark.parametrize(
    "dtype", ["uint8", "int64", *(pytest.param(t, marks=pytest.mark.thorough) for t in ("int8", "uint16"))]
)
def test_tokens_are_learnt_whatever_their_type(trained, dtype):
    more = ["data.params.high=127"] if dtype == "int8" else []
    results, _, _ = trained("tokens", of("embedding"), *ADAM, f"data.params.dtype={dtype}", *more)
    assert results["accuracy"] == 1.0


def test_ids_beyond_float32_reach_the_network(trained):
    params = f"data.params={{dtype: int64, low: {2**25}, high: {2**25 + 200}}}"
    results, _, _ = trained("tokens", of("remainder_embedding"), *ADAM, params)
    assert results["accuracy"] == 1.0
    with pytest.raises(DataError, match=r"train: sample 0 has the value 33554\d+, which is a whole number"):
        trained("tokens", of("remainder_embedding"), *ADAM, params, "data.scale=1")


@pytest.mark.parametrize(
    ("data", "settings", "said"),
    [
        ("tokens", ["network={name: 'tests.programs.own_data:embedding'}"], "1024 samples (uint8 unchanged), "),
        ("tokens", ["network.name=mlp", "data.scale=200"], "1024 samples (bytes / 200), "),
        ("pictures", ["network.name=mlp", "data.params.how=plain"], "96 samples, "),
        ("pictures", ["network.name=mlp", "data.params.how=numpy"], "96 samples (seeded item by item), "),
        (
            "looked_up",
            ["network={name: 'tests.programs.own_data:looks_up'}"],
            "256 samples (data[1] int64 unchanged), ",
        ),
    ],
)
def test_the_opening_line_tells_what_was_done(tmp_path, capfd, data, settings, said):
    words = [*BASE, "train={iterations: 1}", f"output={tmp_path}", f"data.name={OWN}:{data}", *settings]
    train(prepare_run(load_config("configs/digits.yaml", words), SingleWorld(), threads=1))
    assert said in capfd.readouterr().out


def test_a_network_that_does_not_take_integers_says_what_to_do(trained):
    with pytest.raises(
        ConfigError, match=r"does not take samples of shape \(4,\), uint8 \(integers are left as they are"
    ):
        trained("tokens", "{name: mlp}")
    trained("tokens", "{name: mlp}", "data.scale=1", "train={iterations: 2}")


@pytest.mark.parametrize(("dtype", "first"), [("int64", True), ("uint8", True), ("int32", False), ("int64", False)])
def test_a_class_for_every_pixel(trained, dtype, first):
    params = f"data.params={{dtype: {dtype}, first: {str(first).lower()}}}"
    metrics = "evaluation.metrics=[accuracy, error, top_5_accuracy]"
    results, _, _ = trained(
        "masks", of("mask_net", first=first), params, metrics, "train.epochs=5", "batch.shards=1", "lr.base=0.2"
    )
    assert results["accuracy"] > 0.9
    assert results["accuracy"] + results["error"] == pytest.approx(1.0, abs=1e-12)
    assert results["top_5_accuracy"] == 1.0


def test_several_inputs_train_in_every_form(trained):
    found = [
        trained("two_inputs", of("two_inputs_net"), f"data.params.form={form}", "batch.shards=1")
        for form in ("nested", "flat", "gluon", "mxnet", "arrays", "flat arrays")
    ]
    assert len({digest for _, digest, _ in found}) == 1
    assert found[0][0]["accuracy"] > 0.6


def test_several_inputs_without_a_compiled_network(trained):
    digests = {
        trained("two_inputs", of("two_inputs_net"), f"network.hybridize={hybridize}")[1]
        for hybridize in ("true", "false")
    }
    assert len(digests) == 1


def test_every_input_has_a_type_of_its_own(trained):
    settings = ("train.epochs=20", "batch.shards=1", "lr.base=0.2", "evaluation.metrics=[]")
    assert trained("looked_up", of("looks_up"), *settings)[2][-1] < 0.05


@pytest.mark.parametrize(
    ("loss", "high", "params"),
    [
        ("l1", 5, "{}"),
        ("l2", 5, "{}"),
        ("huber", 5, "{}"),
        ("sigmoid_binary_cross_entropy", 2, "{}"),
        ("logistic", 2, "{label_format: binary}"),
        ("softmax_cross_entropy", 2, "{sparse_label: false}"),
    ],
)
def test_losses_that_compute_take_integers(trained, loss, high, params):
    """The bits are those of the same labels as floats."""
    metrics = "[]" if "sparse" in params else "[mae]"
    more = (
        f"network.params.classes={2 if 'sparse' in params else 1}",
        f"network.loss={loss}",
        f"network.loss_params={params}",
    )
    more = (*more, f"evaluation.metrics={metrics}", "train={iterations: 4}", "lr.base=0.001")
    rows = ", two: true" if "sparse" in params else ""
    digests = {
        trained("numbers", "{name: mlp}", *more, f"data.params={{label: {label}, high: {high}{rows}}}")[1]
        for label in ("uint8", "int64", "float32")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_labels_of_such_losses_may_be_negative(trained, loss):
    more = ("network.params.classes=1", f"network.loss={loss}", "evaluation.metrics=[]", "train={iterations: 4}")
    found = {
        trained("numbers", "{name: mlp}", *more, f"data.params={{label: {label}, low: -1, high: 2}}")[1]
        for label in ("int8", "int64", "float64")
    }
    assert len(found) == 1


def test_losses_that_compute_refuse_what_floats_cannot_hold(trained):
    more = ("network.params.classes=1", "evaluation.metrics=[]")
    far = "data.params={low: 16777217, high: 16777218}"
    with pytest.raises(DataError, match=r"label 0 has the value 16777217, which is a whole number that float32 cannot"):
        trained("numbers", "{name: mlp}", *more, "network.loss=l2", far)
    with pytest.raises(DataError, match=r"train: labels go up to 16777217, but there are only 256, so they can hardly"):
        trained("numbers", "{name: mlp}", *more, far)


def test_a_loss_of_the_users_own_gets_integers_as_they_are(trained):
    more = ("network.params.classes=1", f"network.loss={OWN}:squared_loss", "evaluation.metrics=[]", "lr.base=0.001")
    trained("numbers", "{name: mlp}", *more, "train={iterations: 2}")
    with pytest.raises(
        ConfigError, match=r"does not fit predictions \(2, 1\) and labels of shape \(\), int64; a loss of"
    ):
        trained("numbers", "{name: mlp}", *more, "network.loss_params.cast=false")


CNN = "{name: cnn, params: {channels: [4], hidden: 8}}"


@pytest.mark.parametrize("how", ["mxnet", "numpy", "python"])
def test_random_items_give_one_digest(trained, how):
    params = f"data.params={{how: {how}, count: 64}}"  # two iterations an epoch
    first = trained("pictures", CNN, params)[1]
    assert trained("pictures", CNN, params, upset=lambda: np.random.seed(None))[1] == first
    assert trained("pictures", CNN, params, "seed=1")[1] != first


def test_random_items_and_a_network_that_draws(trained):
    """Both draw from MXNet's generator, and the network from NumPy's too."""
    found = [
        trained("pictures", net, f"data.params.how={how}", "train={iterations: 2}", upset=upset)[1]
        for how in ("mxnet", "numpy")
        for net in ("{name: mlp, params: {dropout: 0.5}}", "{name: 'tests.programs.own:numpy_noise'}")
        for upset in (lambda: None, lambda: (mx.random.seed(5), np.random.seed(5)))
    ]
    assert found[::2] == found[1::2]
    assert len(set(found)) == 4


@pytest.mark.parametrize("how", ["default_rng", "counter", "cursor", "clock"])
def test_items_that_are_not_functions_of_their_index_are_refused(trained, how):
    with pytest.raises(
        DataError, match=r"configs/digits.yaml: data.name: .*train: item \d+ was read twice with the same"
    ):
        trained("pictures", CNN, f"data.params.how={how}")


def test_items_of_another_process_are_noticed_by_a_run_that_goes_on(tmp_path):
    """An item may depend on the salt of hash(), on a file made anew, on what was drawn before: here, on the factory."""
    data = (f"data={{name: '{OWN}:shifted', params: {{}}}}", "network={name: mlp, params: {hidden: [4]}}")
    words = [*BASE, f"output={tmp_path}", *data, "checkpoint.every=2it", "train={iterations: 4}"]
    train(prepare_run(load_config("configs/digits.yaml", words), SingleWorld(), threads=1))
    place = tmp_path / "own" / "checkpoints" / "iteration-000000002"
    config = load_config("configs/digits.yaml", [*words, "name=resumed"])

    def resumed():
        run = prepare_run(config, SingleWorld(), threads=1, start=StartOptions(str(place)))
        run.folder.close()
        return run

    own_data.SHIFT.append(0.25)
    try:
        with pytest.raises(CheckpointError, match=r"the training data are not those .* item between has other values"):
            resumed()
        manifest = json.loads((place / "manifest.json").read_text())
        del manifest["items"]  # as earlier versions wrote it
        text = json.dumps(manifest)
        (place / "manifest.json").write_text(text)
        (place / "manifest.sha256").write_text(hashlib.sha256(text.encode()).hexdigest() + "\n")
        assert resumed().resume_point.iteration == 2
    finally:
        own_data.SHIFT.clear()


def test_random_items_on_two_ranks_and_after_a_stop(start, tmp_path, trained):
    """The digest of one process, that of two ranks, and that of a run which goes on after its second update."""
    data = ("data.params.how=mxnet", "train={iterations: 4}")
    digest = trained("pictures", CNN, *data)[1]
    words = [*BASE, f"data.name={OWN}:pictures", f"network={CNN}", f"output={tmp_path}", *data, "checkpoint.every=2it"]
    config = load_config("configs/digits.yaml", words)
    train(prepare_run(config, SingleWorld(), threads=1))
    stopped = tmp_path / "own" / "checkpoints" / "iteration-000000002"
    settings = [word for one in [*words, "name=resumed"] for word in ("--set", one)]
    two = start("launch/train.py", *settings, "--resume", stopped, np=2, launcher="mpirun")
    assert re.search(r"digest ([0-9a-f]{64})", two.stdout)[1] == digest
