"""Jobs in the form that Gluon's clients write them: labels as inputs, several rows a term, several outputs, ids.

Data are synthetic. Run as a program, it trains the jobs that it is given by their names in `SETTINGS`.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from harness.comm import connect
from harness.config import load_config
from harness.train.loop import train
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions
from tests.programs import streams

HERE = "tests.programs.clients"
COMMON = (
    "batch={size: 8, shards: 4}",
    "train={iterations: 16}",
    "checkpoint.every=8it",
    "optimizer={name: adam, params: {}}",
    "lr={base: 0.02, schedule: 1x}",
    "threads_per_rank=1",
    "log.tensorboard=false",
    "evaluation={every: 8it, metrics: []}",
)


def settings_of(name: str) -> list[str]:
    """The settings of a job, beside those of configs/digits.yaml."""
    return [*COMMON, f"name={name}", *SETTINGS[name]]


# ArcFace: the network takes the label, which moves the angle of the right class (Deng et al. 2019, arXiv 1801.07698).


def faces():
    def part(count, seed):
        label = np.random.default_rng(seed).integers(0, 5, count)
        points = np.random.default_rng(7).normal(size=(5, 12))[label]
        return (points + np.random.default_rng(seed + 1).normal(0, 0.3, (count, 12))).astype(np.float32), label

    return {"train": part(96, 0), "test": part(24, 1), "num_classes": 5}


class ArcFace(nn.HybridBlock):
    def __init__(self, classes: int = 5, size: int = 6, margin: float = 0.2, scale: float = 8.0) -> None:
        super().__init__()
        self._classes, self._size, self._margin, self._scale = classes, size, margin, scale
        with self.name_scope():
            self.body = nn.HybridSequential()
            self.body.add(nn.Dense(16, activation="relu"), nn.Dropout(0.1), nn.Dense(size))
            self.weight = self.params.get("weight", shape=(classes, size))

    def hybrid_forward(self, F, x, label, weight):
        embedded = F.L2Normalization(self.body(x))
        cosine = F.FullyConnected(
            embedded, F.L2Normalization(weight), no_bias=True, num_hidden=self._classes, flatten=False
        ).clip(-0.999, 0.999)
        shifted = cosine * math.cos(self._margin) - F.sqrt(1 - cosine**2) * math.sin(self._margin)
        return self._scale * F.where(F.one_hot(label, self._classes), shifted, cosine)


def arcface(**params):
    return ArcFace(**params)


def with_label(net, loss, data, label):
    logits = net(data, label)
    return logits, loss(logits, label)


# Triplets: a term for each sample, which is three rows of the network's batch.


def triples():
    def part(count, seed):
        random = np.random.default_rng(seed)
        kinds = random.integers(0, 4, count)
        kinds = np.stack([kinds, kinds, (kinds + random.integers(1, 4, count)) % 4], axis=1)
        rows = np.random.default_rng(7).normal(size=(4, 10))[kinds] + random.normal(0, 1.2, (count, 3, 10))
        return rows.astype(np.float32), kinds.astype(np.int32)

    return {"train": part(96, 0), "test": part(24, 1)}


def embedding():
    net = nn.HybridSequential()
    net.add(nn.Dense(16, activation="tanh"), nn.BatchNorm(), nn.Dense(6))
    return net


def triplet_loss():
    return mx.gluon.loss.TripletLoss(margin=1.0)


def triplets(net, loss, data, label):
    embedded = net(data.reshape((-3, 0))).reshape((-4, -1, 3, 0))
    return embedded, loss(*(embedded[:, number] for number in range(3)))


# Segmentation: two outputs, of which the second helps the first while it trains (Long et al. 2015, arXiv 1411.4038).


def masks():
    def part(count, seed):
        random = np.random.default_rng(seed)
        label = random.integers(0, 3, (count, 6, 6))
        picture = np.eye(3, dtype=np.float32)[label] + random.normal(0, 0.3, (count, 6, 6, 3)).astype(np.float32)
        return picture.transpose(0, 3, 1, 2), label

    return {"train": part(96, 0), "test": part(24, 1)}


class FCN(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.body, self.head, self.auxiliary = (nn.HybridSequential() for _ in range(3))
            self.body.add(nn.Conv2D(8, 3, padding=1, use_bias=False), nn.BatchNorm(), nn.Activation("relu"))
            self.head.add(nn.Conv2D(8, 3, padding=1, activation="relu"), nn.Dropout(0.1), nn.Conv2D(3, 1))
            self.auxiliary.add(nn.Conv2D(3, 1))

    def hybrid_forward(self, F, x):
        features = self.body(x)
        return self.head(features), self.auxiliary(features)


def fcn():
    return FCN()


class MixedLoss(mx.gluon.loss.SoftmaxCrossEntropyLoss):
    def hybrid_forward(self, F, outputs, label):
        main, auxiliary = (super(MixedLoss, self).hybrid_forward(F, output, label) for output in outputs)
        return main + 0.4 * auxiliary


def mixed_loss():
    return MixedLoss(axis=1)


def pixels_right(prediction, label):
    return (prediction[0].argmax(axis=1) == label).mean(axis=(1, 2))


# Several tasks, most of whose labels are missing: data, labels and predictions are dicts, and the mean is over labels.


def tasks():
    def part(count, seed):
        random = np.random.default_rng(seed)
        rows, ids = random.normal(size=(count, 8)).astype(np.float32), random.integers(0, 10, count)
        values = rows @ np.random.default_rng(7).normal(size=(8, 3)).astype(np.float32)
        known = (random.random((count, 3)) < [0.9, 0.3, 0.05]).astype(np.uint8)
        return {"rows": rows, "ids": ids}, {"values": values, "known": known, "kind": ids % 3}

    return {"train": part(96, 0), "test": part(24, 1)}


class Tasks(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.embed, self.body = nn.Embedding(10, 4), nn.Dense(12, activation="relu")
            self.values, self.kinds = nn.Dense(3), nn.Dense(3)

    def hybrid_forward(self, F, rows, ids):
        features = F.concat(self.body(rows), self.embed(ids), dim=1)
        return self.values(features), self.kinds(features)


def task_net():
    return Tasks()


def named_outputs(net, loss, data, label):
    values, kinds = net(data["rows"], data["ids"])
    prediction = {"values": values, "kinds": kinds}
    return prediction, loss(prediction, label)


def mean_of_labels():
    pick = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def loss(prediction, label):
        known = label["known"].astype("float32")
        errors = (prediction["values"] - label["values"]) ** 2 * known
        picked = pick(prediction["kinds"], label["kind"]).expand_dims(1)
        return mx.nd.concat(errors, picked, dim=1), mx.nd.concat(known, mx.nd.ones_like(picked), dim=1)

    return loss


class NoisyTasks:
    """The same, item by item, with rows that are drawn anew in every epoch."""

    def __init__(self, part) -> None:
        self.data, self.label = part

    def __len__(self) -> int:
        return len(self.data["ids"])

    def __getitem__(self, index: int):
        rows = self.data["rows"][index] + np.random.normal(0, 0.1, 8).astype(np.float32)
        return {"rows": rows, "ids": self.data["ids"][index]}, {key: one[index] for key, one in self.label.items()}


def noisy_tasks():
    return {name: NoisyTasks(part) for name, part in tasks().items()}


def uneven_tasks():
    (data, label), test = tasks().values()
    return {"train": ({**data, "ids": data["ids"][:5]}, label), "test": test}


def below_0():
    """Weights are below 0 where there are more samples than the two that are tried."""
    inner = mean_of_labels()

    def loss(prediction, label):
        numerators, weights = inner(prediction, label)
        return numerators, weights if len(weights) < 8 else -weights

    return loss


def no_weights():
    inner = mean_of_labels()

    def loss(prediction, label):
        numerators, weights = inner(prediction, label)
        return 0 * numerators, 0 * weights

    return loss


# Matrix factorisation: two ids a sample (Koren et al. 2009).


def ratings():
    def part(count, seed):
        random = np.random.default_rng(seed)
        users, items = random.integers(0, 20, count), random.integers(0, 30, count).astype(np.int32)
        factors = np.random.default_rng(7).normal(size=(50, 3))
        return (users, items), (factors[users] * factors[20 + items]).sum(axis=1).astype(np.float32)

    return {"train": part(192, 0), "test": part(32, 1)}


class Factors(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.users, self.items = nn.Embedding(20, 4), nn.Embedding(30, 4)

    def hybrid_forward(self, F, user, item):
        return (self.users(user) * self.items(item)).sum(axis=1)


def factors():
    return Factors()


def _own(name: str) -> str:
    return f"{HERE}:{name}"


SETTINGS = {
    "arcface": [
        f"data.name={_own('faces')}",
        f"network={{name: '{_own('arcface')}', forward: '{_own('with_label')}'}}",
        "evaluation.metrics=[accuracy]",
    ],
    "triplets": [
        f"data.name={_own('triples')}",
        f"network={{name: '{_own('embedding')}', loss: '{_own('triplet_loss')}', forward: '{_own('triplets')}'}}",
    ],
    "fcn": [
        f"data.name={_own('masks')}",
        f"network={{name: '{_own('fcn')}', loss: '{_own('mixed_loss')}'}}",
        f"evaluation.metrics=['{_own('pixels_right')}']",
    ],
    "tasks": [
        f"data.name={_own('tasks')}",
        f"network={{name: '{_own('task_net')}', loss: '{_own('mean_of_labels')}', forward: '{_own('named_outputs')}'}}",
    ],
    "tasks16": [],  # those of `tasks`, with gradients in 16 bits
    "noisy": [],  # and read item by item
    "factors": [
        f"data.name={_own('ratings')}",
        f"network={{name: '{_own('factors')}', loss: l2}}",
        "evaluation.metrics=[rmse]",
        "train={epochs: 4, last_batch: keep}",
        "batch={size: 7, shards: 8}",
    ],
}

SETTINGS |= streams.SETTINGS
SETTINGS["tasks16"] = [*SETTINGS["tasks"], "compression=fp16"]
SETTINGS["noisy"] = [*SETTINGS["tasks"], f"data.name={_own('noisy_tasks')}"]


def train_all(output: str, begun: str, names: list[str], settings: Callable[[str], list[str]] = settings_of) -> None:
    """Train jobs, one after another; each tells its digest, and rank 0 its last evaluation.

    Args:
        output: the folder of their folders.
        begun: where an earlier training has left checkpoints, to resume from those after iteration 8; `new` for none.
        names: of the jobs.
        settings: of a job by its name.
    """
    world = connect()
    for name in names:
        config = load_config("configs/digits.yaml", [*settings(name), f"output={output}"])
        start = StartOptions() if begun == "new" else StartOptions(f"{begun}/{name}/checkpoints/iteration-000000008")
        run = prepare_run(config, world, threads=1, start=start)
        results = train(run)
        if world.rank == 0:
            print("RESULTS", json.dumps(results), flush=True)
    world.close()


def digests_of(output: str, names: list[str]) -> list[str]:
    """The digests that `train_all` printed of these jobs."""
    found = re.findall(r"done after \d+ iterations, digest ([0-9a-f]{64})", output)
    assert len(found) == len(names)
    return found


def results_of(output: str) -> list[dict[str, float]]:
    """The last evaluations that `train_all` printed."""
    return [json.loads(line) for line in re.findall(r"RESULTS (.*)$", output, re.MULTILINE)]


if __name__ == "__main__":
    train_all(sys.argv[1], sys.argv[2], sys.argv[3:])
