"""The batches of a run in PyTorch: those that this harness's ranks see, under any launcher, resumed anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
import torch

from harness.bridge.continuing import open_run
from harness.bridge.data import EvaluationBatches, TrainingBatches, Update, as_loader, tensor_of
from harness.comm import Launch, SingleWorld
from harness.comm.tree import assign
from harness.config import load_config
from harness.data import evaluation_batches
from harness.errors import CheckpointError, ConfigError
from harness.train.samples import build_augmentation, load_splits
from tests.conftest import ROOT
from tests.programs import clients, functions, streams
from tests.programs.batch_hashes import CONFIG, digest, of_evaluation, of_harness, of_torch

PICTURES = [
    "data={name: records, validation: 0.2, pictures: {size: 8, train: {rec: all.rec}}, workers: 2}",
    "train={epochs: 2, last_batch: keep}",
    "evaluation={every: 1ep}",
    "batch={size: 5, shards: 4}",
]
JOBS = {
    **{name: functions.settings_of(name) for name in functions.SETTINGS},
    "digits": ["data.augment={pad_crop: 1, flip: true}", "batch={size: 30, shards: 4}", "train={epochs: 2}"],
    "items": [
        "data={name: tests.programs.worked:points_of_mxnet, validation: 0.2, worker_kind: process, workers: 2}",
        "batch={size: 5, shards: 4}",
        "train={iterations: 10, last_batch: keep}",
        "evaluation={every: 5it}",
    ],
    "streams": [*clients.COMMON, *streams.SETTINGS["reader"]],
}


def rank(number, size):
    return Launch("torchrun", number, size, number, size)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Settings of records, where what decodes them is installed."""
    simplejpeg = pytest.importorskip("simplejpeg")
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    writer = mx.recordio.MXIndexedRecordIO(str(root / "all.idx"), str(root / "all.rec"), "w")
    for key in range(33):
        content = simplejpeg.encode_jpeg(random.integers(0, 255, (12, 14, 3)).astype(np.uint8))
        writer.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, float(key % 3), key, 0), content))
    writer.close()
    return [*PICTURES, f"data.root={root}"]


@pytest.fixture(scope="module")
def jobs(pictures):
    return {**JOBS, "pictures": pictures}


@pytest.fixture(scope="module")
def seen(jobs):
    """What one process that stands for four ranks of this harness sees, by the name of the job."""
    names = [name for name in jobs if name != "items"]  # which the ranks below read
    return {name: of_harness(jobs[name], SingleWorld(), emulate_np=4) for name in names}


def share(seen, number, size):
    """What a rank sees of that: its shards, in its order."""
    found = {}
    for t, (shards, num_samples, begins) in seen.items():
        hashes = dict(shards)
        own = assign(4 if len(hashes) <= 4 else 8, size).shards[number]
        found[t] = ([(shard, hashes[shard]) for shard in own if shard in hashes], num_samples, begins)
    return found


@pytest.mark.parametrize("name", [*(name for name in JOBS if name != "items"), "pictures"])
def test_any_number_of_ranks_sees_what_ranks_here_see(jobs, seen, name):
    with open_run(CONFIG, jobs[name], launch=rank(0, 4)) as run:
        for size in (1, 2, 4):
            own = [replace(run, launch=rank(number, size)) for number in range(size)]
            for number, one in enumerate(own):
                begin = 1 + (5 * number) % len(seen[name])  # resumed anywhere
                expected = {t: found for t, found in share(seen[name], number, size).items() if t >= begin}
                assert of_torch(one, begin=begin) == expected
            check_evaluation(own)


def check_evaluation(ranks):
    """All ranks together see every batch of one process once, in turns."""
    found = [of_evaluation(one) for one in ranks]
    together = {number: one for own in found for number, one in own.items()}
    assert sum(map(len, found)) == len(together)
    assert all(number % len(ranks) == own for own, one in enumerate(found) for number in one)
    if ranks[0].config.network.state is None:  # whose batches are numbered by the number of ranks
        assert together == of_evaluation(replace(ranks[0], launch=rank(0, 1)))


