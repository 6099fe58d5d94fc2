"""SSD as GluonCV has it (Liu et al. 2016, arXiv 1512.02325), on pictures of coloured boxes and discs.

GluonCV brings the network, the transformations, the anchors' targets, the loss and the VOC07 mAP. What its script sums
over the devices of one process, the positive anchors, is summed over all workers here. Run it:
mpirun -np 2 .venv-clients/bin/python launch/train.py --config examples/clients/ssd.yaml
"""

from functools import cache

import mxnet as mx
import numpy as np
from gluoncv.data.transforms.presets.ssd import SSDDefaultTrainTransform, SSDDefaultValTransform
from gluoncv.loss import SSDMultiBoxLoss
from gluoncv.model_zoo.ssd.ssd import get_ssd
from gluoncv.model_zoo.ssd.target import SSDTargetGenerator
from gluoncv.utils.metrics.voc_detection import VOC07MApMetric
from mxnet import autograd

SIZE, CLASSES, MOST = 64, ["box", "disc"], 2  # of a picture's side; what there is; and how many in a picture


def network():
    """For `network.name`: SSD on a narrow MobileNet, with three sizes of feature maps."""
    with mx.name.NameManager():  # the names of its graph do not depend on what was built before
        net = get_ssd(
            "mobilenet0.25",
            SIZE,
            features=["relu22_fwd", "relu26_fwd"],
            filters=[32],
            sizes=[12, 24, 40, 56],
            ratios=[[1, 2, 0.5]] * 3,
            steps=[16, 32, 64],
            classes=CLASSES,
            dataset="drawn",
            pretrained_base=False,
            anchor_alloc_size=16,
        )
    # layers that GluonCV adds to a graph have no initializers of their own, and Xavier's takes no vectors
    net.collect_params(".*(gamma|moving_var)").setattr("init", mx.init.One())
    net.collect_params(".*(beta|bias|moving_mean)").setattr("init", mx.init.Zero())
    return net


def drawn(seed, index):
    """A picture `(SIZE, SIZE, 3)` of bytes, and its objects `(k, 5)`: corners and class."""
    random = np.random.default_rng([seed, index])
    picture = random.integers(0, 90, (SIZE, SIZE, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    objects = []
    for number in range(random.integers(1, MOST + 1)):
        kind, side = random.integers(len(CLASSES)), random.integers(14, 29)
        left, top = random.integers(0, 32 - side + 1) + 32 * number, random.integers(0, SIZE - side + 1)
        inside = (abs(columns - left - side / 2) <= side / 2) & (abs(rows - top - side / 2) <= side / 2)
        if kind:
            inside = (columns - left - side / 2) ** 2 + (rows - top - side / 2) ** 2 <= side**2 / 4
        picture[inside] = (230, 60, 40) if kind else (40, 90, 240)
        objects.append((left, top, left + side, top + side, kind))
    return mx.nd.array(picture, dtype="uint8"), np.array(objects, np.float32)


class Pictures:
    """Pictures and their objects as GluonCV's transformations give them, which draw from NumPy's generator."""

    def __init__(self, count, seed, transform):
        """The `count` first pictures of a seed."""
        self._count, self._seed, self._transform = count, seed, transform

    def __len__(self):
        """How many there are."""
        return self._count

    def __getitem__(self, index):
        """A picture `(3, SIZE, SIZE)` in floats, and its objects `(k, 5)`."""
        picture, objects = self._transform(*drawn(self._seed, index))
        return picture, np.float32(objects)


def pictures():
    """For `data.name`."""
    train = Pictures(96, 0, SSDDefaultTrainTransform(SIZE, SIZE))
    return train, Pictures(24, 1, SSDDefaultValTransform(SIZE, SIZE))


@cache
def anchors():
    """Those of the network, as GluonCV's script asks for them."""
    net = network()
    net.initialize()
    with autograd.train_mode():
        return net(mx.nd.zeros((1, 3, SIZE, SIZE)))[2]


def targets(items, random):
    """For `data.collate`: each anchor's class and offsets, and the objects, padded with -1."""
    most = max(len(objects) for _, objects in items)
    objects = np.stack([np.pad(one, ((0, most - len(one)), (0, 0)), constant_values=-1) for _, one in items])
    given = mx.nd.array(objects)
    kinds, offsets, _ = SSDTargetGenerator(negative_mining_ratio=-1)(anchors(), None, given[..., :4], given[..., 4:])
    return np.stack([picture for picture, _ in items]), (kinds, offsets, objects)


class OverPositives(SSDMultiBoxLoss):
    """For `network.loss`: GluonCV's mean over the positive anchors of a shard, as numerators and weights `(n,)`."""

    def forward(self, outputs, targets):
        """Undo the division; every picture has an object, and so every shard an anchor."""
        (classes, boxes, _), (kinds, offsets, _) = outputs, targets
        losses, _, _ = super().forward(classes, boxes, kinds, offsets)
        positives = (kinds > 0).sum(axis=1)
        return losses[0] * positives.sum(), positives


def detect(net, loss, data, label):
    """For `network.forward`: SSD gives what the loss takes while it trains, and otherwise detections."""
    outputs = net(data)
    return outputs, loss(outputs, label) if autograd.is_training() else None


class MeanAP:
    """For `evaluation.metrics`: GluonCV's VOC07 mean average precision, and the average precision of each class."""

    best = "highest"

    def rows(self, detections, label):
        """All detections and objects, which every rank then has in the order of the samples."""
        (ids, scores, boxes), (_, _, objects) = detections, label
        missing = ((0, 0), (0, MOST - objects.shape[1]), (0, 0))
        return {"ids": ids, "scores": scores, "boxes": boxes, "objects": np.pad(objects, missing, constant_values=-1)}

    def finish(self, rows):
        """Give them to GluonCV's metric."""
        metric = VOC07MApMetric(class_names=CLASSES)
        boxes, ids, scores, objects = (rows[name] for name in ("boxes", "ids", "scores", "objects"))
        metric.update(boxes, ids, scores, objects[..., :4], objects[..., 4:5])
        return dict(zip(*metric.get(), strict=True))
