"""The loops that the harness is measured against, each as people write it; run by `speed.py`.

`python contenders.py LOOP NETWORK ITERATIONS EVERY FOLDER` trains on random numbers that lie in memory, and after EVERY
iterations writes a line to a file of its own process: the iteration and the time, as the harness does in its metrics.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

SHAPES = {
    "lenet": ((1, 28, 28), 64),
    "mnist_cnn": ((1, 28, 28), 64),
    "resnet18_v2": ((3, 32, 32), 32),
    "resnet50_v2": ((3, 32, 32), 32),
}
SAMPLES = 4096


def in_memory(network: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random float32 samples and their classes; the data of the harness's own runs, too."""
    random = np.random.default_rng(0)
    shape = SHAPES[network][0]
    return {"train": (random.random((SAMPLES, *shape), np.float32), random.integers(0, 10, SAMPLES))}


def pictures(network: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random bytes and their classes, as image files would give them."""
    random = np.random.default_rng(0)
    shape = SHAPES[network][0]
    return {"train": (random.integers(0, 256, (SAMPLES, *shape), np.uint8), random.integers(0, 10, SAMPLES))}


def batches(network: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Slices of the arrays in memory, for ever."""
    data, label = in_memory(network)["train"]
    size = SHAPES[network][1]
    labels = label.astype(np.float32)
    while True:
        for begin in range(0, SAMPLES - size + 1, size):
            yield data[begin : begin + size], labels[begin : begin + size]


def gluon_network(network: str):
    """MXNet, a network that is ready to train, and a loss."""
    import mxnet as mx

    from harness.model.networks import build_network

    mx.random.seed(0)
    net = build_network(network, {}, 10)
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True)
    with mx.autograd.record():  # in predict mode oneDNN would lay weights out so that Horovod cannot send them
        net(mx.nd.zeros((2, *SHAPES[network][0]))).wait_to_read()
    return mx, net, mx.gluon.loss.SoftmaxCrossEntropyLoss()


def gluon(network: str) -> Callable[[], None]:
    """The bare hybridized loop, which reads its loss in every iteration."""
    mx, net, loss = gluon_network(network)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9})
    source, size = batches(network), SHAPES[network][1]

    def step() -> None:
        data, label = (mx.nd.array(array) for array in next(source))
        with mx.autograd.record():
            losses = loss(net(data), label)
        losses.backward()
        trainer.step(size)
        losses.mean().asscalar()

    return step


def dataloader(network: str) -> Callable[[], None]:
    """A Gluon DataLoader with ToTensor and Normalize, and a metric that is updated in every iteration."""
    mx, net, loss = gluon_network(network)
    from mxnet.gluon.data import ArrayDataset, DataLoader
    from mxnet.gluon.data.vision import transforms

    images, labels = pictures(network)["train"]
    dataset = ArrayDataset(mx.nd.array(images.transpose(0, 2, 3, 1), dtype=np.uint8), labels.astype(np.float32))
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.25)])
    loader = DataLoader(dataset.transform_first(transform), SHAPES[network][1], shuffle=True, last_batch="discard")
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9})
    metric = mx.metric.Accuracy()

    def for_ever() -> Iterator[tuple[object, object]]:
        while True:
            yield from loader

    source, size = for_ever(), SHAPES[network][1]

    def step() -> None:
        data, label = next(source)
        with mx.autograd.record():
            output = net(data)
            losses = loss(output, label)
        losses.backward()
        trainer.step(size)
        metric.update(label, output)

    return step


def computing(network: str) -> Callable[[], None]:
    """The arithmetic alone: one batch that lies on the device, over and over, and nothing is read."""
    mx, net, loss = gluon_network(network)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9})
    data, label = (mx.nd.array(array) for array in next(batches(network)))
    last = [label]

    def step() -> None:
        with mx.autograd.record():
            losses = loss(net(data), label)
        losses.backward()
        trainer.step(len(data))
        last.append(losses)
        last.pop(0).wait_to_read()  # so that no more than one iteration is under way

    return step


