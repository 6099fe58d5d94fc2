"""The model of a reduction's cost, and the command that fits it."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from harness.comm.collective_fold import CollectiveFold
from harness.comm.fold import RankFold
from harness.comm.half import HalfPrecision
from harness.comm.tree import assign
from harness.doctor.changes import explain_changes
from harness.doctor.cost_model import (
    JOIN_S,
    LOSS_S,
    PAUSE_S,
    RELAUNCH_S,
    Changes,
    Reduction,
    fit,
    fold_cost,
    half_cost,
    slices_cost,
)
from harness.doctor.measure import UpdateCosts
from harness.units import ClockTime
from tests.comm.trees import Memory

SIZES = [2**power for power in range(16, 27, 2)]


@pytest.mark.parametrize("algorithm", ["fold", "ring", "slices", "half"])
@pytest.mark.parametrize("ranks", [2, 8])
def test_a_fit_finds_what_made_the_times(algorithm, ranks):
    true = Reduction(algorithm, latency_s=3e-5, seconds_per_byte=2e-10)
    found = fit(algorithm, ranks, SIZES, [true.seconds(ranks, size) for size in SIZES])
    assert found.latency_s == pytest.approx(3e-5)
    assert found.seconds_per_byte == pytest.approx(2e-10)
    assert found.error < 1e-9
    for more in (16, 1024):
        assert found.seconds(more, 44e6) == pytest.approx(true.seconds(more, 44e6))


def test_messages_by_hand():
    latency = {algorithm: Reduction(algorithm, 1.0, 0.0) for algorithm in ("fold", "ring")}
    assert [latency["fold"].seconds(ranks, 1e6) for ranks in (2, 8, 1024)] == [2, 6, 20]
    assert [latency["ring"].seconds(ranks, 1e6) for ranks in (2, 8, 1024)] == [2, 14, 2046]
    assert Reduction("fold", 0.0, 1e-9).seconds(4, 1e9) == pytest.approx(1.5)


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
@pytest.mark.parametrize("num_bytes", [1 << 10, 1 << 14, 1 << 18, 5 << 20])
def test_the_model_counts_what_the_fold_sends(ranks, num_bytes):
    sent = []

    def exchange(array, received, to, source):
        received[:] = 0
        sent.append(array.nbytes)

    RankFold(0, ranks, exchange).fold(np.zeros(num_bytes // 4, np.float32))
    messages, total = fold_cost(ranks, num_bytes)
    assert len(sent) == messages
    assert sum(sent) == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("num_bytes", [1 << 10, 1 << 18, 5 << 20])
def test_the_model_counts_what_is_sent_in_16_bits(ranks, num_bytes):
    sent = []

    def exchange(array, received, to, source):
        received[:] = 0
        sent.append(array.nbytes)

    half = HalfPrecision(num_bytes // 4, exponent=0)
    RankFold(0, ranks, exchange).finish([np.zeros(half.count, np.float32)], assign(ranks, ranks), half)
    messages, total = half_cost(ranks, num_bytes)
    assert len(sent) == messages
    assert sum(sent) == pytest.approx(total, rel=0.02)


class Counting:
    """Collectives of rank 0, which keep what it sends to each of the others, directly or around a ring."""

    def __init__(self):
        self.sent = []

    def alltoall(self, sent, counts, received, name):
        received[:] = 0
        self.sent += [4 * count for count in counts[1:]]

    def allgather(self, sent, received, name):
        received[:] = 0
        self.sent += [sent.nbytes] * (round(received.nbytes / sent.nbytes) - 1)


@pytest.mark.parametrize("ranks", [3, 4, 8])
@pytest.mark.parametrize("num_bytes", [1 << 10, 1 << 18, 5 << 20])
def test_the_model_counts_what_the_tree_sends_over_ranks_of_horovod(ranks, num_bytes):
    counting = Counting()
    CollectiveFold(0, counting).finish([Memory(num_bytes // 4, on_cpu=True)], assign(ranks, ranks), "sum")
    messages, total = slices_cost(ranks, num_bytes)
    assert len(counting.sent) == messages
    assert sum(counting.sent) == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize(("seconds", "zero"), [(lambda size: 1e-3 - 1e-12 * size, "byte"), (lambda size: size**2, "s")])
def test_no_cost_is_below_zero(seconds, zero):
    found = fit("fold", 2, SIZES, [seconds(size) for size in SIZES])
    assert min(found.latency_s, found.seconds_per_byte) == 0
    assert (found.seconds_per_byte == 0) == (zero == "byte")


RESTART_S = RELAUNCH_S + PAUSE_S


@pytest.mark.parametrize(
    ("costs", "loss", "leave", "join", "restart"),
    [  # of 5 workers: 4 are left, or 6
        ({"ask_s": 1.0}, 48 + 120, 48 + 120, 75 + 300, 75 + 200),
        ({"pair_s": 1.0}, 4 * 3, 4 * 3, 4 * 5, 4 * 4),
        ({"state_s": 1.0}, 2, 0, 3, 0),  # measured on 2
        ({"state_s": 1.0, "ranks": 8}, 2 / 3, 0, 1, 0),
        ({"start_s": 7.0}, 0, 0, 0, 7),
        ({}, 0, 0, 0, 0),
    ],
)
def test_a_change_by_hand(costs, loss, leave, join, restart):
    nothing = {"ranks": 2, "ask_s": 0.0, "pair_s": 0.0, "state_s": 0.0, "start_s": 0.0}
    found = Changes(**{**nothing, **costs}).seconds(5, update_s=0.25)
    assert found.loss_s == pytest.approx(LOSS_S + loss + 0.25)
    assert found.leave_s == pytest.approx(LOSS_S + leave)
    assert found.join_s == pytest.approx(JOIN_S + join)
    assert found.restart_s == pytest.approx(RESTART_S + restart)


def test_who_is_left_alone_connects_with_nobody():
    found = Changes(2, ask_s=1.0, pair_s=1.0, state_s=1.0, start_s=0.0).seconds(2, update_s=0.0)
    assert found.loss_s == found.leave_s == pytest.approx(LOSS_S + 3)  # one looks for others


@pytest.mark.parametrize(
    ("saved_every", "repeated"), [(100, "25.00"), (ClockTime.parse("2min"), "60.00"), (None, "everything")]
)
def test_the_table_of_changes(saved_every, repeated):
    update = UpdateCosts(0.5, 1000, prepare_s=1.0, state_s=0.0, state_bytes=3_000_000, saved_every=saved_every)
    changes = Changes(2, ask_s=0.0, pair_s=0.0, state_s=0.0, start_s=3.0)
    lines = explain_changes("mpi", changes, Reduction("fold", 0.0, 0.0), update)
    start = next(number for number, line in enumerate(lines) if "loss/restart" in line) + 1
    rows = [line.split() for line in lines[start : start + 10]]
    assert [row[0] for row in rows] == ["2", "4", "8", "16", "32", "64", "128", "256", "512", "1024"]
    for row in rows:
        whole_s = RESTART_S + 3 + (0 if saved_every is None else float(repeated))
        assert row[1:6] == [*(f"{s:.2f}" for s in (LOSS_S + 0.5, LOSS_S, JOIN_S, RESTART_S + 3)), repeated]
        assert row[6] == f"{(LOSS_S + 0.5) / whole_s:.2f}"
    assert "(3.00 MB)" in "\n".join(lines)
    assert any("These ranks sum by MPI" in line for line in lines)


@pytest.mark.parametrize(
    ("launcher", "setting", "messages", "end"),
    [
        ("mpirun", "comm=auto", "2 log2(p)", ""),
        ("horovodrun", "comm=horovod", "2 (p - 1)", "; up to [0-9]+ ranks "),
        pytest.param("horovodrun", "sum=engine", "2 (p - 1)", "\n", marks=pytest.mark.thorough),
    ],
)
def test_the_doctor_predicts_from_what_it_measures(start, launcher, setting, messages, end):
    out = start("launch/doctor.py", "--scaling", "--set", setting, np=2, launcher=launcher).stdout
    rows = [[float(cell.rstrip("%")) for cell in line.split()[-4:]] for line in out.splitlines() if line.endswith("%")]
    rows = [row for row in rows if len(row) == 4]
    assert [row[0] for row in rows] == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert all(later[2] >= row[2] for row, later in pairwise(rows))
    assert re.search(rf"update\(p\) = [0-9.]+ ms \+ {re.escape(messages)} latency [^;\n]+{end}", out)
    assert "All ranks were on one host" in out
    changes = [line.split()[-7:] for line in out.partition("loss/restart")[2].splitlines()[1:11]]
    assert [row[0] for row in changes] == [f"{row[0]:g}" for row in rows]
    assert all(float(cell) > 0 for row in changes for cell in row[1:5])
    assert float(re.search(r"([0-9.]+) s \(start\)", out)[1]) > 0
    assert ("These ranks sum by MPI" in out) == (launcher == "mpirun")


def test_the_doctor_needs_two_ranks(launch):
    done = launch("launch/doctor.py", "--scaling", exit_code=2)
    assert "start at least two: mpirun -np 2" in done.stderr + done.stdout
