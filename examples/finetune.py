"""Fine-tuning a network of the model zoo: learn animals, save, and continue with vehicles, with slower features.

Nothing is downloaded, so the initial weights are trained first, on the animals of CIFAR-10. The vehicles are then
learned from them and, for comparison, from scratch. Needs CIFAR-10's binary files, all or a part, in the folder that
HARNESS_DATA names (cifar10-sample in it). Run it: python examples/finetune.py
"""

import os
from pathlib import Path

import numpy as np

from harness.comm import SingleWorld
from harness.config import load_config
from harness.data import load
from harness.train.loop import train
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("HARNESS_DATA", HERE.parents[1] / "shared" / "data")) / "cifar10-sample"
CLASSES = {"vehicles": (0, 1, 8, 9), "animals": (2, 3, 4, 5, 6, 7)}


def pictures(root: str, kind: str) -> dict[str, object]:
    """The vehicles or the animals of CIFAR-10, which keep their labels, so both need the same ten outputs."""
    cifar = load("cifar10", root=root)
    splits: dict[str, object] = {"num_classes": 10}
    for name, split in (("train", cifar.train), ("test", cifar.test)):
        splits[name] = split.subset(np.flatnonzero(np.isin(split.labels(), CLASSES[kind])))
    return splits


def accuracy_of(name: str, *settings: str) -> float:
    """Train as `launch/train.py --config examples/finetune.yaml --overwrite --set ...` does."""
    overrides = [f"name={name}", f"data.root={DATA}", *settings]
    config = load_config(HERE / "finetune.yaml", overrides)
    return train(prepare_run(config, SingleWorld(), threads=1, start=StartOptions(overwrite=True)))["test.accuracy"]


def main() -> None:
    """Train three times."""
    if not DATA.is_dir():
        print(f"skipped: there is no {DATA}; set HARNESS_DATA to the folder that contains cifar10-sample")
        return
    features, vehicles = "optimizer.lr_mult={'features.*': 0.1}", "data.params={kind: vehicles}"
    accuracy_of("example-animals", "data.params={kind: animals}", "train.epochs=5")
    tuned = accuracy_of("example-tuned", vehicles, features, "init.from=runs/example-animals/final.params")
    fresh = accuracy_of("example-fresh", vehicles)
    print(f"vehicles after 2 epochs: accuracy {tuned:.3f} from the animals' features, {fresh:.3f} from scratch")


if __name__ == "__main__":
    main()
