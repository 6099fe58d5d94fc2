#!/usr/bin/env python
"""What a picture costs from its record to the batch: the harness, and what else reads RecordIO for training.

JPEG files of about 500 x 375 pixels are made here, and packed as `im2rec` packs them. Each contender cuts a part of
random area and ratio, resizes it to 224 x 224, mirrors half of them and normalises to float32, without and with jitter
(brightness, contrast and saturation by .4, lighting by .1). A turn is a process of its own, which reads all pictures
once after an epoch that warms it up; what counts is the CPU time of that process and its children, because the wall
depends on how many cores are free. Contenders take turns, in another order every round.

    python benchmarks/pictures.py [--count 1000] [--rounds 5] [--dali PYTHON] [--json FILE]
    python benchmarks/pictures.py --steps [--rounds 5]

`--dali` names an interpreter that has nvidia-dali, whose pipeline (without lighting) then takes part on the CPU.
`--steps` asks whether the input hides behind computing: ResNet-18 trains on two ranks, from the records with one thread
each that decodes, and from float32 arrays that lie in memory; what counts is the median time of an update.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
SIZE, BATCH = 224, 50
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER, LIGHTING = 0.4, 0.1
KINDS = {"without jitter": False, "with jitter": True}
UPDATE = "update"


def make_pictures(folder: Path, count: int) -> None:
    """`pictures.rec` and `pictures.idx`: colours that change smoothly at several scales, and noise as of a camera."""
    import cv2
    import mxnet as mx
    import numpy as np
    import simplejpeg

    draws = np.random.default_rng(0)
    record = mx.recordio.MXIndexedRecordIO(str(folder / "pictures.idx"), str(folder / "pictures.rec"), "w")
    for key in range(count):
        height, width = (375, 500) if key % 4 else (500, 375)
        pixels = draws.normal(0, 4, (height, width, 3)) + 128
        for scale, strength in ((8, 8), (24, 20), (80, 45)):
            coarse = draws.normal(0, strength, (height // scale + 3, width // scale + 3, 3)).astype(np.float32)
            pixels += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        content = simplejpeg.encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8), quality=90)
        record.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, key % 10, key, 0), content))
    record.close()


def of_harness(folder: Path, jitter: bool) -> Callable[[], Iterator[Any]]:
    """Records, decoded by one thread of the harness."""
    from harness.data.pictures.dataset import PictureDataset
    from harness.data.pictures.decoding import Size
    from harness.data.pictures.recipe import Colours, Recipe
    from harness.data.records import RecordFile, RecordFiles, RecordPictures

    colours = Colours(JITTER, JITTER, JITTER, 0.0, LIGHTING) if jitter else Colours()
    recipe = Recipe(Size(SIZE, SIZE), 256, flip=True, colours=colours, mean=MEAN, std=STD)
    pictures = RecordPictures(RecordFiles([RecordFile(folder / "pictures.rec", None)]))
    return batches_of(PictureDataset(pictures, recipe, "benchmark", num_classes=10))


def of_own_dataset(folder: Path, jitter: bool) -> Callable[[], Iterator[Any]]:
    """A data set of a user's own, with Gluon's transforms, that the harness reads."""
    from harness.data.sequences import SequenceDataset

    pictures = gluon_pictures(folder, jitter)

    class Items:
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            data, label = pictures[index]
            return data.asnumpy(), int(label)

    return batches_of(SequenceDataset(Items(), source="benchmark"))


def batches_of(dataset: Any) -> Callable[[], Iterator[Any]]:
    """The epochs of a stream of one shard."""
    from harness.data import Augmentation, BatchStream, Order

    order = Order(num_samples=len(dataset), shards=1, batch_size=BATCH, seed=0)
    stream = BatchStream(dataset, order, [0], Augmentation(is_done=True), 0)
    begun = [0]

    def epoch() -> Iterator[Any]:
        first = begun[0] * order.iterations_per_epoch
        begun[0] += 1
        for t in range(first + 1, first + 1 + order.iterations_per_epoch):
            batch = stream(t)
            assert batch.num_samples == batch.batches[0].count == BATCH
            yield batch

    return epoch


def gluon_pictures(folder: Path, jitter: bool) -> Any:
    """Gluon's data set of records with its transforms, which resize bilinearly as the others do."""
    import mxnet as mx
    from mxnet.gluon.data.vision import ImageRecordDataset, transforms

    steps = [transforms.RandomResizedCrop(SIZE, interpolation=1), transforms.RandomFlipLeftRight()]
    if jitter:
        steps += [transforms.RandomColorJitter(JITTER, JITTER, JITTER), transforms.RandomLighting(LIGHTING)]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    mx.random.seed(0)
    return ImageRecordDataset(str(folder / "pictures.rec")).transform_first(transforms.Compose(steps))


