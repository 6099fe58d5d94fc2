"""The promise: the same bits whoever plays the shards. Whole runs, compared by the digest that they print."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.conftest import THOROUGH

CONVOLUTIONS = (
    "network={name: cnn, params: {channels: [6, 16], hidden: 32, dropout: 0.3}}",
    "data.augment={pad_crop: 1, flip: true, mean: [0.3], std: [0.4]}",
    "batch.size=8",
    "train={iterations: 20}",  # the first wrong bit is never right again
    "evaluation.every=10it",
    "threads_per_rank=1",
    "lr.schedule={one_cycle: {start_lr: 0.1x, max_lr: 1x, cycle_length: 80%, cooldown_length: 20%, finish_lr: 0.001x}}",
)


@pytest.fixture
def digest_of(launch, tmp_path):
    """Train on the digits and give the digest of the whole final state, and the lines of metrics.jsonl."""

    def run(*settings, options=(), **how):
        count = sum(1 for _ in tmp_path.iterdir())
        settings = (*settings, f"output={tmp_path / str(count)}")
        arguments = [word for setting in settings for word in ("--set", setting)]
        out = launch("launch/train.py", *options, *arguments, **how).stdout
        lines = (tmp_path / str(count) / "digits" / "metrics.jsonl").read_text().splitlines()
        clocks = ("time", "images_per_s")
        metrics = [{key: value for key, value in json.loads(line).items() if key not in clocks} for line in lines]
        return re.search(r"digest ([0-9a-f]{64})", out)[1], metrics

    return run


@pytest.mark.long
def test_two_ranks_twice_and_two_emulated_ranks(digest_of):
    two = digest_of(*CONVOLUTIONS, np=2, fresh=THOROUGH)
    assert digest_of(*CONVOLUTIONS, np=2, launcher="mpirun") == two
    assert digest_of(*CONVOLUTIONS, options=["--emulate-np", 2]) == two


@pytest.mark.long
def test_eight_shards_on_one_process_and_on_more_ranks(digest_of):
    eight = digest_of(*CONVOLUTIONS, options=["--emulate-np", 8])
    assert digest_of(*CONVOLUTIONS, "batch.shards=8", options=["--emulate-np", 4]) == eight
    assert digest_of(*CONVOLUTIONS, "batch.shards=8") == eight
    for ranks in (2, 4, 8) if THOROUGH else (2,):  # on 4 begins the run below that resumes
        more = digest_of(*CONVOLUTIONS, "batch.shards=8", np=ranks, launcher="mpirun")
        assert more == eight
    for ranks in (2, 3, 4, 6, 8) if THOROUGH else (3,):
        assert digest_of(*CONVOLUTIONS, "batch.shards=8", np=ranks) == eight  # of horovodrun, by MPI


@pytest.mark.parametrize(
    ("shards", "optimizer", "ranks"),
    [
        (6, "sgd", (4,)),
        (7, "adam", (3,)),
        *(
            pytest.param(shards, optimizer, ranks, marks=pytest.mark.thorough)
            for optimizer in ("sgd", "adam")
            for shards, ranks in ((6, (1, 2, 3, 5, 6)), (7, (1, 2, 3, 5, 7)), (8, (1, 2, 3, 4, 5, 6, 7, 8)))
        ),
    ],
)
def test_any_number_of_ranks_ends_with_the_bits_of_one_process(digest_of, shards, optimizer, ranks):
    long = ["train={iterations: 200}"] if max(ranks) == shards else []
    settings = (*CONVOLUTIONS, *long, f"batch.shards={shards}", f"optimizer={{name: {optimizer}}}", "lr.base=0.005")
    alone = digest_of(*settings)
    for np_ in ranks:
        assert digest_of(*settings, np=np_, launcher="mpirun") == alone


def test_a_run_that_resumes_on_ever_other_numbers_of_ranks_ends_with_the_bits_of_one(launch, tmp_path):
    def trained(name, *options, **how):
        settings = [*CONVOLUTIONS, "batch.shards=8", "evaluation.every=null", f"output={tmp_path / name}"]
        settings += ["checkpoint={every: 5it, keep: 9}"]
        arguments = [word for setting in settings for word in ("--set", setting)]
        out = launch("launch/train.py", *arguments, *options, **how).stdout
        return re.search(r"digest ([0-9a-f]{64})", out)[1]

    # each resumes from a checkpoint that the one before has written
    checkpoints = tmp_path / "often" / "digits" / "checkpoints"
    ends = [trained("unbroken"), trained("often", np=8 if THOROUGH else 4, launcher="mpirun")]
    for ranks, iteration in ((3, 5), (5, 10)):
        newest = checkpoints / f"iteration-{iteration:09d}"
        ends.append(trained("often", "--resume", newest, np=ranks, launcher="mpirun"))
    ends.append(trained("often", "--resume", checkpoints / "iteration-000000015"))
    assert len(set(ends)) == 1


def test_gradients_in_16_bits_on_any_number_of_workers(digest_of):
    network = "network={name: cnn, params: {channels: [6, 16], hidden: 32, dropout: 0.3, batch_norm: true}}"
    short = (*CONVOLUTIONS, network, "train={iterations: 10}", "evaluation.every=null", "batch.shards=4")
    exact = digest_of(*short)
    four = digest_of(*short, "compression=fp16", options=["--emulate-np", 2])
    assert four != exact
    for ranks in (2, 3, 4) if THOROUGH else (3,):
        assert digest_of(*short, "compression=fp16", np=ranks, launcher="mpirun") == four
    assert digest_of(*short, "compression=fp16", "comm=horovod", np=3) == four


def test_the_digest_sees_the_seed_and_the_learning_rate(digest_of):
    short = (*CONVOLUTIONS, "train={iterations: 10}", "evaluation.every=null")
    digests = {digest_of(*short, *more)[0] for more in ((), ("seed=1",), ("lr.base=0.051",), ("batch.shards=2",))}
    assert len(digests) == 4


def test_ranks_of_horovod_end_with_the_bits_of_one_process(digest_of):
    short = (*CONVOLUTIONS, "train={iterations: 10}", "batch.shards=8", "comm=horovod")
    alone = digest_of(*short[:-1])
    for ranks in (3, 4, 8) if THOROUGH else (3,):
        assert digest_of(*short, np=ranks) == alone
    if THOROUGH:  # what the engine adds up, and that it does, is tested without a run
        assert digest_of(*short, "sum=engine", np=3)[0] != alone[0]


@pytest.mark.parametrize(
    ("np_", "comm", "ranks"),
    [(2, "horovod", "2 ranks (horovod over Gloo, sum: engine)"), (None, "auto", "1 rank (single, sum: tree)")],
)
def test_a_run_says_which_sum_is_in_use(launch, tmp_path, np_, comm, ranks):
    settings = ("sum=engine", f"comm={comm}", "train.epochs=1", "lr.schedule=1x", f"output={tmp_path}")
    words = [word for setting in settings for word in ("--set", setting)]
    assert ranks in launch("launch/train.py", *words, np=np_).stdout
    (manifest,) = tmp_path.glob("digits/checkpoints/*/manifest.json")
    assert json.loads(manifest.read_text())["world"]["sum"] == ("tree" if np_ is None else "engine")


def test_four_ranks_summed_by_the_engine_of_horovod_agree_with_one_process_to_rounding(start):
    """To 1e-6 and not to the bit: above two ranks Horovod adds in the order of a ring, not in the order of our tree.

    Each update is started from the same state, because two orders of addition drift apart within a hundred updates:
    the difference grows with the network's own sensitivity and says nothing of the update.
    """
    out = start("tests/programs/one_update.py", np=4).stdout
    report = json.loads(re.search(r"REPORT (.*)", out)[1])
    assert report["worst"] < 1e-6
    assert report["agree"] == 1  # the ranks among themselves are equal to the bit
    assert report["same_bits"] < report["arrays"]  # if this fails, Horovod has learned our order: promise more


def test_a_ragged_last_batch_over_two_ranks_is_the_mean_over_all_samples(start):
    def gradients(sizes, np_=None):
        out = start("tests/programs/ragged.py", json.dumps(sizes), np=np_).stdout
        return np.array(json.loads(re.search(r"GRADIENTS (.*)", out)[1]))

    ragged = [(3, 5), (5, 0)]
    shared = gradients(ragged, 2)
    alone = gradients([*ragged, *([sum(sizes)] for sizes in ragged)])
    np.testing.assert_array_equal(shared, alone[:2])  # to the bit, on one process or two
    np.testing.assert_allclose(shared, alone[2:], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("np_", [2, pytest.param(8, marks=pytest.mark.thorough)])
def test_the_learning_rate_of_every_line_is_the_plans(digest_of, np_):
    from harness.config import load_config
    from harness.plan import LRPlan, Sizes

    shards = "batch.shards=8"
    _, metrics = digest_of("train.epochs=5", shards, "log.every=1it", np=np_, launcher="mpirun")
    config = load_config("configs/digits.yaml", ["train.epochs=5"])
    plan = LRPlan(config.lr, Sizes.of(config.train, num_samples=1437, shards=8, batch_size=32))
    assert [line["iteration"] for line in metrics if line["split"] == "train"] == list(range(1, 26))
    assert [line["lr"] for line in metrics] == [plan.lr(line["iteration"]) for line in metrics]
