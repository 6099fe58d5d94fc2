"""Run by tests/bridge under torchrun or alone: gradients, loss and statistics of one update, by sizes of shards.

The argument is JSON: a list of lists of sizes, one for each shard of a global batch.
"""

from __future__ import annotations

import json
import sys

import torch
from torch import distributed, nn

from harness.bridge.data import Shard, Update
from harness.bridge.updates import backward
from harness.comm import read_launch
from harness.comm.tree import assign

SAMPLES, CLASSES = 40, 3


def samples():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, 6, generator=generator), torch.randint(CLASSES, (SAMPLES,), generator=generator)


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, CLASSES))


def plain(prediction, label):
    return nn.functional.cross_entropy(prediction, label, reduction="none")


def weighted(prediction, label):
    """The mean over samples, those of class 2 twice."""
    weights = 1.0 + (label == 2)
    return plain(prediction, label) * weights, weights


def update_of(sizes, rank, size):
    """An update of these shards, as `TrainingBatches` gives it to a rank."""
    data, label = samples()
    ends = torch.tensor(sizes).cumsum(0).tolist()
    rows = [slice(end - count, end) for end, count in zip(ends, sizes, strict=True)]
    own = [shard for shard in assign(len(sizes), size).shards[rank] if sizes[shard]]
    stands_in = [shard for shard, count in enumerate(sizes) if count][:1]
    shards = tuple(Shard(one, data[rows[one]], label[rows[one]], bool(own)) for one in own or stands_in)
    return Update(1, shards, sum(sizes), sum(map(bool, sizes)), True, ())


def numbers_of(module, loss):
    gradient = torch.cat([one.grad.reshape(-1) for one in module.parameters()])
    statistics = torch.cat([one.reshape(-1).float() for one in module.buffers()])
    return {"gradient": gradient.tolist(), "statistics": statistics.tolist(), "loss": float(loss)}


def by_ranks(sizes, loss, launch, is_parallel):
    module = network()
    model = nn.parallel.DistributedDataParallel(module, forward_sync_buffers=False) if is_parallel else module
    part = backward(model, update_of(sizes, launch.rank, launch.size), loss)
    if is_parallel:
        distributed.all_reduce(part)
    return numbers_of(module, part)


def by_one(sizes, loss):
    """The same by the definition: every shard by itself, then sums over all."""
    data, label = samples()
    total, divisor, begin, statistics = 0.0, 0.0, 0, []
    gradients = network()
    for count in filter(None, sizes):
        module = network()
        module.load_state_dict(gradients.state_dict())
        rows = slice(begin, begin + count)
        begin += count
        found = loss(module(data[rows]), label[rows])
        numerators, weights = found if isinstance(found, tuple) else (found, torch.ones(count))
        numerators.sum().backward()
        total, divisor = total + numerators.sum().item(), divisor + weights.sum().item()
        for one, other in zip(gradients.parameters(), module.parameters(), strict=True):
            one.grad = other.grad if one.grad is None else one.grad + other.grad
        statistics.append([one.clone() for one in module.buffers()])
    for one in gradients.parameters():
        one.grad /= divisor
    for buffer, of_shards in zip(gradients.buffers(), zip(*statistics, strict=True), strict=True):
        buffer.copy_(torch.stack([one.float() for one in of_shards]).mean(0))
    return numbers_of(gradients, total / divisor)


def main():
    launch = read_launch()
    is_parallel = launch.launcher == "torchrun"
    if is_parallel:
        distributed.init_process_group("gloo")
    cases = [(sizes, loss) for sizes in json.loads(sys.argv[1]) for loss in (plain, weighted)]
    found = [by_ranks(sizes, loss, launch, is_parallel) for sizes, loss in cases]
    if is_parallel:
        distributed.destroy_process_group()
    print(f"RANK {launch.rank} {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