def of_gluon(workers: int) -> Callable[[Path, bool], Callable[[], Iterator[Any]]]:
    """Gluon's `DataLoader` with this many worker processes; 0 reads in the process itself."""

    def contender(folder: Path, jitter: bool) -> Callable[[], Iterator[Any]]:
        from mxnet.gluon.data import DataLoader

        loader = DataLoader(gluon_pictures(folder, jitter), BATCH, shuffle=True, num_workers=workers)
        return lambda: iter(loader)

    return contender


def of_record_iter(folder: Path, jitter: bool) -> Callable[[], Iterator[Any]]:
    """MXNet's iterator in C++, with one thread that decodes."""
    import mxnet as mx

    means = {
        f"{name}_{channel}": 255.0 * value
        for name, values in (("mean", MEAN), ("std", STD))
        for channel, value in zip("rgb", values, strict=True)
    }
    colours = {"brightness": JITTER, "contrast": JITTER, "saturation": JITTER, "pca_noise": LIGHTING} if jitter else {}
    iterator = mx.io.ImageRecordIter(
        path_imgrec=str(folder / "pictures.rec"), path_imgidx=str(folder / "pictures.idx"), data_shape=(3, SIZE, SIZE),
        batch_size=BATCH, shuffle=True, rand_mirror=True, random_resized_crop=True, min_random_area=0.08,
        max_random_area=1.0, min_aspect_ratio=3 / 4, max_aspect_ratio=4 / 3, inter_method=1, preprocess_threads=1,
        prefetch_buffer=1, verbose=False, **means, **colours,
    )  # fmt: skip

    def epoch() -> Iterator[Any]:
        iterator.reset()
        return iter(iterator)

    return epoch


