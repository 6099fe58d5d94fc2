"""What consistency checks cost: `horovodrun -np 2 python benchmarks/consistency.py CONFIG [SETTING...]`.

Times updates and comparisons in turn, so that a noisy machine disturbs both alike, and prints the share of a run's time
that comparing takes at the run's own `guard.verify_every`.
"""

import statistics
import sys
import time

from harness.comm import connect
from harness.config import load_config
from harness.guard import ConsistencyCheck
from harness.train.build import build_learner
from harness.train.prepare import prepare_run

ROUNDS, UPDATES = 12, 25


def main() -> None:
    """Measure and print, on rank 0."""
    world = connect()
    run = prepare_run(load_config(sys.argv[1], sys.argv[2:]), world, threads=1)
    updates, comparisons = [], []
    with run.stream() as stream:
        learner = build_learner(run)
        check = ConsistencyCheck(world, learner)
        t = 0
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            for _ in range(UPDATES):
                t += 1
                learner.update(stream(t), 1e-3)
            learner.check_pending()
            middle = time.perf_counter()
            check.verify(t, 1e-3, None, t)
            updates.append((middle - begun) / UPDATES)
            comparisons.append(time.perf_counter() - middle)
    if world.rank == 0:
        every = max(1, run.sizes.iterations(run.config.guard.verify_every))
        update, comparison = statistics.median(updates), statistics.median(comparisons)
        share = comparison / (every * update + comparison)
        print(
            f"update {1e3 * update:.2f} ms, comparison {1e3 * comparison:.2f} ms, every {every}: {share:.3%}",
            flush=True,
        )
    world.close()


if __name__ == "__main__":
    main()