def summing(network: str) -> Callable[[], None]:
    """Forward, backward and the sum over ranks as in the harness, with one batch: no input, no check and no step.

    A floor: who trains is slower than this, unless MXNet's operators or the sum become faster.
    """
    from harness.comm import connect
    from harness.comm.tree import assign
    from harness.gluon.forward import Forward
    from harness.gluon.gradient_buffer import GradientBuffer
    from harness.gluon.graph import Graph
    from harness.model.calls import Calls
    from harness.model.parameters import parameters_of

    world = connect("mpi")
    mx, net, loss = gluon_network(network)
    parameters = parameters_of(net)
    sums = GradientBuffer({name: p for name, p in parameters.items() if p.grad_req != "null"}, [], mx.cpu())
    calls = Calls(net, loss)
    forward = Forward(calls, Graph(calls, parameters), hybridize=True, is_on_cpu=True)
    data, label = (mx.nd.array(array) for array in next(batches(network)))
    own = assign(world.size, world.size)

    def step() -> None:
        with mx.autograd.record():
            losses = forward.losses(data, label)[0]
        losses.backward()
        world.sum_parts([sums.memory], own, "update")

    return step


def horovod(network: str) -> Callable[[], None]:
    """Horovod's own example, without its metric: DistributedTrainer, and nothing is ever read."""
    import horovod.mxnet as hvd

    hvd.init()
    mx, net, loss = gluon_network(network)
    params = net.collect_params()
    hvd.broadcast_parameters(params, root_rank=0)
    trainer = hvd.DistributedTrainer(params, mx.optimizer.create("sgd", learning_rate=0.01, momentum=0.9))
    source, size = batches(network), SHAPES[network][1]

    def step() -> None:
        data, label = (mx.nd.array(array) for array in next(source))
        with mx.autograd.record():
            losses = loss(net(data), label)
        losses.backward()
        trainer.step(size)
        losses.wait_to_read()

    return step


def torch(network: str) -> Callable[[], None]:
    """PyTorch's DistributedDataParallel with Gloo, on the same network."""
    import torch as pt
    import torch.distributed as dist
    from torch import nn

    pt.set_num_threads(1)
    dist.init_process_group("gloo")
    pt.manual_seed(0)
    net = nn.parallel.DistributedDataParallel(
        {"lenet": _torch_lenet, "mnist_cnn": _torch_cnn, "resnet18_v2": _torch_resnet}[network]()
    )
    optimizer = pt.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    source = batches(network)

    def step() -> None:
        data, label = next(source)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(pt.from_numpy(data)), pt.from_numpy(label).long())
        loss.backward()
        optimizer.step()

    return step


def _torch_cnn():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(10, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(320, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip


def _torch_lenet():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.Tanh(), nn.Linear(500, 10),
    )  # fmt: skip


def _torch_resnet():
    """ResNet-18 v2 as Gluon's model zoo has it: normalisation and ReLU before each convolution (arXiv 1603.05027)."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
            self.one = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.two = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.short = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

        def forward(self, x):
            y = self.first(x).relu()
            short = x if self.short is None else self.short(y)
            return short + self.two(self.second(self.one(y)).relu())

    blocks, inputs = [], 64
    for outputs in (64, 128, 256, 512):
        blocks += [Block(inputs, outputs, 1 if outputs == inputs else 2), Block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        *blocks, nn.BatchNorm2d(512), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def main() -> None:
    """Run one loop, and say how far it is."""
    name, network, iterations, every, folder = sys.argv[1:]
    loops = {"gluon": gluon, "dataloader": dataloader, "computing": computing, "summing": summing}
    loops |= {"horovod": horovod, "torch": torch}
    step = loops[name](network)
    with Path(folder, f"rank-{os.getpid()}.jsonl").open("w", buffering=1) as marks:
        for t in range(1, int(iterations) + 1):
            step()
            if t % int(every) == 0:
                marks.write(json.dumps({"iteration": t, "time": round(time.time(), 3)}) + "\n")


if __name__ == "__main__":
    main()
