"""What it costs that an update could be profiled: `mpirun -np 2 python benchmarks/profiling.py [NETWORK]`.

Times updates in turns within one job, by the code as it is and by the same code without the lines that say which part
of an update begins, and prints the ratio of the lower quartiles.
"""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from contenders import SHAPES, gluon_network
from turns import lower_quartiles

from harness.comm import connect
from harness.gluon import Learner

TIMED = ("harness.gluon.replica", "harness.gluon.shard_sums", "harness.gluon.learner")


class Untimed(ast.NodeTransformer):
    """Leaves out every call `timing.enter(...)`, and imports from modules of which that was done before."""

    def __init__(self) -> None:
        """Nothing was left out yet."""
        self.left_out = 0

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        """`pass` in place of the call: no instruction."""
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith("timing.enter"):
            self.left_out += 1
            return ast.Pass()
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        """From the changed module, if there is one."""
        if node.module in TIMED:
            node.module = f"untimed_{node.module}"
        return node


def learner_without_timing() -> Any:
    """`Learner` of the same source, without those lines."""
    untimed = Untimed()
    for name in TIMED:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.fix_missing_locations(untimed.visit(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))))
        module = sys.modules[f"untimed_{name}"] = ModuleType(f"untimed_{name}")
        exec(compile(tree, f"untimed {spec.origin}", "exec"), module.__dict__)
    assert untimed.left_out >= len(TIMED)
    return sys.modules[f"untimed_{TIMED[-1]}"].Learner


def main() -> None:
    """Measure and print, on rank 0."""
    network = sys.argv[1] if len(sys.argv) > 1 else "lenet"
    world = connect()
    learners = {}
    for name, kind in (("off", Learner), ("none", learner_without_timing())):
        mx, net, loss = gluon_network(network)
        sample = mx.nd.zeros((2, *SHAPES[network][0])).asnumpy()
        learners[name] = kind(net, loss, mx.optimizer.SGD(momentum=0.9), world, shards=world.size, sample=sample)
    quartiles = lower_quartiles(world, network, learners)
    if world.rank == 0:
        print(
            f"{network}, np {world.size}: update {quartiles['none']:.3f} ms without timing, "
            f"{quartiles['off']:.3f} ms with it off, ratio {quartiles['none'] / quartiles['off']:.4f}",
            flush=True,
        )
    world.close()


if __name__ == "__main__":
    main()