def of_dali(folder: Path, jitter: bool) -> Callable[[], Iterator[Any]]:
    """NVIDIA's pipeline on the CPU, with one thread."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def steps() -> Any:
        path, index = [str(folder / "pictures.rec")], [str(folder / "pictures.idx")]
        content, label = fn.readers.mxnet(path=path, index_path=index, random_shuffle=True, name="reader")
        pixels = fn.decoders.image_random_crop(content, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3])
        pixels = fn.resize(pixels, size=[SIZE, SIZE], interp_type=types.INTERP_LINEAR, antialias=False)
        if jitter:
            low, high = 1 - JITTER, 1 + JITTER
            pixels = fn.color_twist(
                pixels,
                brightness=fn.random.uniform(range=[low, high]),
                contrast=fn.random.uniform(range=[low, high]),
                saturation=fn.random.uniform(range=[low, high]),
            )
        return (
            fn.crop_mirror_normalize(
                pixels,
                dtype=types.FLOAT,
                output_layout="CHW",
                mean=[255 * value for value in MEAN],
                std=[255 * value for value in STD],
                mirror=fn.random.coin_flip(),
            ),
            label,
        )

    pipeline = steps()
    pipeline.build()
    count = pipeline.epoch_size("reader")
    return lambda: (pipeline.run() for _ in range(count // BATCH))


CONTENDERS: dict[str, Callable[[Path, bool], Callable[[], Iterator[Any]]]] = {
    "harness": of_harness,
    "harness, own Dataset": of_own_dataset,
    "ImageRecordIter": of_record_iter,
    "DataLoader, 0 workers": of_gluon(0),
    "DataLoader, 1 worker": of_gluon(1),
    "DataLoader, 2 workers": of_gluon(2),
    "DALI on the CPU": of_dali,
}


def cpu_s() -> float:
    """CPU time of this process and the children that it has."""
    total = time.process_time()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in children:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def take_turn(name: str, folder: Path, jitter: bool) -> None:
    """Read all pictures once, and print the CPU milliseconds of each."""
    epoch = CONTENDERS[name](folder, jitter)
    for batch in epoch():  # decoders are loaded, threads and workers started
        assert batch is not None
    begun_s, num_batches = cpu_s(), 0
    for _ in epoch():
        num_batches += 1
    print(json.dumps(1000 * (cpu_s() - begun_s) / (num_batches * BATCH)), flush=True)
    os._exit(0)  # what still reads ahead is not waited for


def compare_reading(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """CPU milliseconds a picture by kind and contender, a number a round."""
    names = [name for name in options.only if name != "DALI on the CPU" or options.dali]
    found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in names} for kind in KINDS}
    for number in range(options.rounds):
        for kind in KINDS:
            for name in random.Random(number).sample(names, len(names)):
                python = options.dali if name == "DALI on the CPU" else sys.executable
                command = [python, __file__, "--turn", name, str(folder), kind]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[kind][name].append(json.loads(done.stdout.splitlines()[-1]))
        print(f"round {number + 1} of {options.rounds}", flush=True)
    return found


def arrays(count: int) -> dict[str, Any]:
    """As many normalised pictures in memory, and their classes; the data of a run."""
    import numpy as np

    draws = np.random.default_rng(0)
    return {"train": (draws.normal(size=(count, 3, SIZE, SIZE)).astype(np.float32), draws.integers(0, 10, count))}


def update_s(folder: Path, count: int, from_records: bool) -> float:
    """The median seconds between updates of a run on two ranks, but for the first few."""
    of_records = {"train": {"rec": str(folder / "pictures.rec")}, "num_classes": 10, "size": SIZE}
    normalised = {"mean": MEAN, "std": STD, "flip": True}
    settings = {
        "data": {"name": "records", "workers": 1, "pictures": of_records, "augment": normalised}
        if from_records
        else {"name": "pictures:arrays", "params": {"count": count}},
        "network": {"name": "resnet18_v2"},
        "batch": {"size": 8, "shards": 2},
        "train": {"iterations": 16},
        "log.every": "1it",
        "checkpoint": {"every": None},
        "evaluation.every": None,
        "optimizer": {"name": "sgd", "params": {"momentum": 0.9}},
        "lr": {"schedule": {"constant": {"lr": 0.01}}},
        "threads_per_rank": 1,
        "output": str(folder),
        "name": "run",
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    run = [str(Path(sys.executable).with_name("mpirun")), "-np", "2", sys.executable, str(ROOT / "launch/train.py")]
    path = os.pathsep.join([str(ROOT / "benchmarks"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    subprocess.run(
        [*run, "--overwrite", *words], check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path}
    )
    lines = map(json.loads, (folder / "run/metrics.jsonl").read_text().splitlines())
    times = [line["time"] for line in lines if line["split"] == "train"]
    return statistics.median(after - before for before, after in itertools.pairwise(times[4:]))


def compare_steps(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of an update from records and from memory, which run by turns."""
    found: dict[str, list[float]] = {"memory": [], "records": []}
    for number in range(options.rounds):
        for source in sorted(found, reverse=number % 2 == 1):
            found[source].append(1000 * update_s(folder, options.count, source == "records"))
        print(f"round {number + 1} of {options.rounds}: {found['records'][-1]:.0f} ms from records", end="", flush=True)
        print(f", {found['memory'][-1]:.0f} ms from memory", flush=True)
    return {UPDATE: found}


def table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Rows of Markdown: of each contender the median, and how many times as long as the first of its kind it takes."""
    rows = ["| | ms | times as long (quartiles) |", "|---|---|---|"]
    for kind, of_kind in found.items():
        base = next(iter(of_kind.values()))
        for name, values in of_kind.items():
            ratios = [one / first for one, first in zip(values, base, strict=True)]
            rows.append(f"| {kind}, {name} | {statistics.median(values):.2f} | {shown(ratios)} |")
    return rows


def shown(values: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values * 2 if len(values) == 1 else values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Make the pictures, let contenders take turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help=f"of pictures, a multiple of {BATCH}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--dali", metavar="PYTHON", help="an interpreter that has nvidia-dali")
    parser.add_argument("--steps", action="store_true", help="compare updates instead of reading")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turn", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        name, folder, kind = options.turn
        take_turn(name, Path(folder), KINDS[kind])
        return
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), options.count)
        size = (Path(folder) / "pictures.rec").stat().st_size
        print(f"{options.count} pictures of {size / options.count / 1000:.0f} kB", flush=True)
        found = (compare_steps if options.steps else compare_reading)(Path(folder), options)
    print("", *table(found), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
