"""Several devices in one process, which process shards as ranks do; `cpu(0)` and `cpu(1)` stand for GPUs."""

from __future__ import annotations

import re

import mxnet as mx
import numpy as np
import pytest

from harness.comm import SingleWorld
from harness.config import parse_config
from harness.errors import ConfigError, DisagreementError
from harness.model import devices_of_rank
from harness.train.build import build_learner
from harness.train.find import find_base
from harness.train.prepare import prepare_run
from tests.conftest import THOROUGH

BOTH = ["cpu(0)", "cpu(1)"]
NUM_STATES = 20 if THOROUGH else 6
SETTINGS = {
    "seed": 3,
    "threads_per_rank": 1,
    "data": {"name": "digits", "augment": {"pad_crop": 1, "flip": True}},
    "batch": {"size": 8, "shards": 4},
    "train": {"iterations": 40},
    "network": {"name": "cnn", "params": {"channels": [6], "dropout": 0.2}},
    "optimizer": {"name": "sgd", "params": {"momentum": 0.9, "wd": 1e-3}},
    "lr": {"base": 0.05, "schedule": {"one_cycle": {"start_lr": "0.1x", "max_lr": "1x", "cycle_length": "100%"}}},
}
MODES = {
    f"{kvstore}, optimizer on the {'kvstore' if on_kvstore else 'workers'}": {
        "devices": BOTH,
        "kvstore": kvstore,
        "update_on_kvstore": on_kvstore,
    }
    for kvstore in ("local", "device")
    for on_kvstore in (False, True)
}
every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())


@pytest.fixture
def run_of(request):
    """Build a run of a configuration, its learner and its stream, which is closed at the end."""

    def build(**settings):
        config = parse_config({**SETTINGS, **settings})
        run = prepare_run(config, SingleWorld(), threads=1)
        stream = run.stream()
        request.addfinalizer(stream.close)
        return build_learner(run), run.plan, stream

    return build


def assert_equal(found, expected):
    assert found.numbers == expected.numbers
    for kind in ("parameters", "optimizer_state"):
        for name, array in getattr(expected, kind).items():
            np.testing.assert_array_equal(getattr(found, kind)[name], array, err_msg=name)


@every_mode
def test_the_average_of_weights_is_that_of_one_device_and_changes_none(run_of, mode):
    ema = {"decay": 0.8, "every": "2it"}
    (one, plan, stream), (two, _, streams) = run_of(ema=ema), run_of(ema=ema, **mode)
    for t in range(1, 9):
        one.update(stream(t), plan.lr(t))
        two.update(streams(t), plan.lr(t))
        if t == 5:
            digest = two.digest()
            with two.averaged():
                assert two.digest() != digest
            assert two.digest() == digest
    expected, found = one.snapshot().averages, two.snapshot().averages
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert len(two.checksums()) > len(found)  # of which all devices hold the same bits


@pytest.mark.parametrize("kvstore", ["local", "device"])
@pytest.mark.parametrize("shards", [4, 8])
def test_four_devices_have_the_bits_of_one(run_of, kvstore, shards):
    # of a kvstore's own sums of four, three in five had the bits of the tree
    devices = [f"cpu({number})" for number in range(4)]
    learner, plan, stream = run_of(devices=devices, kvstore=kvstore, batch={"size": 8, "shards": shards})
    alone, _, all_shards = run_of(batch={"size": 8, "shards": shards})
    for t in range(1, 9):
        learner.update(stream(t), plan.lr(t))
        alone.update(all_shards(t), plan.lr(t))
    assert_equal(learner.snapshot(), alone.snapshot())


@every_mode
@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "params": {"momentum": 0.9, "wd": 1e-3}, "clip_norm": 1.0},
        {"name": "nag", "params": {"momentum": 0.9, "wd": 1e-3}},
        {"name": "adam"},
        {"name": "nadam"},
        {"name": "sgld"},
    ],
    ids=lambda optimizer: optimizer["name"],
)
def test_an_update_from_each_of_many_states_has_the_bits_of_one_device(run_of, mode, optimizer):
    one, plan, ones = run_of(optimizer=optimizer)
    two, _, twos = run_of(optimizer=optimizer, **mode)
    for t in range(1, 1 + NUM_STATES):
        two.restore(one.snapshot())
        losses = [float(learner.update(stream(t), plan.lr(t))) for learner, stream in ((one, ones), (two, twos))]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        assert_equal(two.snapshot(), one.snapshot())
    two.checksums()


@every_mode
def test_a_run_has_the_bits_of_one_device(run_of, mode):
    batch = {"batch": {"size": 8, "shards": 2}}
    one, plan, ones = run_of(**batch)
    two, _, twos = run_of(**batch, **mode)
    for t in range(1, 21):
        for learner, stream in ((one, ones), (two, twos)):
            momentum = 0.5 if t % 4 else None  # None is the optimizer's own, and an update at 0 keeps its history
            learner.update(stream(t), 0.0 if t == 7 else plan.lr(t), momentum)
    assert_equal(two.snapshot(), one.snapshot())
    assert two.checksums() == one.checksums()


