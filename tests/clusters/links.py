"""Links of 1 ms and 1 Gbit/s: the time of an update that `doctor --scaling` predicts, against that of real training.

`python tests/clusters/links.py`, as root, with Debian's openssh-server and iproute2, and Fashion-MNIST in the folder
that HARNESS_DATA names; two minutes, in which nothing else should run. One rank a host, a small convolutional network
(0.8 MB of gradients). Two hosts share a core: the two that are measured, and the four that are predicted from them.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from pathlib import Path

from network import Network
from stage import ROOT, check

BYTES_PER_S, DELAY_S = 125e6, 1e-3
SHARED = Path(os.environ.get("HARNESS_DATA", ROOT.parent / "shared" / "data"))
CONFIG = (
    "--config configs/fashion_mnist_cnn.yaml --set data.download=false "
    f"--set data.root={SHARED}/fashion-mnist --set 'train={{iterations: 200}}'"
)
TRAIN = "--set checkpoint.every=null --set log.every=10it --overwrite"
TOLERANCE = 0.25


def main() -> None:
    hosts = [f"host{number}" for number in range(1, 5)]
    with Network(*hosts, link=(BYTES_PER_S, DELAY_S), cores=(0, 0, 1, 1)) as network:
        predicted = {np: predict(network, hosts[:np]) for np in (2, 4)}
        for np in (2, 4):
            measured_s = measure(network, hosts[:np])
            for basis in (basis for basis in predicted if basis <= np):
                seconds = predicted[basis][np]
                off = seconds / measured_s - 1
                print(f"# np={np}: {1e3 * measured_s:.1f} ms; predicted from {basis} ranks: {1e3 * seconds:.1f} ms")
                check(f"off by {off:+.0%}, which is within {TOLERANCE:.0%}", abs(off) <= TOLERANCE)


def launch(hosts: list[str]) -> str:
    return f"mpirun -np {len(hosts)} --host {','.join(hosts)} python"


def predict(network: Network, hosts: list[str]) -> dict[int, float]:
    """Seconds of an update on each number of ranks, by what is measured on these hosts."""
    said = network.run("host1", f"{launch(hosts)} launch/doctor.py --scaling {CONFIG}")
    rows = re.findall(r"^ +(\d+) +[\d.]+ +([\d.]+) +\d+%$", said, re.MULTILINE)
    return {int(ranks): float(milliseconds) / 1e3 for ranks, milliseconds in rows}


def measure(network: Network, hosts: list[str]) -> float:
    """Seconds of an update in a run: the median over what it logs after its first iterations."""
    network.run("host1", f"{launch(hosts)} launch/train.py {CONFIG} {TRAIN}")
    lines = (network.runs("host1") / "fashion_mnist_cnn" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rates = [line["images_per_s"] for line in map(json.loads, lines) if line["split"] == "train"]
    return 64 * len(hosts) / statistics.median(rates[2:])


if __name__ == "__main__":
    main()
