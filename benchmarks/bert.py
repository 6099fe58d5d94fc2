#!/usr/bin/env python
"""BERT of two layers on two ranks, against a loop of Horovod's DistributedTrainer on the same arrays.

The smallest of the compact models of Turc et al. 2019 (arXiv 1908.08962): 128 units, 30,522 words, as GluonNLP builds
it; 16 sentences of 32 tokens a shard, Adam. Interleaved as in `speed.py`, which says how; needs `.venv-clients`.

    .venv-clients/bin/python benchmarks/bert.py [--rounds 15] [--launcher mpirun|horovodrun]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import speed
from contenders import SHAPES

WORDS, TOKENS, SIZE, SAMPLES = 30_522, 32, 16, 1024
SHAPES["bert"], speed.MARKS["bert"] = ((TOKENS,), SIZE), 2


def sentences() -> dict[str, object]:
    """Random words, the segment that each is in, lengths, and one of two classes."""
    random = np.random.default_rng(0)
    ids = random.integers(0, WORDS, (SAMPLES, TOKENS)).astype(np.float32)
    lengths = random.integers(TOKENS // 2, TOKENS + 1, SAMPLES).astype(np.float32)
    return {"train": ((ids, np.zeros_like(ids), lengths), random.integers(0, 2, SAMPLES))}


def classifier():
    """A classifier of sentences, whose weights are to be initialised."""
    from gluonnlp.model.bert import BERTClassifier, BERTEncoder, BERTModel

    encoder = BERTEncoder(num_layers=2, units=128, hidden_size=512, num_heads=2, max_length=512, dropout=0.1)
    bert = BERTModel(
        encoder,
        vocab_size=WORDS,
        token_type_vocab_size=2,
        units=128,
        embed_size=128,
        use_decoder=False,
        use_classifier=False,
    )
    return BERTClassifier(bert, num_classes=2, dropout=0.1)


def loop(folder: str, iterations: int, every: int) -> None:
    """What people write for Horovod; marks are as those of `contenders.py`."""
    import horovod.mxnet as hvd
    import mxnet as mx

    hvd.init()
    mx.random.seed(0)
    net, loss = classifier(), mx.gluon.loss.SoftmaxCrossEntropyLoss()
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True)
    data, label = sentences()["train"]
    with mx.autograd.record():
        net(*(mx.nd.array(one[:SIZE]) for one in data)).wait_to_read()
    params = net.collect_params()
    hvd.broadcast_parameters(params, root_rank=0)
    trainer = hvd.DistributedTrainer(params, mx.optimizer.Adam(learning_rate=1e-4))
    with Path(folder, f"rank-{os.getpid()}.jsonl").open("w", buffering=1) as marks:
        for t in range(1, iterations + 1):
            begin = (t * hvd.size() + hvd.rank()) * SIZE % SAMPLES
            inputs = [mx.nd.array(one[begin : begin + SIZE]) for one in data]
            target = mx.nd.array(label[begin : begin + SIZE])
            with mx.autograd.record():
                losses = loss(net(*inputs), target)
            losses.backward()
            trainer.step(SIZE)
            losses.wait_to_read()
            if t % every == 0:
                marks.write(json.dumps({"iteration": t, "time": round(time.time(), 3)}) + "\n")
    mx.nd.waitall()  # or the rank that ends first would shut down Horovod under the other


def contenders(launcher: str) -> dict[str, speed.Contender]:
    """The harness under a launcher, and the loop under Horovod's."""
    settings = [
        "output={folder}",
        "name=run",
        "data={{name: 'bert:sentences'}}",
        "network={{name: 'bert:classifier'}}",
        "batch.size={size}",
        "train={{iterations: {iterations}}}",
        "log={{every: {every}it, tensorboard: false}}",
        "checkpoint={{every: null}}",
        "evaluation.every=null",
        "optimizer={{name: adam, params: {{}}}}",
        "lr={{schedule: 1.0e-4}}",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    ranks = [str(speed.BIN / launcher), "-np", "2"]
    horovod = [str(speed.BIN / "horovodrun"), "-np", "2"]
    return {
        f"harness, {launcher}": speed.Contender(
            [*ranks, sys.executable, str(speed.ROOT / "launch/train.py"), *words], 2
        ),
        "hvd.DistributedTrainer": speed.Contender(
            [*horovod, sys.executable, __file__, "--loop", "{folder}", "{iterations}", "{every}"], 2
        ),
    }


def main() -> None:
    """Measure and report, or be the loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--launcher", choices=["mpirun", "horovodrun"], default="mpirun")
    parser.add_argument("--loop", nargs=3, metavar=("FOLDER", "ITERATIONS", "EVERY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        folder, iterations, every = options.loop
        loop(folder, int(iterations), int(every))
        return
    found = speed.measure("bert", "2", options.rounds, contenders(options.launcher))
    print("\n".join(speed.table(found)))


if __name__ == "__main__":
    main()