def test_four_devices_agree_with_one_to_rounding(run_of):
    """The kvstore adds four arrays in an order of its own."""
    one, plan, ones = run_of()
    four, _, fours = run_of(devices=[f"cpu({i})" for i in range(4)])
    for t in range(1, 6):
        four.restore(one.snapshot())
        for learner, stream in ((one, ones), (four, fours)):
            learner.update(stream(t), plan.lr(t))
        expected, found = one.snapshot(), four.snapshot()
        for name, array in {**expected.parameters, **expected.optimizer_state}.items():
            other = {**found.parameters, **found.optimizer_state}[name]
            assert np.linalg.norm(other - array) <= 1e-6 * max(np.linalg.norm(array), 1e-6)


@every_mode
def test_weights_written_to_from_outside_reach_every_device_and_the_store(run_of, mode, tmp_path):
    one, *_ = run_of()
    two, _, stream = run_of(seed=4, **mode)
    one.save_weights(tmp_path / "w.params")
    two.load_weights(str(tmp_path / "w.params"))
    two.checksums()
    expected = one.snapshot().parameters
    two.update(stream(1), 0.0)
    two.update(stream(2), 1e-30)  # what comes out of the store is what was put in
    for name, array in two.snapshot().parameters.items():
        if "running" not in name:
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-25)
    two.checksums()


@every_mode
def test_a_skipped_update_leaves_no_trace(run_of, mode):
    two, plan, stream = run_of(guard={"divergence": {"policy": "skip"}}, **mode)
    two.update(stream(1), plan.lr(1))
    before = two.snapshot()

    def poisoned(t):
        batch = stream(t)
        for shard in batch.batches[1:2]:
            shard.data[:] = np.nan
        return batch

    two.update(poisoned(2), plan.lr(2))
    assert two.skipped == 1
    assert_equal(two.snapshot(), before)
    two.checksums()


@every_mode
def test_the_finder_leaves_devices_and_store_bit_for_bit_as_they_were(run_of, mode):
    settings = {**mode, "finder": {"num_iterations": 30, "lr_end": 100.0}}
    run = prepare_run(parse_config({**SETTINGS, **settings}), SingleWorld(), threads=1)
    twin, plan, _ = run_of(**settings)
    with run.stream() as stream:
        learner = build_learner(run)
        for t in range(1, 4):
            for one in (learner, twin):
                one.update(stream(t), plan.lr(t))
        before = learner.snapshot()
        find_base(run, learner)
        assert_equal(learner.snapshot(), before)
        for t in range(4, 8):  # what the store holds and no snapshot shows would come to light here
            for one in (learner, twin):
                one.update(stream(t), plan.lr(t))
        assert_equal(learner.snapshot(), twin.snapshot())
        learner.checksums()


def test_devices_that_drift_apart_are_found(run_of):
    two, plan, stream = run_of(devices=BOTH)
    two.update(stream(1), plan.lr(1))
    two.checksums()
    name, parameter = next(iter(two.parameters.items()))
    parameter.data(mx.cpu(1))[:] += 1e-6
    with pytest.raises(DisagreementError, match=re.escape(f"cpu(1) holds other bits than cpu(0) of {name}")):
        two.checksums()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": ["cpu(0)", "gpu"]}, r"devices: found ['cpu(0)', 'gpu']; each must be gpu(N), or cpu(N)"),
        ({"devices": "cpu(0)"}, "devices: found 'cpu(0)'; must be a list of devices, such as [gpu(0), gpu(1)]"),
        ({"devices": []}, "devices: found []; must be a list of devices"),
        (
            {"devices": ["cpu(0)", "gpu(1)"]},
            "devices: found ['cpu(0)', 'gpu(1)']; all devices must be of the same kind",
        ),
        ({"devices": ["cpu(0)", "cpu(0)"]}, "devices: found ['cpu(0)', 'cpu(0)']; each device may appear once"),
        ({"devices": BOTH, "device": "cpu"}, "device: cpu has no effect beside devices; remove one of them"),
        ({"kvstore": "local"}, "kvstore: local has no effect without several devices"),
        ({"devices": ["cpu(0)"], "update_on_kvstore": True}, "update_on_kvstore: true has no effect without several"),
        ({"devices": BOTH, "kvstore": "dist_sync"}, "kvstore: "),
    ],
)
def test_devices_are_checked(settings, message):
    with pytest.raises(ConfigError) as error:
        parse_config({**SETTINGS, **settings})
    assert message in str(error.value)


def test_every_device_needs_a_shard(run_of):
    with pytest.raises(ConfigError, match="4 shards are too few for 5 workers"):
        run_of(devices=[f"cpu({i})" for i in range(5)])


def test_unset_shards_are_one_for_each_device(run_of):
    *_, stream = run_of(devices=BOTH, batch={"size": 8})
    assert stream(1).num_samples == 16


@pytest.mark.skipif(mx.context.num_gpus() > 0, reason="this machine has GPUs")
def test_gpus_that_are_not_there_are_named():
    config = parse_config({**SETTINGS, "devices": ["gpu(0)", "gpu(3)"]})
    with pytest.raises(ConfigError, match=re.escape("devices: gpu(0), gpu(3), but this MXNet sees 0 GPUs")):
        devices_of_rank(config, 0)