def test_evaluation_is_not_augmented(jobs):
    config = load_config(CONFIG, jobs["digits"])
    splits = load_splits(config)
    batches = evaluation_batches(splits.test, config.batch.size, build_augmentation(config, splits))
    with open_run(CONFIG, jobs["digits"], launch=rank(0, 1)) as run:
        assert of_evaluation(run) == {number: digest(data, label) for number, data, label in batches}


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.thorough)])
def test_workers_of_a_loader_change_nothing(jobs, seen, context):
    options = {"num_workers": 2, "multiprocessing_context": context}
    for name in ("mixed", "words", "pictures"):
        with open_run(CONFIG, jobs[name], launch=rank(1, 2)) as run:
            expected = {t: one for t, one in share(seen[name], 1, 2).items() if t >= 4}
            assert of_torch(run, begin=4, **options) == expected
            assert of_evaluation(run, **options) == of_evaluation(run)


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.thorough)])
def test_ranks_of_torchrun_and_of_mpirun_see_the_same(tmp_path, jobs, start, size):
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps({name: jobs[name] for name in ("words", "alike", "mixed", "items", "pictures")}))
    program, there, here = ROOT / "tests/programs/batch_hashes.py", tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size), program, path, there]
    done = subprocess.run(torchrun, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    start("tests/programs/batch_hashes.py", path, here, np=size, launcher="mpirun")
    for number in range(size):
        found, expected = (json.loads((folder / f"{number}.json").read_text()) for folder in (there, here))
        assert found == expected


def test_an_update_that_leaves_a_rank_without_samples():
    settings = ["batch={size: 300, shards: 4}", "train={epochs: 1, last_batch: keep}", "lr={base: 0.1, schedule: 1x}"]
    with open_run(CONFIG, settings, launch=rank(3, 4)) as run:
        updates = list(TrainingBatches(run))
        first, last = updates[0], updates[-1]
        assert [[(one.shard, one.counts) for one in update.shards] for update in (first, last)] == [
            [(3, True)],
            [(0, False)],
        ]
        assert (last.num_samples, last.num_shards, first.num_shards) == (1437 % 1200, 1, 4)
        with open_run(CONFIG, settings, launch=rank(0, 4)) as other:
            assert torch.equal(next(iter(TrainingBatches(other, 2))).shards[0].data, last.shards[0].data)


def test_batches_go_to_a_device_as_they_are_nested():
    with open_run(CONFIG, JOBS["words"], launch=rank(0, 1)) as run:
        update = next(iter(TrainingBatches(run)))
        shard = update.to("meta").shards[0]
        assert {name: one.device.type for name, one in shard.data.items()} == dict.fromkeys(shard.data, "meta")
        pinned = Update(update.t, list(update.shards), *update[2:])  # pinning memory makes lists of tuples
        assert pinned.to("cpu").shards == update.shards
        batch = next(iter(EvaluationBatches(run)))
        assert batch.to("meta").label.device.type == "meta"


def test_tensors_share_memory_where_they_can():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert tensor_of(array).data_ptr() == array.ctypes.data
    frozen = array.copy()
    frozen.setflags(write=False)
    for one in (frozen, array[:, ::-1], np.zeros((0, 3), np.float32), np.float32(3)):
        assert np.array_equal(tensor_of(np.asarray(one)).numpy(), one)


WRONG = [
    (lambda run: TrainingBatches(run, 0), "updates 0 to 330 are not among those of the run, 1 to 330"),
    (lambda run: TrainingBatches(run, end=331), "updates 1 to 331 are not among"),
    (lambda run: TrainingBatches(run, 9, 7), "updates 9 to 7 are not among"),
    (lambda run: EvaluationBatches(run, "validation"), "the run has no validation samples; it has test"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:20] for _, message in WRONG])
def test_what_is_refused(call, message):
    with open_run(CONFIG, ["batch.shards=2"], launch=rank(0, 2)) as run:
        assert len(TrainingBatches(run, 331)) == 0
        with pytest.raises(ConfigError) as error:
            call(run)
        assert message in str(error.value)


def test_runs_that_cannot_be_opened(tmp_path):
    with pytest.raises(ConfigError, match="2 shards are too few for 4 workers"):
        open_run(CONFIG, ["batch.shards=2"], launch=rank(0, 4))
    with pytest.raises(CheckpointError, match="there is no such folder"):
        open_run(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("items", TrainingBatches, r"the run's own workers read its samples .*; give num_workers=0"),
        ("streams", EvaluationBatches, "batches that carry state are evaluated one by one"),
    ],
)
def test_workers_that_would_be_in_the_way(name, kind, message):
    with open_run(CONFIG, JOBS[name], launch=rank(0, 2)) as run, pytest.raises(ConfigError, match=message):
        as_loader(kind(run), num_workers=1)
