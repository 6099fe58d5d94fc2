#!/usr/bin/env python
"""What saving and loading costs, against Gluon's own `save_parameters` + `Trainer.save_states` in the same place.

ResNet-18 with momentum, about 94 MB a set. Each round trains 100 iterations three times, one after the other: without
saving, with Gluon's files every 10 iterations, and with sets every 10 iterations. Held up: the time from asking for a
save until the loop goes on. Wall: what a save adds to the whole time, its thread's share included. Sets are forced to
disk and hashed; Gluon's files are neither.

    OMP_NUM_THREADS=1 python benchmarks/checkpoint.py [--rounds 9] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mxnet as mx
import numpy as np

from harness.checkpoint import CheckpointWriter, checkpoint_path, read_arrays, verify
from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.gluon import Learner, LearnerState

ITERATIONS, EVERY = 100, 10
KINDS = ("without", "gluon", "sets")
GENERATOR = np.random.default_rng(0)
DATA = GENERATOR.normal(size=(4, 3, 32, 32)).astype(np.float32)
LABEL = GENERATOR.integers(0, 1000, 4).astype(np.float32)


def noise(t: int) -> GlobalBatch:
    """The same batch of noise for every iteration."""
    return GlobalBatch(t, (Batch(0, DATA, LABEL),), 4)


def build() -> tuple[Learner, mx.gluon.Block]:
    """The learner and its network."""
    net = mx.gluon.model_zoo.vision.resnet18_v2()
    net.initialize(mx.init.Xavier())
    learner = Learner(
        net,
        mx.gluon.loss.SoftmaxCrossEntropyLoss(),
        mx.optimizer.SGD(momentum=0.9),
        SingleWorld(),
        shards=1,
        sample=noise(1),
    )
    return learner, net


class Gluon:
    """Gluon's own files, three of each kept."""

    def __init__(self, learner: Learner, net: mx.gluon.Block, folder: Path) -> None:
        """Bind what is saved."""
        self.net, self.folder = net, folder
        self.trainer = mx.gluon.Trainer(net.collect_params(), mx.optimizer.SGD(momentum=0.9), kvstore=None)
        self.trainer._updaters = learner._optimizer.updaters

    def save(self, t: int) -> None:
        """Write and wait."""
        self.net.save_parameters(str(self.folder / f"{t}.params"))
        self.trainer.save_states(str(self.folder / f"{t}.states"))
        for old in self.folder.glob(f"{t - 3 * EVERY}.*"):
            old.unlink()

    def wait_until_written(self) -> None:
        """Nothing is under way."""

    def load(self, t: int) -> None:
        """Read both files."""
        self.net.load_parameters(str(self.folder / f"{t}.params"))
        self.trainer.load_states(str(self.folder / f"{t}.states"))
        mx.nd.waitall()


class Sets:
    """The harness's sets, three kept."""

    def __init__(self, learner: Learner, folder: Path) -> None:
        """Start the writer's thread."""
        self.learner, self.folder = learner, folder
        self.writer, self.buffer = CheckpointWriter(folder, keep=3), None

    def save(self, t: int) -> None:
        """Copy, and write in the background."""
        error = self.writer.wait()
        if error is not None:
            raise error
        self.learner.check_weights(t)
        self.buffer = self.learner.snapshot(self.buffer)
        arrays = {"parameters": self.buffer.parameters, "slots": self.buffer.optimizer_state}
        self.writer.start(t, arrays, {"state": self.buffer.numbers})

    def wait_until_written(self) -> None:
        """Wait for the last one."""
        error = self.writer.wait()
        if error is not None:
            raise error

    def load(self, t: int, hashed: bool = True) -> None:
        """Read a set into the learner."""
        place = checkpoint_path(self.folder, t)
        manifest = verify(place) if hashed else {"state": self.buffer.numbers}
        arrays = read_arrays(place)
        self.learner.restore(LearnerState(arrays["parameters"], arrays["slots"], manifest["state"]))


def train(learner: Learner, saver: Gluon | Sets | None, first: int) -> tuple[float, list[float]]:
    """Seconds for all iterations, and the seconds that each save held the loop up."""
    held = []
    mx.nd.waitall()
    started = time.perf_counter()
    for t in range(first, first + ITERATIONS):
        learner.update(noise(t), 0.001)
        if saver is not None and t % EVERY == 0:
            learner.check_pending()
            mx.nd.waitall()  # so that neither is charged for the update that is still being computed
            asked = time.perf_counter()
            saver.save(t)
            held.append(time.perf_counter() - asked)
    if saver is not None:
        saver.wait_until_written()
    mx.nd.waitall()
    return time.perf_counter() - started, held


def seconds(work: Callable[[], None]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: a temporary one)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        learner, net = build()
        (folder / "gluon").mkdir()
        (folder / "sets").mkdir()
        savers = {
            "without": None,
            "gluon": Gluon(learner, net, folder / "gluon"),
            "sets": Sets(learner, folder / "sets"),
        }
        first = 1
        for saver in savers.values():
            train(learner, saver, first)
        walls: dict[str, list[float]] = {kind: [] for kind in KINDS}
        held: dict[str, list[float]] = {kind: [] for kind in KINDS}
        loads: dict[str, list[float]] = {"gluon": [], "sets": [], "sets, not hashed": []}
        for turn in range(options.rounds):
            first += ITERATIONS
            for kind in KINDS[turn % 3 :] + KINDS[: turn % 3]:
                wall, pauses = train(learner, savers[kind], first)
                walls[kind].append(wall)
                held[kind] += pauses
            last = first + ITERATIONS - 1
            last -= last % EVERY
            for name, load in (
                ("gluon", partial(savers["gluon"].load, last)),
                ("sets", partial(savers["sets"].load, last)),
                ("sets, not hashed", partial(savers["sets"].load, last, hashed=False)),
            ):
                loads[name].append(seconds(load))
        size = sum(file.stat().st_size for file in checkpoint_path(folder / "sets", last).iterdir())
        print(f"{size / 1e6:.1f} MB a set, {options.rounds} rounds, {ITERATIONS // EVERY} saves each; medians")
        base = statistics.median(walls["without"])
        print(f"  an iteration without saving: {base / ITERATIONS * 1e3:.1f} ms")
        for kind in KINDS[1:]:
            extra = [
                (wall - plain) * EVERY / ITERATIONS for wall, plain in zip(walls[kind], walls["without"], strict=True)
            ]
            print(
                f"  {kind:7} held up {statistics.median(held[kind]) * 1e3:6.1f} ms a save,"
                f" wall {statistics.median(extra) * 1e3:6.1f} ms a save"
            )
        print(f"  held up, ratio: {statistics.median(held['sets']) / statistics.median(held['gluon']):.2f}")
        for name, times in loads.items():
            ratio = statistics.median(times) / statistics.median(loads["gluon"])
            print(f"  load, {name:17} {statistics.median(times) * 1e3:6.1f} ms, ratio {ratio:.2f}")
    finally:
        savers["sets"].writer.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
