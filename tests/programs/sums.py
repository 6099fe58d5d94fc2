"""Run by test_collective_fold.py on ranks of Horovod: sums of partial sums, compared with the tree's to the bit."""

import sys

import numpy as np

from harness.comm import connect
from harness.comm.collective_fold import WHOLE_BYTES
from harness.comm.tree import assign
from harness.gluon.gradient_buffer import Buffer
from tests.comm.trees import adversarial, partial_sums, tree_sum

sum_by = sys.argv[1] if len(sys.argv) > 1 else "tree"
world = connect("horovod", device="cpu", sum_by=sum_by)
assert world.sum_by == sum_by
differing = []
for shards in sorted({shards for shards in (world.size, world.size + 1, 6, 7, 8, 16) if shards >= world.size}):
    assignment = assign(shards, world.size)
    for count in (1, 4101, WHOLE_BYTES // 8 + 1):
        values = adversarial(shards, count, seed=shards)
        parts = partial_sums(values, assignment, world.rank)
        buffers = [Buffer(count) for _ in parts]
        for _ in range(2):
            for buffer, part in zip(buffers, parts, strict=True):
                buffer.array.wait_to_read()
                buffer.host[:] = part
            world.sum_parts(buffers, assignment, "sum")
            found, expected = buffers[-1].array.asnumpy(), tree_sum(values)
            if found.tobytes() != expected.tobytes():
                size = np.abs(values).sum(axis=0)
                assert (np.abs(found.astype("f8") - expected) <= 1e-6 * size + 1e-44).all()
                differing.append((shards, count))
if differing:
    print(f"rank {world.rank}: other bits than those of the tree, to rounding its sum: {differing}", flush=True)
else:
    print(f"rank {world.rank}: every sum has the bits of the tree", flush=True)
world.close()
