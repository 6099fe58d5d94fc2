"""`configs/imagenet_resnet50.yaml` on a small set of pictures, in records that MXNet's im2rec packed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from harness.config import load_config
from harness.plan import LRPlan, Sizes

simplejpeg = pytest.importorskip("simplejpeg")
pytest.importorskip("cv2")

IM2REC = Path(mx.__file__).parent / "tools" / "im2rec.py"
CLASSES, EACH = 3, 8
SMALL = [
    *(f"data.pictures.{setting}" for setting in (f"num_classes={CLASSES}", "size=32", "resize=36")),
    *("batch={size: 4, shards: 2}", "train={iterations: 2}", "lr.warmup.length=1it", "log.every=1it"),
    *("evaluation.every=1it", "checkpoint.every=1it"),
]


@pytest.fixture(scope="module")
def records(start, tmp_path_factory):
    """`train.rec` and `val.rec`, as docs/imagenet.md makes them."""
    root, random = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for split, count in (("train", EACH), ("val", 2)):
        for number in range(CLASSES):
            folder = root / split / f"n0{number}"
            folder.mkdir(parents=True)
            for one in range(count):
                pixels = random.integers(0, 256, (*random.integers(40, 60, 2), 3)).astype(np.uint8)
                (folder / f"{one}.JPEG").write_bytes(simplejpeg.encode_jpeg(pixels))
        for options in (["--list", "--recursive", split], ["--pass-through", "--num-thread", "2", f"{split}.lst"]):
            start(IM2REC, *options, split, cwd=root, timeout_s=60)
    return root


@pytest.mark.long
def test_it_trains_alike_on_one_rank_and_resumed_on_two(launch, records, tmp_path):
    def train(name, *options, **how):
        settings = [*SMALL, f"data.root={records}", f"output={tmp_path}", f"name={name}"]
        words = [word for one in settings for word in ("--set", one)]
        return launch("launch/train.py", "--config", "imagenet_resnet50", *words, *options, **how)

    one = train("one")
    place = tmp_path / "one" / "checkpoints" / "iteration-000000001"
    two = train("two", "--resume", place, np=2, launcher="mpirun")
    found = {re.findall(r"digest ([0-9a-f]{64})", done.stdout)[0] for done in (one, two)}
    assert len(found) == 1
    assert "learning rate 0.1 for a batch of 256, at batch 4 x 2 shards (linear) = 0.003125" in one.stdout
    assert re.search(r"\[2/2\] validation: loss \d+\.\d+  accuracy \d\.\d+  top_5_accuracy 1\.0000", one.stdout)


def test_its_plan_on_eight_workers_is_the_recipes(command, tmp_path):
    arguments = ["--config", "imagenet_resnet50", "--samples", "1281167", "--np", "8", "--output", tmp_path]
    ended = command("plan", *arguments)
    assert ended.code == 0
    assert "iterations: 150120, 1251 per epoch, 8 shards of 128" in ended.out
    config = load_config("imagenet_resnet50")
    plan = LRPlan(config.lr, Sizes.of(config.train, num_samples=1_281_167, shards=8, batch_size=config.batch.size))
    warm, total = 5 * 1251, 120 * 1251
    for t in (1, 1251, warm, warm + 1, total // 2, total - 1, total):
        expected = 0.4 * t / warm if t < warm else 0.2 * (1 + math.cos(math.pi * (t - warm) / (total - warm)))
        assert plan.lr(t) == pytest.approx(expected, rel=1e-9, abs=1e-15), t
